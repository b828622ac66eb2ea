#include "store/books.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "base/files.h"
#include "store/books_database.h"

namespace stagecoach::store {
namespace {

using base::Attempt;
using base::ByteReader;
using base::Bytes;
using base::ByteWriter;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::Step;
using base::Term;

constexpr std::uint64_t kFormatVersion = 1;
constexpr std::uint64_t kApplicationId = 0x53434f42;  // "SCOB"
constexpr std::size_t kMemberBytes = 40;
constexpr std::size_t kStageResultBytes = 16;
constexpr std::size_t kDoubleBytes = 8;

constexpr char kSchema[] = R"(
CREATE TABLE run (run_id BLOB NOT NULL, config TEXT NOT NULL, config_id BLOB NOT NULL, layout TEXT NOT NULL, created INTEGER NOT NULL);
CREATE TABLE term (term INTEGER PRIMARY KEY);
CREATE TABLE view (stage INTEGER NOT NULL, number INTEGER NOT NULL, attempt INTEGER NOT NULL, term INTEGER NOT NULL,
                   members BLOB NOT NULL, PRIMARY KEY (stage, number)) WITHOUT ROWID;
CREATE INDEX view_attempt ON view (attempt);
CREATE TABLE "commit" (step INTEGER PRIMARY KEY, term INTEGER NOT NULL, attempt INTEGER NOT NULL, stages BLOB NOT NULL,
                       global_norm BLOB NOT NULL, train_losses BLOB NOT NULL, eval_losses BLOB NOT NULL);
CREATE TABLE rolled_back (id INTEGER PRIMARY KEY, rolled_back_term INTEGER NOT NULL, step INTEGER NOT NULL, term INTEGER NOT NULL,
                          attempt INTEGER NOT NULL, stages BLOB NOT NULL, global_norm BLOB NOT NULL, train_losses BLOB NOT NULL,
                          eval_losses BLOB NOT NULL);
CREATE TABLE incarnation (peer BLOB NOT NULL, incarnation INTEGER NOT NULL, stage INTEGER NOT NULL, state TEXT NOT NULL,
                          reason TEXT NOT NULL, term INTEGER NOT NULL, PRIMARY KEY (peer, incarnation)) WITHOUT ROWID;
CREATE TABLE checkpoint (step INTEGER PRIMARY KEY, path TEXT NOT NULL, term INTEGER NOT NULL);
PRAGMA application_id = 1396920130;
PRAGMA user_version = 1;
)";
static_assert(kApplicationId == 1396920130 && kFormatVersion == 1, "the schema's pragmas take no parameters");

Error damaged(const std::string& what) {
  return Error{ErrorCode::corrupt, "the books are damaged (" + what +
                                       "): restore the file, or remove it and resume from the newest checkpoint"};
}

template <class Id>
bool read_key(const Bytes& bytes, Id& id) {
  if (bytes.size() != id.bytes.size()) return false;
  std::memcpy(id.bytes.data(), bytes.data(), bytes.size());
  return true;
}

/// Splits a blob into records of `record_bytes`; false where something is left over.
template <class Record, class Read>
bool unpack(const Bytes& bytes, std::size_t record_bytes, std::vector<Record>& records, Read read) {
  if (bytes.size() % record_bytes != 0) return false;
  ByteReader reader(bytes);
  while (reader.remaining() > 0) records.push_back(read(reader));
  return true;
}

bool unpack(const Bytes& bytes, std::vector<double>& values) {
  return unpack(bytes, kDoubleBytes, values, [](ByteReader& reader) { return reader.f64(); });
}

ViewMember read_member(ByteReader& reader) {
  ViewMember member;
  const auto key = reader.raw(member.peer.bytes.size());
  std::memcpy(member.peer.bytes.data(), key.data(), key.size());
  member.incarnation = base::Incarnation(reader.u64());
  return member;
}

/// The row under a query of step, attempt, stages, global_norm, train_losses, eval_losses.
Result<CommitRow> read_commit(const Query& query) {
  CommitRow row;
  row.step = Step(query.number(0));
  row.attempt = Attempt(query.number(1));
  std::vector<double> norm;
  const bool good = unpack(query.blob(2), kStageResultBytes, row.stages,
                           [](ByteReader& reader) {
                             const base::ViewNumber view(reader.u64());
                             return StageResult{view, reader.u64()};
                           }) &&
                    unpack(query.blob(3), norm) && norm.size() == 1 && unpack(query.blob(4), row.train_losses) &&
                    unpack(query.blob(5), row.eval_losses);
  if (!good) return damaged("commit of step " + std::to_string(row.step.value()));
  row.global_norm = norm[0];
  return row;
}

Result<std::vector<StageView>> read_views(Sqlite& database) {
  std::vector<StageView> views;
  Query query(database,
              "SELECT stage, number, members FROM view AS v WHERE number = (SELECT MAX(number) FROM view WHERE stage = "
              "v.stage) "
              "ORDER BY stage");
  while (query.next()) {
    StageView view{base::StageIndex(query.number(0)), base::ViewNumber(query.number(1)), {}};
    if (!unpack(query.blob(2), kMemberBytes, view.members, read_member)) {
      return damaged("view of stage " + std::to_string(view.stage.value()));
    }
    views.push_back(std::move(view));
  }
  RETURN_IF_ERROR(query.result());
  return views;
}

Result<std::vector<IncarnationRow>> read_incarnations(Sqlite& database) {
  std::vector<IncarnationRow> rows;
  Query query(database, "SELECT peer, incarnation, stage, state, reason FROM incarnation");
  while (query.next()) {
    IncarnationRow row;
    const std::string state = query.text(3);
    if (!read_key(query.blob(0), row.peer) || (state != "admitted" && state != "evicted"))
      return damaged("incarnations");
    row.incarnation = base::Incarnation(query.number(1));
    row.stage = base::StageIndex(query.number(2));
    row.standing = state == "evicted" ? Standing::evicted : Standing::admitted;
    row.reason = query.text(4);
    rows.push_back(std::move(row));
  }
  RETURN_IF_ERROR(query.result());
  // Here and not in SQL, where an incarnation above 2^63 is negative.
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return std::tie(a.peer, a.incarnation) < std::tie(b.peer, b.incarnation);
  });
  return rows;
}

Result<std::vector<CheckpointRow>> read_checkpoints(Sqlite& database) {
  std::vector<CheckpointRow> rows;
  Query query(database, "SELECT step, path FROM checkpoint ORDER BY step");
  while (query.next()) rows.push_back({Step(query.number(0)), query.text(1)});
  RETURN_IF_ERROR(query.result());
  return rows;
}

}  // namespace

Result<Books> Books::create(const std::filesystem::path& path, const RunRecord& run) {
  auto opened = Sqlite::open(path);
  if (!opened.ok()) return opened.error();
  Books books(std::make_unique<Database>(std::move(opened).value()));
  Database& database = *books.database_;
  auto transaction = Transaction::begin(database);
  if (!transaction.ok()) return transaction.error();
  // Empty: made by a process that died before it could write the first line.
  const auto tables = number_of(database, "SELECT COUNT(*) FROM sqlite_master");
  if (!tables.ok()) return tables.error();
  if (*tables != 0) {
    return Error{ErrorCode::already_exists,
                 "there are books of a run in " + path.string() + ": resume that run, or choose another folder"};
  }
  RETURN_IF_ERROR(database.run(kSchema));
  RETURN_IF_ERROR(Query(database, "INSERT INTO run VALUES (?1, ?2, ?3, ?4, ?5)")
                      .bind(1,
                            [&] {
                              ByteWriter id;
                              id.u64(run.run.value());
                              return id.take();
                            }())
                      .bind(2, run.config_text)
                      .bind(3, std::as_bytes(std::span(run.config.bytes)))
                      .bind(4, run.layout_text)
                      .bind(5, static_cast<std::uint64_t>(run.created_unix_s))
                      .finish());
  RETURN_IF_ERROR(transaction->commit());
  RETURN_IF_ERROR(base::sync_directory(std::filesystem::absolute(path).parent_path()));
  return books;
}

Result<Books> Books::open(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    return Error{ErrorCode::not_found, "there are no books at " + path.string() + ": is it the folder of a run?"};
  }
  auto opened = Sqlite::open(path);
  if (!opened.ok()) return opened.error();
  Books books(std::make_unique<Database>(std::move(opened).value()));
  Query check(*books.database_, "PRAGMA quick_check(1)");
  if (check.next() && check.text(0) != "ok") return damaged(check.text(0));
  RETURN_IF_ERROR(check.result());
  const auto application = number_of(*books.database_, "PRAGMA application_id");
  const auto version = number_of(*books.database_, "PRAGMA user_version");
  if (!application.ok()) return application.error();
  if (!version.ok()) return version.error();
  if (*application == 0 && *version == 0) {
    return Error{ErrorCode::not_found,
                 path.string() + " holds no run: it was made by a start that did not get further, remove it"};
  }
  if (*application != kApplicationId)
    return Error{ErrorCode::corrupt, path.string() + " is a database of another program"};
  if (*version != kFormatVersion) {
    return Error{ErrorCode::mismatch, path.string() + " is of format version " + std::to_string(*version) +
                                          ", and this program reads version " + std::to_string(kFormatVersion)};
  }
  return books;
}

Result<Books> Books::open_for(const std::filesystem::path& path, const RunRecord& expected) {
  auto books = open(path);
  if (!books.ok()) return books.error();
  const auto found = books->read_run();
  if (!found.ok()) return found.error();
  const char* differs = found->run != expected.run                   ? "run"
                        : found->config != expected.config           ? "config"
                        : found->layout_text != expected.layout_text ? "layout"
                                                                     : nullptr;
  if (differs == nullptr) return books;
  return Error{ErrorCode::mismatch, "the books " + path.string() + " are those of another " + differs +
                                        ": use the folder and the config of the run that is to go on"};
}

Result<std::uint64_t> number_of(Sqlite& database, const char* sql) {
  Query query(database, sql);
  const std::uint64_t number = query.next() && !query.is_null(0) ? query.number(0) : 0;
  RETURN_IF_ERROR(query.result());
  return number;
}

Books::Books(std::unique_ptr<Database> database) : database_(std::move(database)) {}
Books::Books(Books&&) noexcept = default;
Books& Books::operator=(Books&&) noexcept = default;
Books::~Books() = default;

Result<RunRecord> Books::read_run() {
  Query query(*database_, "SELECT run_id, config, config_id, layout, created FROM run");
  if (!query.next()) return query.result().ok() ? damaged("no run") : query.result().error();
  RunRecord run;
  const Bytes id = query.blob(0);
  if (id.size() != sizeof(std::uint64_t) || !read_key(query.blob(2), run.config)) return damaged("run");
  run.run = base::RunId(ByteReader(id).u64());
  run.config_text = query.text(1);
  run.layout_text = query.text(3);
  run.created_unix_s = static_cast<std::int64_t>(query.number(4));
  return run;
}

Result<BookState> Books::load() {
  BookState state;
  auto run = read_run();
  if (!run.ok()) return run.error();
  state.run = std::move(*run);
  const auto term = number_of(*database_, kNewestTerm);
  const auto attempt = number_of(*database_, kHighestAttempt);
  const auto step = number_of(*database_, kNewestStep);
  for (const auto* number : {&term, &attempt, &step}) {
    if (!number->ok()) return number->error();
  }
  state.term = Term(*term);
  state.attempt = Attempt(*attempt);
  auto newest = commits(Step(*step), Step(*step));
  if (!newest.ok()) return newest.error();
  if (!newest->empty()) state.newest_commit = std::move(newest->front());
  auto views = read_views(*database_);
  if (!views.ok()) return views.error();
  state.views = std::move(*views);
  auto incarnations = read_incarnations(*database_);
  if (!incarnations.ok()) return incarnations.error();
  state.incarnations = std::move(*incarnations);
  auto checkpoints = read_checkpoints(*database_);
  if (!checkpoints.ok()) return checkpoints.error();
  state.checkpoints = std::move(*checkpoints);
  return state;
}

Result<std::vector<CommitRow>> Books::commits(Step first, Step last) {
  std::vector<CommitRow> rows;
  Query query(*database_,
              "SELECT step, attempt, stages, global_norm, train_losses, eval_losses FROM \"commit\" WHERE step BETWEEN "
              "?1 AND ?2 ORDER BY step");
  query.bind(1, first.value()).bind(2, last.value());
  while (query.next()) {
    auto row = read_commit(query);
    if (!row.ok()) return row.error();
    rows.push_back(std::move(row).value());
  }
  RETURN_IF_ERROR(query.result());
  return rows;
}

}  // namespace stagecoach::store
