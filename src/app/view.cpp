// RunStatus -> lines. The picture from top to bottom: title, progress, losses, stages, waits, events.

#include "app/view.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace stagecoach::app {
namespace {

using observe::MemberState;
using observe::Phase;
using observe::RunStatus;
using observe::StageStatus;

class Painter {
 public:
  Painter(const RunStatus& status, const ViewOptions& options) : status_(status), options_(options) {}

  std::vector<std::string> paint() {
    std::vector<std::string> lines = head();
    std::vector<std::string> stages = stage_lines();
    std::vector<std::string> waits = wait_lines();
    std::vector<std::string> events = event_lines();
    if (options_.rows > 0) {
      // Room goes to the stages first, then to what waits, then to what happened.
      std::size_t room = options_.rows > lines.size() ? options_.rows - lines.size() : 0;
      room -= shorten(stages, room, "stages");
      room -= shorten(waits, room, "waits");
      if (events.size() > room) events.erase(events.begin(), events.end() - static_cast<std::ptrdiff_t>(room));
    }
    for (auto* part : {&stages, &waits, &events}) lines.insert(lines.end(), part->begin(), part->end());
    if (options_.rows > 0 && lines.size() > options_.rows) lines.resize(options_.rows);
    for (std::string& line : lines) line = clipped(line, options_.columns, options_);
    return lines;
  }

 private:
  bool wide() const { return options_.columns >= 80; }
  bool roomy() const { return options_.columns >= 96; }
  std::string colour(std::string_view code, const std::string& text) const {
    return options_.colour ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : text;
  }
  std::string dim(const std::string& text) const { return colour("2", text); }
  std::string_view dash() const { return options_.unicode ? "—" : "-"; }

  /// Cuts `lines` to `room`, the last one then saying how many are not shown. Returns how many are left.
  std::size_t shorten(std::vector<std::string>& lines, std::size_t room, std::string_view what) const {
    if (lines.size() > room) {
      const std::size_t hidden = lines.size() - room + 1;
      lines.resize(room);
      if (room > 0) lines.back() = dim(fmt::format("  {} {} more {}", options_.unicode ? "…" : "...", hidden, what));
    }
    return lines.size();
  }

  std::string_view phase_colour() const {
    switch (status_.phase) {
      case Phase::training:
      case Phase::finished:
        return "1;32";
      case Phase::recovering:
      case Phase::stopped:
        return "1;31";
      default:
        return "1;33";
    }
  }

  std::vector<std::string> head() const {
    std::vector<std::string> out;
    std::string title = colour("1", "stagecoach ") + printable(status_.name) + "  " +
                        colour(phase_colour(), std::string(observe::to_string(status_.phase)));
    if (!status_.reason.empty()) title += ": " + printable(status_.reason);
    out.push_back(title);
    out.push_back(progress_line());
    out.push_back(rate_line());
    const bool short_of_rows = options_.rows > 0 && options_.rows < 10;
    if (short_of_rows) {
      out.push_back(fmt::format("loss {}  validation {}", loss_text(shown_loss(), options_), validation_text()));
      return out;
    }
    out.push_back(loss_line("train     ", loss_text(shown_loss(), options_), status_.train_history));
    out.push_back(loss_line("validation", validation_text(), status_.validation_history));
    return out;
  }

  std::optional<double> shown_loss() const {
    return status_.train_loss_smoothed ? status_.train_loss_smoothed : status_.train_loss;
  }

  std::string validation_text() const {
    if (!status_.validation_loss) return loss_text(std::nullopt, options_);
    return fmt::format("{:.4f}", status_.validation_loss->nats_per_token);
  }

  std::string progress_line() const {
    const double fraction =
        status_.steps == 0 ? 0 : static_cast<double>(status_.step) / static_cast<double>(status_.steps);
    const std::string percent = fmt::format("{:3.0f} %", std::floor(std::clamp(fraction, 0.0, 1.0) * 100));
    std::string right = fmt::format(" {}  step {} of {}", percent, status_.step, status_.steps);
    if (status_.eta_s && status_.phase != Phase::finished)
      right += fmt::format("  {} left", duration_text(*status_.eta_s));
    const std::size_t used = width_of(right);
    const std::size_t length = std::clamp<std::size_t>(options_.columns > used ? options_.columns - used : 0, 10, 60);
    return colour("36", bar(fraction, length, options_)) + right;
  }

  std::string rate_line() const {
    std::string out = fmt::format("{} tokens/s   {} tokens   {}", count_text(status_.tokens_per_s),
                                  count_text(static_cast<double>(status_.tokens)), duration_text(status_.elapsed_s));
    if (wide() && status_.checkpoint) out += fmt::format("   checkpoint of step {}", status_.checkpoint->step);
    if (wide() && status_.attempt > 1) out += fmt::format("   attempt {}", status_.attempt);
    return out;
  }

  std::string loss_line(const std::string& label, const std::string& value,
                        const std::vector<observe::LossPoint>& history) const {
    const std::string left = fmt::format("{} {:>8} ", dim(label), value);
    const std::size_t used = width_of(left);
    return left +
           colour("33",
                  sparkline(history, options_.columns > used ? std::min<std::size_t>(options_.columns - used, 60) : 0,
                            options_));
  }

  std::vector<std::string> stage_lines() const {
    std::vector<std::string> out;
    if (status_.stages.empty()) return out;
    const std::string_view busy = roomy() ? "busy            " : " busy";
    out.push_back(
        dim(wide() ? fmt::format("{:>5}  {:<7}  {}  {:>5}  {:>10}  {:>10}  {}", "stage", "layers", busy, "queue", "in",
                                 "out", "who")
                   : fmt::format("{:>5} {:>5} {:>6} {:>10} {:>10}  {}", "stage", "busy", "queue", "in", "out", "who")));
    for (std::size_t i = 0; i < status_.stages.size(); ++i) out.push_back(stage_line(i, status_.stages[i]));
    return out;
  }

  std::string stage_line(std::size_t index, const StageStatus& stage) const {
    double busy = 0;
    double in = 0;
    double out = 0;
    std::uint64_t queue = 0;
    std::size_t present = 0;
    std::string who;
    for (const auto& member : stage.members) {
      const bool lost = member.state == MemberState::lost;
      std::string name = printable(member.peer.substr(0, 8));
      if (member.state != MemberState::ready && member.state != MemberState::working)
        name += "(" + std::string(observe::to_string(member.state)) + ")";
      who += (who.empty() ? "" : " ") + (lost ? colour("31", name) : name);
      if (lost) continue;
      ++present;
      busy += member.busy_fraction;
      in += member.bytes_in_per_s;
      out += member.bytes_out_per_s;
      queue += member.queue_length;
    }
    if (present > 0) busy /= static_cast<double>(present);
    if (who.empty()) who = colour("31", "nobody");
    const std::string layers = stage.end_layer == stage.first_layer + 1 ? fmt::format("{}", stage.first_layer)
                               : stage.end_layer > stage.first_layer
                                   ? fmt::format("{}-{}", stage.first_layer, stage.end_layer - 1)
                                   : std::string("-");
    const std::string percent = fmt::format("{:3.0f} %", busy * 100);
    if (wide())
      return fmt::format("{:>5}  {}  {}{}  {:>5}  {:>10}  {:>10}  {}", index, padded(layers, 7, options_),
                         roomy() ? bar(busy, 10, options_) + " " : "", percent, queue, bytes_per_s_text(in),
                         bytes_per_s_text(out), who);
    return fmt::format("{:>5} {} {:>6} {:>10} {:>10}  {}", index, percent, queue, bytes_per_s_text(in),
                       bytes_per_s_text(out), who);
  }

  std::vector<std::string> wait_lines() const {
    std::vector<std::string> out;
    for (const auto& wait : status_.waits) {
      std::string line = fmt::format("waits  {} for {}, {}", printable(wait.who), printable(wait.what_for),
                                     duration_text(wait.waiting_s));
      if (!wait.reason.empty()) line += ": " + printable(wait.reason);
      out.push_back(colour("33", line));
    }
    return out;
  }

  std::vector<std::string> event_lines() const {
    std::vector<std::string> out;
    const std::size_t most = options_.rows == 0 ? 10 : 5;
    for (std::size_t i = status_.events.size() > most ? status_.events.size() - most : 0; i < status_.events.size();
         ++i)
      out.push_back(dim(fmt::format("{} {}", dash(), printable(status_.events[i]))));
    return out;
  }

  const RunStatus& status_;
  const ViewOptions& options_;
};

}  // namespace

std::vector<std::string> render_lines(const RunStatus& status, const ViewOptions& options) {
  return Painter(status, options).paint();
}

std::string render_text(const RunStatus& status, const ViewOptions& options) {
  std::string out;
  for (const std::string& line : render_lines(status, options)) out += line + "\n";
  return out;
}

std::vector<std::string> PlainView::lines(const RunStatus& status) {
  std::vector<std::string> out;
  // Events are a moving window: what follows the longest end of the old window that begins the new one is new.
  std::size_t known = std::min(last_events_.size(), status.events.size());
  while (known > 0 && !std::equal(status.events.begin(), status.events.begin() + static_cast<std::ptrdiff_t>(known),
                                  last_events_.end() - static_cast<std::ptrdiff_t>(known)))
    --known;
  for (std::size_t i = known; i < status.events.size(); ++i) out.push_back(printable(status.events[i]));
  last_events_ = status.events;

  std::string phase(observe::to_string(status.phase));
  const std::string reason = printable(status.reason);
  if (reason.starts_with(phase)) phase = reason;  // "stopped after step 12, as asked"
  else if (!reason.empty()) phase += ": " + reason;
  // While it trains on, lines about steps tell more than the phase.
  const bool trains_on = status.phase == Phase::training && last_phase_.starts_with(observe::to_string(Phase::training));
  const bool phase_is_new = phase != last_phase_ && !trains_on;
  const bool over = status.phase == Phase::finished || status.phase == Phase::stopped;
  if (phase_is_new && !over) out.push_back(phase);
  last_phase_ = phase;

  const bool due = status.step != last_step_ && (status.step / print_every_ != last_step_ / print_every_ ||
                                                 status.step == status.steps || status.step < last_step_);
  if (due) {
    std::string line = fmt::format("step {}/{}", status.step, status.steps);
    if (status.train_loss) line += fmt::format("  loss {:.4f}", *status.train_loss);
    line += fmt::format("  {} tokens/s", count_text(status.tokens_per_s));
    if (status.eta_s) line += fmt::format("  {} left", duration_text(*status.eta_s));
    out.push_back(line);
    last_step_ = status.step;
  }
  if (status.validation_loss && (!validated_ || status.validation_loss->step != last_validation_step_)) {
    out.push_back(fmt::format("validation loss after step {}: {:.4f}", status.validation_loss->step,
                              status.validation_loss->nats_per_token));
    last_validation_step_ = status.validation_loss->step;
    validated_ = true;
  }
  if (phase_is_new && over) out.push_back(phase);  // the last word is about the end
  return out;
}

}  // namespace stagecoach::app
