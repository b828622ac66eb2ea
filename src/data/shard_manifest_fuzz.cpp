// Fuzzes the readers of what lies in a folder of shards: manifest, journal, documents. Nothing may crash them, and what
// they accept is consistent.
//
// In:      a byte that chooses the reader, then any bytes.
// Thread:  one.
#include <cstdint>

#include "base/check.h"
#include "data/build_journal.h"
#include "data/document_index.h"
#include "data/shard_manifest.h"

using namespace stagecoach;

namespace {

void manifest(const std::string& text) {
  const auto read = data::parse_shard_manifest(text);
  if (!read || read->version != data::kManifestVersion) return;
  const auto again = data::parse_shard_manifest(data::canonical_text(*read));
  CHECK(again.ok() && data::canonical_text(*again) == data::canonical_text(*read),
        "a manifest that was read can be written");
}

void journal(const std::string& text) {
  data::BuildState state;
  if (!data::add_journal_entry(text, state)) return;
  data::BuildState again;
  CHECK(data::add_journal_entry(data::journal_entry(state.shards[0], state.cursor, state.sources), again).ok() &&
            again.cursor == state.cursor,
        "an entry that was read can be written");
}

void documents(std::span<const std::byte> bytes) {
  base::ByteReader reader(bytes);
  data::ShardInfo shard;
  shard.tokens = 1 + reader.u32() % 1000;
  shard.documents = reader.u8() % 4;
  const std::int64_t first_token = reader.u8(), first_document = reader.u8();
  static_cast<void>(data::problem_of_documents(bytes.last(reader.remaining()), shard, first_token, first_document));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto rest = std::as_bytes(std::span(data, size)).subspan(1);
  const std::string text(base::as_text(rest));
  if (data[0] % 3 == 0) manifest(text);
  if (data[0] % 3 == 1) journal(text);
  if (data[0] % 3 == 2) documents(rest);
  return 0;
}
