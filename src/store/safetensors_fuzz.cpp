// Fuzzes the safetensors reader: any bytes are a header that is refused, or tensors inside the file.
#include "store/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace stagecoach;
  const std::span file(reinterpret_cast<const std::byte*>(data), size);
  const auto header = store::parse_safetensors(file);
  if (!header.ok()) return 0;
  for (const store::TensorEntry& entry : header->entries) {
    CHECK(entry.begin <= entry.end && header->data_offset + entry.end <= size, "tensors lie inside the file");
  }
  return 0;
}
