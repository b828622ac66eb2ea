#include "app/account.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>

#include "app/account_text.h"
#include "app/device_choice.h"
#include "app/settings.h"
#include "observe/event.h"
#include "observe/trace_text.h"
#include "store/checkpoint.h"
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
  std::uint64_t resumes = 0;
  std::optional<store::NewestCheckpoint> newest;
  std::string wrong;  // a loss, or a weight, that is not the reference's

  bool paced() const { return is_paced(settings.device); }
  std::size_t count(EventKind kind) const {
    return static_cast<std::size_t>(std::count_if(events.begin(), events.end(), [kind](const Event& event) { return event.kind == kind; }));
  }
  double flush() const { return flush_arithmetic(table.stages.size(), settings.train.batch.microbatches, static_cast<std::uint64_t>(settings.replicas)); }
};

/// A start of the coordinator over the run's folder, and when what it replaced had ended.
struct Start {
  Instant ended, began;
  base::Step step;  // it goes on from its end
};

std::vector<Start> resumes_of(const std::vector<Event>& events) {
  std::vector<Start> out;
  bool first = true;
  std::optional<Instant> ended;
  for (const Event& event : events) {
    if (event.kind == EventKind::run_finished) ended = at_ms(event.unix_ms);
    if (event.kind != EventKind::run_started) continue;
    const Instant at = at_ms(event.unix_ms);
    // One that was killed has left no word; its workers waited for it until then.
    if (!std::exchange(first, false)) out.push_back({ended.value_or(at), at, base::Step(number_in(event, "step"))});
    ended.reset();
  }
  return out;
}

/// Tells that all workers had ended with the coordinator, and which were there again, from its new start to the one after it.
void add_resume(Account& account, const Start& start, Instant next) {
  std::map<observe::WorkerNumber, std::pair<Instant, base::StageIndex>> back;
  std::set<observe::WorkerNumber> all;
  for (const Told& each : account.told) {
    if (each.worker > 0) all.insert(each.worker);
    const auto* opened = std::get_if<trace::Opened>(&each.event);
    if (opened == nullptr || each.at < start.began || each.at >= next) continue;
    const auto known = back.try_emplace(each.worker, each.at, opened->stage).first;
    if (each.at < known->second.first) known->second = {each.at, opened->stage};
  }
  for (const observe::WorkerNumber worker : all) account.told.push_back({start.ended, worker, trace::Gone{}});
  account.told.push_back({start.began, 0, trace::Rewound{start.step}});
  for (const auto& [worker, first] : back) account.told.push_back({start.began, worker, trace::Back{first.second}});
}

/// What the coordinator's log says, in the accounts' words.
void add_events(Account& account, const std::map<std::string, observe::WorkerNumber>& numbers) {
  const auto& batch = account.settings.train.batch;
  for (const Event& event : account.events) {
    const Instant at = at_ms(event.unix_ms);
    const base::Step step(number_in(event, "step"));
    if (event.kind == EventKind::step_committed)
      account.told.push_back({at, 0, trace::Committed{step, base::Attempt(number_in(event, "attempt")), static_cast<std::uint64_t>(batch.tokens_per_step())}});
    if (event.kind == EventKind::checkpoint_written) account.told.push_back({at, 0, trace::Saved{step}});
    const auto lost = event.kind == EventKind::worker_lost ? numbers.find(text_in(event, "peer")) : numbers.end();
    if (lost != numbers.end()) account.told.push_back({at, lost->second, trace::Gone{}});
  }
  const std::vector<Start> resumes = resumes_of(account.events);
  account.resumes = resumes.size();
  for (std::size_t i = 0; i < resumes.size(); ++i) add_resume(account, resumes[i], i + 1 < resumes.size() ? resumes[i + 1].began : Instant::never());
}

/// Lines {"time_ms": …, "what": "…"}, and "gone": the keys of workers that are dead from then on.
Result<void> add_struck(const std::string& path, const std::map<std::string, observe::WorkerNumber>& numbers, Account& account) {
  if (path.empty()) return {};
  std::ifstream file(path);
  if (!file) return Error{ErrorCode::not_found, path + " cannot be read"};
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json.contains("time_ms") || !json["time_ms"].is_number() || !json.contains("what") || !json["what"].is_string())
      return Error{ErrorCode::corrupt, path + ": expected lines such as {\"time_ms\": 1790000000000, \"what\": \"kill two\"}, not " + line.substr(0, 80)};
    const Instant at = at_ms(json["time_ms"].get<std::int64_t>());
    account.told.push_back({at, 0, trace::Struck{json["what"].get<std::string>()}});
    for (const auto& key : json.value("gone", nlohmann::json::array())) {
      const auto dead = key.is_string() ? numbers.find(key.get<std::string>()) : numbers.end();
      if (dead != numbers.end()) account.told.push_back({at, dead->second, trace::Gone{}});
    }
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

/// Compares the newest checkpoint's words, which are hashes of all that ever went into the weights, with those of one machine.
Result<void> check_weights(const std::string& run, Account& account) {
  auto newest = store::newest_complete(std::filesystem::path(run) / "checkpoints");
  if (!newest) return newest.error().code == ErrorCode::not_found ? Result<void>() : newest.error();
  const auto tensors = store::read_tensors(newest->path);
  if (!tensors) return tensors.error();
  const auto stages = static_cast<std::uint64_t>(account.settings.stages);
  const base::WeightVersion version(newest->manifest.meta.step.value());
  world::paced::Undisturbed reference(account.settings.train, stages);
  std::map<std::string, std::uint64_t> expected;
  for (std::uint64_t s = 0; s < stages; ++s)
    for (std::uint64_t tensor = 0; tensor < world::paced::kProvenanceTensors; ++tensor)
      expected[world::paced::exported_name(s, tensor)] = world::paced::exported_word(reference.weights(s, version), tensor);
  bool same = tensors->size() == expected.size();
  for (const base::NamedTensor& named : *tensors) {
    const auto word = expected.find(named.name);
    const base::Payload& bytes = named.tensor.bytes;
    same = same && word != expected.end() && bytes && bytes->size() == sizeof(word->second) &&
           std::memcmp(bytes->data(), &word->second, sizeof(word->second)) == 0;
  }
  if (!same && account.wrong.empty())
    account.wrong = "the weights of " + newest->path.filename().string() + " are not those of one machine doing all of it: a contribution was lost, counted twice, or of other weights";
  account.newest = std::move(*newest);
  return {};
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
  RETURN_IF_ERROR(add_struck(options.struck, numbers, account));
  put_in_order(account.told);
  observe::Accounting accounting(static_cast<std::uint64_t>(account.settings.stages));
  for (const Told& each : account.told) accounting.feed(each.at, each.worker, each.event);
  account.table = accounting.table();
  account.journeys = journeys_of(account.told);
  const auto opened = std::find_if(account.told.begin(), account.told.end(), [](const Told& each) { return std::holds_alternative<trace::Opened>(each.event); });
  if (opened != account.told.end()) account.began = opened->at;
  if (!account.paced()) return account;
  check_losses(account);
  RETURN_IF_ERROR(check_weights(options.run, account));
  return account;
}

std::string text_of(const Account& account) {
  const auto& table = account.table;
  const double step_s = table.steps > 0 ? table.span.seconds_f64() / static_cast<double>(table.steps) : 0;
  std::string out = fmt::format("{} steps committed in {}, {:.1f} s each; {} attempts, {} checkpoints, {} workers lost, {} resumes\n", table.steps,
                                time_text(table.span), step_s, table.attempts, account.count(EventKind::checkpoint_written),
                                account.count(EventKind::worker_lost), account.resumes);
  if (account.bulk_scale != 1) out += fmt::format("bulk traffic (sums) shrunk to {} of its bytes\n", account.bulk_scale);
  out += "\n" + parts_table(table) + "\n" + fmt::format("{:.0f} tokens/s\n", tokens_per_s(table)) + flush_text(table.all, account.flush());
  out += fmt::format("{:>12}{:>14}{:>14}{:>14}\n", "traffic", "messages", "p50", "p99");
  for (const auto& [name, latency] : {std::pair("backward", &account.journeys.backward), std::pair("forward", &account.journeys.forward)})
    if (latency->count() > 0)
      out += fmt::format("{:>12}{:>14}{:>14}{:>14}\n", name, latency->count(), time_text(latency->quantile(0.5)), time_text(latency->quantile(0.99)));
  out += incidents_text(table, account.began);
  if (!account.paced() || !account.wrong.empty()) return out;
  out += fmt::format("every loss was checked against one machine doing all of it, over {} resumes: nothing lost, nothing counted twice\n", account.resumes);
  if (account.newest)
    out += fmt::format("so were the weights after step {}: state_sha256 {}\n", account.newest->manifest.meta.step.value(), account.newest->manifest.state_sha256.hex());
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
  out["checkpoints"] = account.count(EventKind::checkpoint_written);
  out["workers_lost"] = account.count(EventKind::worker_lost);
  out["resumes"] = account.resumes;
  out["weights"] = nullptr;
  if (account.newest)
    out["weights"] = {{"step", account.newest->manifest.meta.step.value()}, {"state_sha256", account.newest->manifest.state_sha256.hex()}};
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
