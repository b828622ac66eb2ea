// Drives one stage from files, so that a test in another language can compare it with its own arithmetic. A test's tool.
//
// In:      compute_probe LIBRARY FOLDER: FOLDER/config.txt (a config's canonical text) and FOLDER/commands.txt, one command a line;
//          tensors are files of raw little-endian numbers in FOLDER, "-" = none.
// Out:     files in FOLDER; exit status 1 and a sentence on stderr at the first error.
//
//   stage FIRST LAST                              layers [FIRST, LAST)
//   import VERSION                                <name>.bin of every tensor of the stage; moments that have no file are zero
//   export PREFIX                                 PREFIX<name>.bin of every weight and moment
//   forward TOKENS BOUNDARY OUT
//   backward STEP TOKENS BOUNDARY GRADIENT OUT LOSS     the input's gradient and, as one double, the loss
//   sum STEP OUT                                  this worker's fixed64 sum, all elements
//   reduced STEP IN NORMS                         all elements of the group's sum; the norms as doubles
//   apply STEP NORM
//   score TOKENS OUT                              the whole model's −log p of tokens[1…], doubles; needs stage 0 L
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

#include "compute/library.h"

namespace stagecoach::compute {
namespace {

using base::Payload;

[[noreturn]] void fail(const std::string& sentence) {
  std::fprintf(stderr, "compute_probe: %s\n", sentence.c_str());
  std::exit(1);
}

template <class T>
T need(base::Result<T> result) {
  if (!result.ok()) fail(result.error().message);
  return std::move(result).value();
}
void need(const base::Result<void>& result) {
  if (!result.ok()) fail(result.error().message);
}

class Probe {
 public:
  Probe(Library& library, std::string folder) : library_(library), folder_(std::move(folder)) {
    std::string why;
    const Payload text = read("config.txt");
    if (!model::parse_canonical_text(std::string(base::as_text(*text)), config_, why)) fail("config.txt: " + why);
  }

  void run(std::istringstream& line) {
    std::string command;
    line >> command;
    if (command == "stage") return make_stage(line);
    if (!stage_) fail("the first command is \"stage\"");
    if (command == "import") return import_state(line);
    if (command == "export") return export_state(word(line));
    if (command == "forward") return forward(line);
    if (command == "backward") return backward(line);
    if (command == "sum") return sum(line);
    if (command == "reduced") return reduced(line);
    if (command == "apply") return apply(line);
    if (command == "score") return score(line);
    fail("no such command: " + command);
  }

 private:
  static std::string word(std::istringstream& line) {
    std::string text;
    if (!(line >> text)) fail("a command lacks a word: " + line.str());
    return text;
  }
  static std::uint64_t number(std::istringstream& line) { return std::strtoull(word(line).c_str(), nullptr, 10); }

  Payload read(const std::string& name) const {
    if (name == "-") return nullptr;
    std::ifstream file(folder_ + "/" + name, std::ios::binary);
    if (!file) fail("cannot read " + name);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const auto bytes = base::as_bytes(text);
    return base::make_payload(base::Bytes(bytes.begin(), bytes.end()));
  }
  bool there(const std::string& name) const { return std::ifstream(folder_ + "/" + name).good(); }
  void write(const std::string& name, const void* bytes, std::size_t count) const {
    if (name == "-") return;
    std::ofstream file(folder_ + "/" + name, std::ios::binary);
    if (!file.write(static_cast<const char*>(bytes), static_cast<std::streamsize>(count))) fail("cannot write " + name);
  }
  void write(const std::string& name, const Payload& payload) const {
    if (payload) write(name, payload->data(), payload->size());
  }

  void make_stage(std::istringstream& line) {
    StageOptions options;
    options.config = config_;
    options.range.first = static_cast<std::int64_t>(number(line));
    options.range.last = static_cast<std::int64_t>(number(line));
    stage_ = need(library_.make_stage(options));
  }

  void import_state(std::istringstream& line) {
    const base::WeightVersion version(number(line));
    std::vector<base::NamedTensor> tensors = need(stage_->export_state());
    for (base::NamedTensor& one : tensors) {
      if (there(one.name + ".bin")) {
        one.tensor.bytes = read(one.name + ".bin");
      } else {
        one.tensor.bytes = base::make_payload(base::Bytes(one.tensor.bytes->size()));
      }
    }
    need(stage_->import_state(version, tensors));
  }
  void export_state(const std::string& prefix) {
    for (const base::NamedTensor& one : need(stage_->export_state())) write(prefix + one.name + ".bin", one.tensor.bytes);
  }

  void forward(std::istringstream& line) {
    StageInput input;
    input.tokens = read(word(line));
    input.boundary = read(word(line));
    write(word(line), need(stage_->forward(stage_->version(), input)));
  }
  void backward(std::istringstream& line) {
    const base::Step step(number(line));
    StageInput input;
    input.tokens = read(word(line));
    input.boundary = read(word(line));
    const Payload gradient = read(word(line));
    const BackwardOutput output = need(stage_->backward(stage_->version(), {step, kAttempt, {}}, input, gradient));
    write(word(line), output.input_gradient);
    write(word(line), &output.loss_sum, sizeof output.loss_sum);
  }
  void sum(std::istringstream& line) {
    const base::Step step(number(line));
    write(word(line), need(stage_->read_sum(step, kAttempt, {0, stage_->elements()})));
  }
  void reduced(std::istringstream& line) {
    const base::Step step(number(line));
    need(stage_->write_reduced(step, kAttempt, {0, stage_->elements()}, read(word(line))));
    std::vector<double> norms;
    for (const TensorNorm& norm : need(stage_->norms(step, kAttempt))) norms.push_back(norm.sum_of_squares);
    write(word(line), norms.data(), norms.size() * sizeof(double));
  }
  void apply(std::istringstream& line) {
    const base::Step step(number(line));
    need(stage_->apply(step, kAttempt, std::strtod(word(line).c_str(), nullptr)));
  }
  void score(std::istringstream& line) {
    const Payload bytes = read(word(line));
    std::vector<std::int32_t> tokens(bytes->size() / sizeof(std::int32_t));
    std::memcpy(tokens.data(), bytes->data(), tokens.size() * sizeof(std::int32_t));
    const auto weights = need(stage_->export_state());
    const auto generator = need(library_.make_generator(config_.model, weights, config_.threads));
    const std::vector<double> scores = need(generator->score(tokens));
    write(word(line), scores.data(), scores.size() * sizeof(double));
  }

  static constexpr base::Attempt kAttempt{1};
  Library& library_;
  const std::string folder_;
  model::TrainConfig config_;
  std::unique_ptr<Stage> stage_;
};

}  // namespace
}  // namespace stagecoach::compute

int main(int count, char** words) {
  using namespace stagecoach::compute;
  if (count != 3) fail("usage: compute_probe LIBRARY FOLDER");
  Probe probe(*need(open_library(words[1])), words[2]);
  std::ifstream commands(std::string(words[2]) + "/commands.txt");
  for (std::string text; std::getline(commands, text);) {
    std::istringstream line(text);
    if (!text.empty()) probe.run(line);
  }
  return 0;
}
