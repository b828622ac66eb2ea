// Reads scenarios; collects every problem instead of stopping at the first.
#include "app/scenario.h"

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "app/device_choice.h"
#include "app/preset_settings.h"
#include "app/scenario_reader.h"
#include "base/files.h"

namespace stagecoach::app {
namespace {

using base::Duration;

constexpr std::size_t kWorkersMax = 16'384;
constexpr std::size_t kSitesMax = 256;
constexpr std::size_t kEventsMax = 100'000;

/// One reading, table by table, in an order in which each has what it refers to.
class Reader {
 public:
  Reader(const toml::table& document, const std::string& file) : document_(document) { problems_.file = file; }

  LoadedScenario read() {
    read_run();
    read_config();
    read_sites();
    read_devices();
    read_hosts();
    read_network();
    read_events();
    read_churn();
    read_assumptions();
    for (const auto& [key, node] : document_) {
      constexpr std::string_view kTables[] = {"scenario", "config",  "sites", "hosts",  "coordinator", "network",
                                              "paths",    "devices", "events", "churn", "simulate"};
      if (std::find(std::begin(kTables), std::end(kTables), key.str()) == std::end(kTables))
        problems_.add(&node, "there is no table [" + std::string(key.str()).substr(0, 60) + "] in a scenario");
    }
    return LoadedScenario{std::move(out_), std::move(problems_.sentences)};
  }

 private:
  const toml::table* table(const std::string& key) {
    const toml::node* node = document_.get(key);
    if (node == nullptr) return nullptr;
    if (!node->is_table()) problems_.add(node, key + " must be a table, [" + key + "]");
    return node->as_table();
  }
  Section section(const std::string& key) { return Section(table(key), "[" + key + "]", &document_, problems_); }
  /// The tables of an array of tables.
  std::vector<Section> sections(const std::string& key) {
    std::vector<Section> out;
    const toml::node* node = document_.get(key);
    const toml::array* list = node == nullptr ? nullptr : node->as_array();
    if (node != nullptr && list == nullptr) problems_.add(node, key + " must be a list of tables, [[" + key + "]]");
    for (std::size_t i = 0; list != nullptr && i < std::min(list->size(), kEventsMax); ++i) {
      if (!(*list)[i].is_table()) problems_.add(&(*list)[i], key + " must be a list of tables, [[" + key + "]]");
      else out.emplace_back((*list)[i].as_table(), "[[" + key + "]]", &document_, problems_);
    }
    return out;
  }

  void read_run() {
    Section run = section("scenario");
    out_.what = run.text("what").value_or("");
    if (!run.has("what")) run.missing("what", "one line about the scenario");
    out_.seed = static_cast<std::uint64_t>(run.integer("seed", 0, std::int64_t{1} << 62).value_or(1));
    out_.duration = run.time("duration");
    out_.steps = run.integer("steps", 1, 1'000'000'000);
    if (!run.has("duration") && !run.has("steps")) run.missing("duration", "a time, or steps, or both");
    out_.bulk_scale = run.number("bulk_scale", 0, 1).value_or(1);
    round_robin_ = run.word("deal", {"in-order", "round-robin"}).value_or("in-order") == "round-robin";
    out_.resume = run.time("resume");
    run.finish();
  }

  /// The run's own keys go through the one table of keys, as overrides whose places are remembered.
  void read_config() {
    std::vector<std::string> overrides;
    std::map<std::string, std::string> places;  // "--set key=value" -> "file:line"
    const toml::table* config = table("config");
    bool warmup = false;
    if (config != nullptr) {
      Section top(config, "[config]", &document_, problems_);
      for (const auto& [group, node] : *config) {
        const std::string name(group.str());
        (void)top.node(name);
        const toml::table* keys = node.as_table();
        if (keys == nullptr) {
          if (name != "preset") problems_.add(&node, "[config] " + name.substr(0, 60) + " must be a table of the run's keys, [config." + name.substr(0, 60) + "]");
          continue;
        }
        for (const auto& [leaf, value] : *keys) {
          const std::string key = name + "." + std::string(leaf.str());
          std::ostringstream text;
          text << toml::node_view<const toml::node>(value);
          overrides.push_back(key + "=" + text.str());
          places["--set " + overrides.back()] = problems_.file + ":" + std::to_string(value.source().begin.line);
          warmup |= key == "schedule.warmup_steps";
        }
      }
    }
    std::vector<std::string> all = preset(config);
    all.insert(all.end(), overrides.begin(), overrides.end());
    if (out_.steps) all.push_back("schedule.steps=" + std::to_string(*out_.steps));
    if (out_.steps && !warmup) all.push_back("schedule.warmup_steps=" + std::to_string(std::min<std::int64_t>(50, *out_.steps)));
    if (!out_.steps && !has_steps(overrides)) all.push_back("schedule.steps=1000000000");
    LoadedSettings loaded = parse_settings("", problems_.file, all);
    for (const std::string& problem : loaded.problems) problems_.sentences.push_back(with_place(problem, places));
    out_.settings = std::move(loaded.settings);
  }

  static bool has_steps(const std::vector<std::string>& overrides) {
    return std::any_of(overrides.begin(), overrides.end(), [](const std::string& each) { return each.starts_with("schedule.steps="); });
  }

  static std::string with_place(const std::string& problem, const std::map<std::string, std::string>& places) {
    for (const auto& [before, after] : places)
      if (problem.starts_with(before + ": ")) return after + ": [config] " + problem.substr(before.size() + 2);
    return problem;
  }

  std::vector<std::string> preset(const toml::table* config) {
    if (config == nullptr || !config->contains("preset")) return {};
    const toml::node* node = config->get("preset");
    const auto name = node->value<std::string>();
    const model::Preset* found = name ? model::find_preset(*name) : nullptr;
    if (found == nullptr) {
      problems_.add(node, "[config] preset must be one of " + preset_names());
      return {};
    }
    // The cuts of a preset lie at the edges of its split, so that it must know the number of stages.
    std::optional<std::int64_t> stages;
    if (const auto given = config->at_path("layout.stages").value<std::int64_t>()) stages = std::clamp<std::int64_t>(*given, 1, found->layers);
    return preset_overrides(*found, stages);
  }

  void read_sites() {
    Section sites = section("sites");
    out_.sites = sites.texts("names");
    const toml::node* matrix = sites.node("round_trip");
    sites.finish();
    if (out_.sites.empty()) out_.sites = {""};
    if (out_.sites.size() > kSitesMax) return sites.wrong("names", "has more than " + std::to_string(kSitesMax) + " sites");
    const std::size_t n = out_.sites.size();
    out_.round_trips.assign(n, std::vector<Duration>(n));
    if (matrix == nullptr) return;
    const toml::array* rows = matrix->as_array();
    if (rows == nullptr || rows->size() != n) return sites.wrong("round_trip", "must have one list of times for each of the " + std::to_string(n) + " sites");
    for (std::size_t i = 0; i < n; ++i) {
      const toml::array* row = (*rows)[i].as_array();
      if (row == nullptr || (row->size() != n && row->size() != i + 1)) {
        problems_.add(&(*rows)[i], "[sites] round_trip: row " + std::to_string(i + 1) + " must hold " + std::to_string(i + 1) + " or " + std::to_string(n) + " times");
        continue;
      }
      for (std::size_t j = 0; j < row->size(); ++j) read_round_trip((*row)[j], i, j);
    }
  }

  void read_round_trip(const toml::node& node, std::size_t i, std::size_t j) {
    const auto time = parse_time(node.value<std::string>().value_or(""));
    if (!time) return problems_.add(&node, "[sites] round_trip: " + time.error().message);
    if (j < i) out_.round_trips[j][i] = *time;
    if (j <= i) out_.round_trips[i][j] = *time;
    else upper_.push_back({&node, i, j, *time});
    if (i + 1 == out_.sites.size() && j == i)
      for (const Upper& each : upper_)
        if (out_.round_trips[each.i][each.j] != each.time) problems_.add(each.node, "[sites] round_trip must be symmetric, and is another here than across the diagonal");
  }

  void read_devices() {
    out_.devices = world::paced::named_devices();
    const toml::table* all = table("devices");
    if (all == nullptr) return;
    for (const auto& [name, node] : *all) {
      if (!node.is_table()) {
        problems_.add(&node, "[devices] holds tables, [devices.NAME]");
        continue;
      }
      Section section(node.as_table(), "[devices." + std::string(name.str()) + "]", &document_, problems_);
      ScenarioDevice device = read_speed(section, static_cast<std::size_t>(out_.settings.stages));
      section.finish();
      out_.devices[std::string(name.str())] = std::move(device);
    }
  }

  std::size_t read_site(Section& section) {
    const auto site = section.text("site");
    if (!site) {
      if (out_.sites.size() > 1 && !section.has("site")) section.missing("site", "one of the names of [sites]");
      return 0;
    }
    const auto it = std::find(out_.sites.begin(), out_.sites.end(), *site);
    if (it != out_.sites.end()) return static_cast<std::size_t>(it - out_.sites.begin());
    section.wrong("site", "names no site of [sites]: \"" + site->substr(0, 60) + "\"");
    return 0;
  }

  ScenarioHost read_host(Section& section) {
    ScenarioHost host;
    host.site = read_site(section);
    host.up_bytes_per_s = section.rate("up").value_or(0);
    host.down_bytes_per_s = section.rate("down").value_or(0);
    (void)section.time("queue");
    return host;
  }

  void read_hosts() {
    Section coordinator = section("coordinator");
    // Without a table of its own the coordinator stands at the first site.
    if (document_.contains("coordinator")) out_.coordinator = read_host(coordinator);
    out_.coordinator.name = "coordinator";
    coordinator.finish();
    std::vector<std::vector<ScenarioHost>> groups;
    std::size_t count = 0;
    for (Section& section : sections("hosts")) {
      groups.push_back(read_group(section));
      count += groups.back().size();
      section.finish();
    }
    if (count > kWorkersMax) return problems_.add(document_.get("hosts"), "[[hosts]] make more than " + std::to_string(kWorkersMax) + " workers");
    for (std::size_t i = 0; round_robin_ && out_.workers.size() < count; ++i)
      for (const auto& group : groups)
        if (i < group.size()) out_.workers.push_back(group[i]);
    for (std::size_t g = 0; !round_robin_ && g < groups.size(); ++g) out_.workers.insert(out_.workers.end(), groups[g].begin(), groups[g].end());
    std::set<std::string> names{"coordinator"};
    for (const ScenarioHost& host : out_.workers)
      if (!names.insert(host.name).second) problems_.add(document_.get("hosts"), "[[hosts]] name two hosts \"" + host.name + "\"");
    const std::int64_t wanted = out_.settings.stages * out_.settings.replicas;
    if (static_cast<std::int64_t>(count) != wanted)
      problems_.add(document_.get("hosts"), "[[hosts]] make " + std::to_string(count) + " workers, but layout.stages × layout.replicas is " + std::to_string(wanted));
  }

  std::vector<ScenarioHost> read_group(Section& section) {
    const std::string name = section.text("name").value_or("");
    const auto fine = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-'; };
    if (name.empty() || name.size() > 64 || !std::all_of(name.begin(), name.end(), fine)) section.wrong("name", "must be given, of letters, digits and -");
    const auto count = static_cast<std::size_t>(section.integer("count", 1, kWorkersMax).value_or(1));
    ScenarioHost host = read_host(section);
    host.device = section.text("device").value_or("cpu");
    host.slowdown = section.number("slowdown", 0.001, 1e6).value_or(1);
    host.later = section.word("join", {"later"}).has_value();
    if (host.device.starts_with("paced:") && out_.device_of(host) == nullptr)
      section.wrong("device", "is paced by a table [devices." + host.device.substr(6, 60) + "] that is not there");
    else if (!host.device.starts_with("paced:") && host.device != "cpu" && host.device != "cuda" && host.device != "mps" && host.device != "auto")
      section.wrong("device", "must be cpu, cuda, mps, auto or paced:NAME, not \"" + host.device.substr(0, 60) + "\"");
    std::vector<ScenarioHost> group(count, host);
    for (std::size_t i = 0; i < count; ++i) group[i].name = count == 1 ? name : name + "-" + std::to_string(i + 1);
    return group;
  }

  void read_network() {
    Section network = section("network");
    out_.jitter = network.time("jitter").value_or(Duration());
    out_.loss = network.number("loss", 0, 0.99).value_or(0);
    out_.burst = network.number("burst", 1, 1000).value_or(1);
    (void)network.flag("reorder");
    network.finish();
    for (Section& section : sections("paths")) {
      ScenarioPath path;
      path.ends = read_between(section, true);
      read_path(section, path);
      out_.paths.push_back(path);
      section.finish();
    }
  }

  static void read_path(Section& section, ScenarioPath& path) {
    path.round_trip = section.time("round_trip");
    path.jitter = section.time("jitter");
    path.loss = section.number("loss", 0, 0.99);
  }

  std::optional<std::size_t> host_named(const std::string& name) const {
    if (name == "coordinator") return 0;
    for (std::size_t i = 0; i < out_.workers.size(); ++i)
      if (out_.workers[i].name == name) return i + 1;
    return std::nullopt;
  }

  ScenarioEnds read_between(Section& section, bool needed) {
    ScenarioEnds ends;
    if (!needed && !section.has("between")) return ends;
    const auto names = section.texts("between");
    if (names.size() == 2) {
      const auto a = host_named(names[0]), b = host_named(names[1]);
      if (a && b) return ScenarioEnds{ScenarioEnds::Kind::hosts, *a, *b};
      const auto x = std::find(out_.sites.begin(), out_.sites.end(), names[0]), y = std::find(out_.sites.begin(), out_.sites.end(), names[1]);
      if (x != out_.sites.end() && y != out_.sites.end())
        return ScenarioEnds{ScenarioEnds::Kind::sites, static_cast<std::size_t>(x - out_.sites.begin()), static_cast<std::size_t>(y - out_.sites.begin())};
    }
    section.wrong("between", "must name two hosts, or two sites");
    return ends;
  }

  void read_events() {
    using Kind = ScenarioEvent::Kind;
    static const std::map<std::string, Kind> kKinds = {{"kill", Kind::kill}, {"stop", Kind::stop}, {"continue", Kind::resume}, {"restart", Kind::restart},
                                                       {"cut", Kind::cut},   {"degrade", Kind::degrade}, {"move", Kind::move}, {"join", Kind::join}};
    for (Section& section : sections("events")) {
      ScenarioEvent event;
      if (!section.has("at")) section.missing("at", "a time after training begins");
      event.at = section.time("at").value_or(Duration());
      const auto what = section.word("do", {"kill", "stop", "continue", "restart", "cut", "degrade", "move", "join"});
      if (!section.has("do")) section.missing("do", "what happens");
      if (what) event.kind = kKinds.at(*what);
      event.length = section.time("for");
      if (section.has("between") && (event.kind == Kind::cut || event.kind == Kind::degrade)) event.path.ends = read_between(section, true);
      else event.host = read_event_host(section);
      if (event.kind == Kind::degrade) {
        event.up_bytes_per_s = section.rate("up");
        event.down_bytes_per_s = section.rate("down");
        read_path(section, event.path);
      }
      section.finish();
      // By time; what happens at one time keeps the order of the file.
      const auto later = std::upper_bound(out_.events.begin(), out_.events.end(), event,
                                          [](const ScenarioEvent& a, const ScenarioEvent& b) { return a.at < b.at; });
      out_.events.insert(later, std::move(event));
    }
  }

  std::size_t read_event_host(Section& section) {
    const auto number = section.integer("worker", 1, static_cast<std::int64_t>(std::max<std::size_t>(1, out_.workers.size())));
    const auto name = section.text("host");
    if (section.has("worker") == section.has("host")) {
      section.wrong("worker", "or host must say whom it strikes, one of them");
    } else if (name) {
      const auto found = host_named(*name);
      if (found) return *found;
      section.wrong("host", "names no host: \"" + name->substr(0, 60) + "\"");
    }
    return static_cast<std::size_t>(number.value_or(1));
  }

  void read_churn() {
    if (!document_.contains("churn")) return;
    using Kind = ScenarioEvent::Kind;
    Section section = this->section("churn");
    ScenarioChurn churn;
    churn.every = section.time("every").value_or(Duration::seconds(1));
    if (!section.has("every") || churn.every <= Duration()) section.missing("every", "the mean time between two events, above 0");
    const std::string what = section.word("do", {"kill", "stop", "restart", "cut"}).value_or("kill");
    if (!section.has("do")) section.missing("do", "what happens");
    churn.kind = what == "stop" ? Kind::stop : what == "cut" ? Kind::cut : what == "restart" ? Kind::restart : Kind::kill;
    churn.length = section.time("for");
    if ((churn.kind == Kind::stop || churn.kind == Kind::cut) && !section.has("for")) section.missing("for", "how long each lasts");
    churn.from = section.time("from").value_or(Duration());
    churn.until = section.time("until");
    section.finish();
    out_.churn = churn;
  }

  void read_assumptions() {
    Section section = this->section("simulate");
    out_.goodput = section.number("goodput", 0.01, 1).value_or(out_.goodput);
    if (const auto window = section.bytes("initial_window")) out_.initial_window_bytes = static_cast<std::uint64_t>(*window);
    out_.disk = section.time("disk").value_or(out_.disk);
    out_.prepare = section.time("prepare").value_or(out_.prepare);
    out_.spread = section.number("spread", 0, 0.9).value_or(0);
    section.finish();
  }

  struct Upper {
    const toml::node* node;
    std::size_t i, j;
    Duration time;
  };
  const toml::table& document_;
  ScenarioProblems problems_;
  Scenario out_;
  bool round_robin_ = false;
  std::vector<Upper> upper_;  // times above the diagonal: each must equal the one across it
};

}  // namespace

const ScenarioDevice* Scenario::device_of(const ScenarioHost& host) const {
  const std::string name = host.device.starts_with("paced:") ? host.device.substr(6) : host.device;
  const auto it = devices.find(name);
  return it == devices.end() ? nullptr : &it->second;
}

LoadedScenario parse_scenario(std::string_view text, const std::string& name) {
  if (text.size() > kConfigBytesMax) return {{}, {name + ": a scenario has at most 1 MiB, this has " + std::to_string(text.size()) + " bytes"}};
  try {
    const toml::table document = toml::parse(text, name);
    return Reader(document, name).read();
  } catch (const toml::parse_error& error) {
    return {{}, {name + ":" + std::to_string(error.source().begin.line) + ": not TOML: " + std::string(error.description())}};
  }
}

LoadedScenario load_scenario(const std::string& path) {
  const auto text = base::read_text_file(path, kConfigBytesMax);
  if (!text) return {{}, {text.error().message}};
  LoadedScenario loaded = parse_scenario(*text, path);
  loaded.scenario.name = std::filesystem::path(path).stem().string();
  return loaded;
}

}  // namespace stagecoach::app
