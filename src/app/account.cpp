#include "app/account.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "app/account_text.h"
#include "app/device_choice.h"
#include "app/settings.h"
#include "observe/event.h"
#include "observe/trace_text.h"
#include "world/paced/provenance.h"

namespace stagecoach::app {

using base::Error;
using base::ErrorCode;
using base::Instant;
using base::Result;
using nlohmann::ordered_json;
using observe::Event;
using observe::EventKind;
namespace trace = observe::trace;

namespace {

constexpr int kRefused = 1;
constexpr int kCheckFailed = 8;

Instant at_ms(std::int64_t unix_ms) { return Instant::from_ns(unix_ms * 1'000'000); }

std::uint64_t number_in(const Event& event, std::string_view name) {
  const observe::FieldValue* value = event.find(name);
  const auto* number = value == nullptr ? nullptr : std::get_if<std::uint64_t>(value);
  return number == nullptr ? 0 : *number;
}
std::string text_in(const Event& event, std::string_view name) {
  const observe::FieldValue* value = event.find(name);
  const auto* text = value == nullptr ? nullptr : std::get_if<std::string>(value);
  return text == nullptr ? "" : *text;
}

/// Everything that is read, and what it comes to.
struct Account {
  RunSettings settings;
  std::vector<Event> events;
  std::vector<Told> told;
  observe::AccountTable table;
  Journeys journeys;
  Instant began;
  double bulk_scale = 1;
  std::string wrong;  // a loss that is not the reference's

  bool paced() const { return is_paced(settings.device); }
  double flush() const { return flush_arithmetic(table.stages.size(), settings.train.batch.microbatches, static_cast<std::uint64_t>(settings.replicas)); }
};

/// What the coordinator's log says, in the accounts' words.
void add_events(Account& account, const std::map<std::string, observe::WorkerNumber>& numbers) {
  const auto& batch = account.settings.train.batch;
  bool first = true;
  for (const Event& event : account.events) {
    const Instant at = at_ms(event.unix_ms);
    const base::Step step(number_in(event, "step"));
    if (event.kind == EventKind::step_committed)
      account.told.push_back({at, 0, trace::Committed{step, base::Attempt(number_in(event, "attempt")), static_cast<std::uint64_t>(batch.tokens_per_step())}});
    if (event.kind == EventKind::checkpoint_written) account.told.push_back({at, 0, trace::Saved{step}});
    if (event.kind == EventKind::run_started && !std::exchange(first, false)) account.told.push_back({at, 0, trace::Rewound{step}});
    const auto lost = event.kind == EventKind::worker_lost ? numbers.find(text_in(event, "peer")) : numbers.end();
    if (lost != numbers.end()) account.told.push_back({at, lost->second, trace::Gone{}});
  }
}

/// Lines {"time_ms": …, "what": "…"}.
Result<void> add_struck(const std::string& path, Account& account) {
  if (path.empty()) return {};
  std::ifstream file(path);
  if (!file) return Error{ErrorCode::not_found, path + " cannot be read"};
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("time_ms") || !json["time_ms"].is_number() || !json.contains("what") || !json["what"].is_string())
      return Error{ErrorCode::corrupt, path + ": expected lines such as {\"time_ms\": 1790000000000, \"what\": \"kill two\"}, not " + line.substr(0, 80)};
    account.told.push_back({at_ms(json["time_ms"].get<std::int64_t>()), 0, trace::Struck{json["what"].get<std::string>()}});
  }
  return {};
}

Result<void> read_run(const std::string& run, Account& account) {
  const std::filesystem::path folder(run);
  const LoadedSettings loaded = load_settings((folder / "config.toml").string());
  if (!loaded.ok()) return Error{ErrorCode::invalid_argument, loaded.problems.front()};
  account.settings = loaded.settings;
  auto events = observe::read_events((folder / "events.jsonl").string());
  if (!events) return events.error();
  account.events = std::move(events->events);
  if (!account.paced()) return {};
  const auto device = paced_device(account.settings.device);
  if (!device) return device.error().within("compute.device of the run");
  account.bulk_scale = (*device)->bulk_scale;
  return {};
}

/// Compares each step's loss with that of one machine that does everything in order.
void check_losses(Account& account) {
  const model::TrainConfig& config = account.settings.train;
  world::paced::Undisturbed reference(config, static_cast<std::uint64_t>(account.settings.stages));
  for (const Event& event : account.events) {
    const base::Step step(number_in(event, "step"));
    if (event.kind != EventKind::step_committed || step.value() == 0 || step > model::final_step(config)) continue;
    double sum = 0;
    const auto& losses = reference.train_losses(step);
    for (const double loss : losses) sum += loss;  // in microbatch order, as the coordinator adds them
    const double mean = sum / (static_cast<double>(config.batch.tokens_per_microbatch()) * static_cast<double>(losses.size()));
    if (observe::bits_of(mean) != text_in(event, "loss_bits") && account.wrong.empty())
      account.wrong = "the loss of step " + std::to_string(step.value()) + " is not that of one machine doing all of it: a contribution to it, or to an " +
                      "earlier step, was lost, counted twice, or of other weights";
  }
}

/// By time; what one file tells of one moment keeps its order.
void put_in_order(std::vector<Told>& told) {
  std::vector<std::pair<Instant, std::size_t>> order;
  for (std::size_t i = 0; i < told.size(); ++i) order.emplace_back(told[i].at, i);
  std::sort(order.begin(), order.end());
  std::vector<Told> sorted;
  sorted.reserve(told.size());
  for (const auto& [at, i] : order) sorted.push_back(std::move(told[i]));
  told = std::move(sorted);
}

Result<Account> account_of(const AccountOptions& options) {
  Account account;
  RETURN_IF_ERROR(read_run(options.run, account));
  std::map<std::string, observe::WorkerNumber> numbers;
  for (const std::string& path : options.traces) {
    auto read = read_trace(path);
    if (!read) return read.error();
    const observe::WorkerNumber number = numbers.try_emplace(read->peer, numbers.size() + 1).first->second;
    for (Told& each : read->told) {
      const auto* opened = std::get_if<trace::Opened>(&each.event);
      if (opened != nullptr && opened->stage.value() >= static_cast<std::uint64_t>(account.settings.stages))
        return Error{ErrorCode::mismatch, path + " is of a run with more stages"};
      each.worker = number;
      account.told.push_back(std::move(each));
    }
  }
  add_events(account, numbers);
  RETURN_IF_ERROR(add_struck(options.struck, account));
  put_in_order(account.told);
  observe::Accounting accounting(static_cast<std::uint64_t>(account.settings.stages));
  for (const Told& each : account.told) accounting.feed(each.at, each.worker, each.event);
  account.table = accounting.table();
  account.journeys = journeys_of(account.told);
  const auto opened = std::find_if(account.told.begin(), account.told.end(), [](const Told& each) { return std::holds_alternative<trace::Opened>(each.event); });
  if (opened != account.told.end()) account.began = opened->at;
  if (account.paced()) check_losses(account);
  return account;
}

std::string text_of(const Account& account) {
  const auto& table = account.table;
  const double step_s = table.steps > 0 ? table.span.seconds_f64() / static_cast<double>(table.steps) : 0;
  std::string out = fmt::format("{} steps committed in {}, {:.1f} s each; {} attempts\n", table.steps, time_text(table.span), step_s, table.attempts);
  if (account.bulk_scale != 1) out += fmt::format("bulk traffic (sums) shrunk to {} of its bytes\n", account.bulk_scale);
  out += "\n" + parts_table(table) + "\n" + fmt::format("{:.0f} tokens/s\n", tokens_per_s(table)) + flush_text(table.all, account.flush());
  out += fmt::format("{:>12}{:>14}{:>14}{:>14}\n", "traffic", "messages", "p50", "p99");
  for (const auto& [name, latency] : {std::pair("backward", &account.journeys.backward), std::pair("forward", &account.journeys.forward)})
    if (latency->count() > 0)
      out += fmt::format("{:>12}{:>14}{:>14}{:>14}\n", name, latency->count(), time_text(latency->quantile(0.5)), time_text(latency->quantile(0.99)));
  out += incidents_text(table, account.began);
  if (account.paced() && account.wrong.empty()) out += "every loss was checked against one machine doing all of it: nothing lost, nothing counted twice\n";
  return out;
}

std::string json_of(const Account& account) {
  ordered_json out;
  out["stages"] = account.table.stages.size();
  out["replicas"] = account.settings.replicas;
  out["microbatches"] = account.settings.train.batch.microbatches;
  out["tokens_per_microbatch"] = account.settings.train.batch.tokens_per_microbatch();
  out["bulk_scale"] = account.bulk_scale;
  add_account(account.table, account.began, out);
  out["flush_arithmetic"] = account.flush();
  for (const auto& [name, latency] : {std::pair("backward", &account.journeys.backward), std::pair("forward", &account.journeys.forward)})
    out["traffic"][name] = {{"messages", latency->count()}, {"p50_ns", latency->quantile(0.5).ns()}, {"p99_ns", latency->quantile(0.99).ns()}};
  out["checked"] = account.paced() ? ordered_json(account.wrong.empty()) : ordered_json(nullptr);
  return out.dump(2) + "\n";
}

}  // namespace

CLI::App* add_account_command(CLI::App& app, AccountOptions& options) {
  CLI::App* command = app.add_subcommand("account", "tell where the devices' time of a run went, from its workers' traces");
  command->add_option("run", options.run, "the run's folder")->required();
  command->add_option("traces", options.traces, "a file of join --trace for each worker, of one machine's clock")->required();
  command->add_option("--struck", options.struck, "a file of events of trouble, a line each (docs/formats/trace.md)");
  command->add_flag("--json", options.json, "one JSON object (docs/SIMULATE.md)");
  return command;
}

int run_account(const AccountOptions& options, std::ostream& out, std::ostream& err) {
  const auto account = account_of(options);
  if (!account) {
    err << "stagecoach: " << account.error().message << "\n";
    return kRefused;
  }
  if (account->table.steps == 0) {
    err << "stagecoach: no step of " << options.run << " was committed: there is nothing to tell\n";
    return kRefused;
  }
  out << (options.json ? json_of(*account) : text_of(*account));
  if (account->wrong.empty()) return 0;
  err << "stagecoach: " << account->wrong << "\n";
  return kCheckFailed;
}

Result<WorkerTrace> read_trace(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!file || !std::getline(file, line)) return Error{ErrorCode::not_found, path + " is no worker's trace: it cannot be read, or is empty"};
  const auto head = nlohmann::json::parse(line, nullptr, false);
  if (!head.is_object() || !head.contains("worker") || !head["worker"].is_string())
    return Error{ErrorCode::corrupt, path + " is no worker's trace: its first line names none"};
  WorkerTrace out{head["worker"].get<std::string>(), {}};
  for (std::size_t number = 2; std::getline(file, line); ++number) {
    if (file.eof()) break;  // without its newline: torn by the worker's end
    auto read = observe::parse_trace_line(line);
    if (!read) return read.error().within(path + ":" + std::to_string(number));
    out.told.push_back({read->at, 0, std::move(read->event)});
  }
  return out;
}

Journeys journeys_of(const std::vector<Told>& told) {
  Journeys out;
  std::map<observe::WorkerNumber, std::uint64_t> stages;
  using Key = std::tuple<base::Step, base::Attempt, base::MicrobatchIndex, std::uint64_t, trace::Kind>;  // by receiving stage
  std::map<Key, Instant> made;
  for (const Told& each : told) {
    if (const auto* opened = std::get_if<trace::Opened>(&each.event)) stages[each.worker] = opened->stage.value();
    const std::uint64_t stage = stages[each.worker];
    if (const auto* worked = std::get_if<trace::Worked>(&each.event); worked != nullptr && worked->kind != trace::Kind::evaluate)
      made[{worked->step, worked->attempt, worked->microbatch, worked->kind == trace::Kind::forward ? stage + 1 : stage - 1, worked->kind}] = each.at;
    const auto* arrived = std::get_if<trace::Arrived>(&each.event);
    const auto from = arrived == nullptr ? made.end() : made.find({arrived->step, arrived->attempt, arrived->microbatch, stage, arrived->kind});
    if (from != made.end()) (arrived->kind == trace::Kind::forward ? out.forward : out.backward).add(each.at - from->second);
  }
  return out;
}

}  // namespace stagecoach::app
