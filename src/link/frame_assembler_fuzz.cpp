// Claim: whatever the bytes and their split, the assembler neither crashes nor holds more than its budget, and the frames it gives do
// not depend on the split.
#include <cstdint>
#include <cstdlib>

#include "link/frame_assembler.h"

namespace {

using namespace stagecoach;

constexpr std::uint64_t kBudgetBytes = 3u << 20;

struct Outcome {
  std::vector<link::AssembledFrame> frames;
  bool ok = true;
};

Outcome assemble(link::FrameAssembler::Stream stream, std::span<const std::byte> bytes, std::size_t piece) {
  Outcome outcome;
  link::ReceiveBudget budget(kBudgetBytes);
  link::FrameAssembler assembler(stream, budget);
  do {
    const auto part = bytes.first(std::min(piece, bytes.size()));
    bytes = bytes.subspan(part.size());
    outcome.ok = assembler.feed(part, bytes.empty(), outcome.frames).ok();
    CHECK(budget.used() <= kBudgetBytes, "the budget bounds what an assembler holds");
  } while (outcome.ok && !bytes.empty());
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const auto stream = (data[0] & 1) != 0 ? link::FrameAssembler::Stream::control : link::FrameAssembler::Stream::single_frame;
  const std::size_t piece = 1 + data[1];
  const auto bytes = std::as_bytes(std::span(data + 2, size - 2));
  const Outcome pieces = assemble(stream, bytes, piece);
  const Outcome whole = assemble(stream, bytes, bytes.size() + 1);
  CHECK(pieces.ok == whole.ok, "the verdict does not depend on the split");
  CHECK(pieces.frames.size() == whole.frames.size(), "the frames do not depend on the split");
  for (std::size_t i = 0; i < whole.frames.size(); ++i) {
    CHECK(pieces.frames[i].bytes == whole.frames[i].bytes, "nor do their bytes");
  }
  return 0;
}
