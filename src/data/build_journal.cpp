#include "data/build_journal.h"

#include <nlohmann/json.hpp>
#include <sstream>
#include <system_error>

#include "base/files.h"
#include "data/json_fields.h"

namespace stagecoach::data {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;
using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr char kBuildFile[] = "build.json";
constexpr char kLockFile[] = ".lock";
constexpr std::size_t kEntryBytesMax = 16u << 20;

std::string entry_name(std::size_t position) {
  std::string name = shard_file_name(position);
  return name.substr(0, name.find('.')) + ".done";
}

/// The first line that is in one text and not in the same place of the other, as a sentence.
std::string difference(const std::string& held, const std::string& wanted) {
  std::istringstream a(held), b(wanted);
  std::string in_a, in_b;
  while (true) {
    const bool more_a = static_cast<bool>(std::getline(a, in_a)), more_b = static_cast<bool>(std::getline(b, in_b));
    if (!more_a && !more_b) return "nothing";
    if (!more_a) return "it has no " + in_b;
    if (!more_b) return "it has " + in_a + " besides";
    if (in_a != in_b) return "it has " + in_a + " where this command means " + in_b;
  }
}

bool holds_files(const fs::path& directory) {
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(directory, failed)) {
    if (entry.path().filename() != kLockFile) return true;
  }
  return false;
}

}  // namespace

Result<BuildJournal> BuildJournal::open(const fs::path& directory, const std::string& what) {
  BuildJournal journal(directory);
  const fs::path path = directory / kBuildFile;
  if (!exists(directory)) {
    if (holds_files(directory)) {
      return Error{ErrorCode::already_exists, directory.string() + " holds files that are no build of shards: choose " +
                                                  "another folder, or empty this one"};
    }
    RETURN_IF_ERROR(write_whole_file(path, Json{{"what", what}}.dump(2, ' ', false, Json::error_handler_t::replace)));
    return journal;
  }
  auto text = base::read_text_file(path, kEntryBytesMax);
  if (!text) return text.error();
  const Json root = Json::parse(*text, nullptr, false);
  std::string wrong;
  JsonFields fields(root, wrong);
  const std::string held = fields.text("what");
  // Compared as it was written: a name that is not UTF-8 is replaced in the file.
  const std::string wanted = Json::parse(Json(what).dump(-1, ' ', false, Json::error_handler_t::replace));
  if (!wrong.empty() || held != wanted) {
    return Error{ErrorCode::mismatch,
                 directory.string() + " holds an unfinished build of something else (" +
                     (wrong.empty() ? difference(held, wanted) : path.string() + " is damaged") +
                     "): finish it with its own command, choose another folder, or remove this one"};
  }
  RETURN_IF_ERROR(journal.load());
  return journal;
}

Result<void> BuildJournal::record(const ShardInfo& shard, const BuildCursor& cursor,
                                  std::span<const SourceEnd> sources) {
  const auto news = sources.subspan(state_.sources.size());
  RETURN_IF_ERROR(write_whole_file(directory_ / entry_name(state_.shards.size()), journal_entry(shard, cursor, news)));
  state_.shards.push_back(shard);
  state_.sources.assign(sources.begin(), sources.end());
  state_.cursor = cursor;
  return {};
}

Result<void> BuildJournal::remove(const fs::path& directory) {
  // Backwards: a removal that is cut short leaves entries without a gap, and the next one finds them all.
  std::size_t entries = 0;
  std::error_code failed;
  while (fs::exists(directory / entry_name(entries), failed)) ++entries;
  while (entries-- > 0) {
    fs::remove(directory / entry_name(entries), failed);
    if (failed) return base::file_error("remove", directory / entry_name(entries), failed.value());
  }
  RETURN_IF_ERROR(base::remove_tree(directory / kBuildFile));
  return base::sync_directory(directory);
}

bool BuildJournal::exists(const fs::path& directory) {
  std::error_code failed;
  return fs::exists(directory / kBuildFile, failed);
}

Result<void> BuildJournal::load() {
  while (true) {
    const fs::path path = directory_ / entry_name(state_.shards.size());
    auto text = base::read_text_file(path, kEntryBytesMax);
    if (!text && text.error().code == ErrorCode::not_found) return {};
    if (!text) return text.error();
    auto added = add_journal_entry(*text, state_);
    if (!added) return added.error().within(path.string());
  }
}

std::string journal_entry(const ShardInfo& shard, const BuildCursor& cursor, std::span<const SourceEnd> sources) {
  Json list = Json::array();
  for (const SourceEnd& source : sources) list.push_back({{"bytes", source.bytes}, {"sha256", source.sha256.hex()}});
  const Json root = {
      {"tokens", shard.tokens},
      {"sha256", shard.sha256.hex()},
      {"documents", shard.documents},
      {"documents_sha256", shard.documents_sha256.hex()},
      {"sources", list},
      {"cursor",
       {{"input", cursor.input},
        {"byte", cursor.at.byte},
        {"record", cursor.at.record},
        {"position", cursor.position},
        {"documents", cursor.documents},
        {"in_document", cursor.in_document ? 1 : 0},
        {"empty", cursor.empty},
        {"broken", cursor.broken},
        {"text_bytes", cursor.text_bytes}}},
  };
  return root.dump(2) + "\n";
}

Result<void> add_journal_entry(const std::string& text, BuildState& state) {
  const Json root = Json::parse(text, nullptr, false);
  if (root.is_discarded() || !root.is_object()) return Error{ErrorCode::corrupt, "is not JSON"};
  std::string wrong;
  JsonFields fields(root, wrong);
  ShardInfo shard;
  shard.file = shard_file_name(state.shards.size());
  shard.tokens = fields.integer("tokens", 1, kTokensMax);
  shard.sha256 = fields.sha256("sha256");
  shard.documents = fields.integer("documents", 0, shard.tokens);
  shard.documents_sha256 = fields.sha256("documents_sha256");
  std::vector<SourceEnd> sources = state.sources;
  const Json* list = fields.member("sources");
  if (list == nullptr || !list->is_array()) return Error{ErrorCode::corrupt, "has no list of sources"};
  for (const Json& entry : *list) {
    JsonFields source(entry, wrong);
    sources.push_back({static_cast<std::uint64_t>(source.integer("bytes", 0, INT64_MAX)), source.sha256("sha256")});
  }
  const Json* place = fields.member("cursor");
  if (place == nullptr) return Error{ErrorCode::corrupt, "has no cursor"};
  JsonFields at(*place, wrong);
  BuildCursor cursor;
  cursor.input = static_cast<std::uint64_t>(at.integer("input", 0, INT64_MAX));
  cursor.at.byte = static_cast<std::uint64_t>(at.integer("byte", 0, INT64_MAX));
  cursor.at.record = static_cast<std::uint64_t>(at.integer("record", 0, INT64_MAX));
  cursor.position = at.integer("position", 0, kTokensMax);
  cursor.documents = at.integer("documents", 0, kTokensMax);
  cursor.in_document = at.integer("in_document", 0, 1) == 1;
  cursor.empty = at.integer("empty", 0, INT64_MAX);
  cursor.broken = at.integer("broken", 0, INT64_MAX);
  cursor.text_bytes = at.integer("text_bytes", 0, INT64_MAX);
  std::int64_t written = shard.tokens;
  for (const ShardInfo& each : state.shards) written += each.tokens;
  if (wrong.empty() && (written > kTokensMax || cursor.position > written)) wrong = "its tokens do not add up";
  if (wrong.empty() && sources.size() != cursor.input) wrong = "its sources are not those before the cursor";
  if (!wrong.empty()) return Error{ErrorCode::corrupt, wrong};
  state.shards.push_back(std::move(shard));
  state.sources = std::move(sources);
  state.cursor = cursor;
  return {};
}

Result<void> write_whole_file(const fs::path& path, std::string_view text) {
  const fs::path partial = path.parent_path() / ("." + path.filename().string() + ".partial");
  RETURN_IF_ERROR(base::remove_tree(partial));
  auto file = base::FileWriter::create(partial);
  if (!file) return file.error();
  RETURN_IF_ERROR(file->write(base::as_bytes(text)));
  RETURN_IF_ERROR(file->finish());
  std::error_code failed;
  fs::rename(partial, path, failed);
  if (failed) return base::file_error("rename to", path, failed.value());
  return base::sync_directory(path.parent_path());
}

}  // namespace stagecoach::data
