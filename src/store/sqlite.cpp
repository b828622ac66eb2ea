#include "store/sqlite.h"

#include <sqlite3.h>

#include <cstring>

namespace stagecoach::store {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr int kBusyTimeoutMs = 5'000;

ErrorCode code_of(int sqlite_code) {
  switch (sqlite_code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return ErrorCode::corrupt;
    case SQLITE_FULL:
      return ErrorCode::out_of_space;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return ErrorCode::unavailable;
    default:
      return ErrorCode::io_error;
  }
}

}  // namespace

void Sqlite::Close::operator()(sqlite3* handle) const { ::sqlite3_close_v2(handle); }

void Query::Finalize::operator()(sqlite3_stmt* statement) const { ::sqlite3_finalize(statement); }

Result<Sqlite> Sqlite::open(const std::filesystem::path& path) {
  Sqlite database;
  database.path_ = path.string();
  sqlite3* handle = nullptr;
  const int opened = ::sqlite3_open_v2(path.c_str(), &handle,
                                       SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  database.handle_.reset(handle);
  if (opened != SQLITE_OK) return database.error();
  ::sqlite3_busy_timeout(handle, kBusyTimeoutMs);
  RETURN_IF_ERROR(database.run("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"));
  return database;
}

Result<void> Sqlite::run(const char* sql) {
  if (::sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) return error();
  return {};
}

Error Sqlite::error() const {
  if (!handle_) return Error{ErrorCode::io_error, "cannot open the books " + path_ + ": no memory"};
  const ErrorCode code = code_of(::sqlite3_errcode(handle_.get()));
  std::string sentence = "the books " + path_ + ": " + ::sqlite3_errmsg(handle_.get());
  if (code == ErrorCode::corrupt) sentence += ". Restore the file, or remove it and resume from the newest checkpoint";
  if (code == ErrorCode::out_of_space) sentence += ". Free some space; nothing was written";
  if (code == ErrorCode::unavailable) sentence += ". Another process holds them: is a second coordinator running?";
  return Error{code, sentence};
}

Query::Query(Sqlite& database, const char* sql) : database_(database) {
  sqlite3_stmt* statement = nullptr;
  note(::sqlite3_prepare_v2(database.handle(), sql, -1, &statement, nullptr));
  statement_.reset(statement);
}

Query& Query::bind(int parameter, std::uint64_t value) {
  if (failed_.ok()) note(::sqlite3_bind_int64(statement_.get(), parameter, static_cast<sqlite3_int64>(value)));
  return *this;
}

Query& Query::bind(int parameter, const std::string& text) {
  if (failed_.ok())
    note(::sqlite3_bind_text64(statement_.get(), parameter, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
  return *this;
}

Query& Query::bind(int parameter, std::span<const std::byte> blob) {
  // A null pointer would bind NULL; an empty blob is a value.
  const void* data = blob.empty() ? static_cast<const void*>("") : blob.data();
  if (failed_.ok()) note(::sqlite3_bind_blob64(statement_.get(), parameter, data, blob.size(), SQLITE_TRANSIENT));
  return *this;
}

bool Query::next() {
  if (!failed_.ok()) return false;
  const int code = ::sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) note(code);
  return false;
}

std::uint64_t Query::number(int column) const {
  return static_cast<std::uint64_t>(::sqlite3_column_int64(statement_.get(), column));
}

std::string Query::text(int column) const { return std::string(base::as_text(blob(column))); }

base::Bytes Query::blob(int column) const {
  const auto* data = static_cast<const std::byte*>(::sqlite3_column_blob(statement_.get(), column));
  const int size = ::sqlite3_column_bytes(statement_.get(), column);
  return data == nullptr ? base::Bytes{} : base::Bytes(data, data + size);
}

bool Query::is_null(int column) const { return ::sqlite3_column_type(statement_.get(), column) == SQLITE_NULL; }

Result<void> Query::finish() {
  while (next()) {
  }
  return failed_;
}

void Query::note(int code) {
  if (code != SQLITE_OK && failed_.ok()) failed_ = database_.error();
}

Result<Transaction> Transaction::begin(Sqlite& database) {
  RETURN_IF_ERROR(database.run("BEGIN IMMEDIATE"));
  return Transaction(database);
}

Transaction::~Transaction() {
  // A rollback that fails leaves the connection unusable, and the next statement says so.
  if (database_ != nullptr) static_cast<void>(database_->run("ROLLBACK"));
}

Result<void> Transaction::commit() {
  RETURN_IF_ERROR(database_->run("COMMIT"));
  database_ = nullptr;
  return {};
}

}  // namespace stagecoach::store
