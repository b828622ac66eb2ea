// SQLite as far as the books need it: values instead of return codes, statements that clean up after themselves.
//
// In/out:  SQL with numbered parameters; Result.
// Thread:  one at a time for each Sqlite.
// Why:     the rules of the books should read as rules, not as error handling.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace stagecoach::store {

class Sqlite {
 public:
  /// Opens the file, creating it where it is missing: WAL, synchronous = FULL, five seconds of patience with another
  /// holder.
  ///
  /// errors: corrupt  not a database · unavailable · out_of_space · io_error
  static base::Result<Sqlite> open(const std::filesystem::path& path);

  /// Runs statements that return nothing.
  base::Result<void> run(const char* sql);
  /// SQLite's last complaint, as an error that names the file.
  base::Error error() const;
  sqlite3* handle() const { return handle_.get(); }

 private:
  struct Close {
    void operator()(sqlite3* handle) const;
  };
  std::string path_;
  std::unique_ptr<sqlite3, Close> handle_;
};

/// One query. Parameters count from 1, columns from 0. The first thing that goes wrong ends it and stays in result().
class Query {
 public:
  Query(Sqlite& database, const char* sql);

  Query& bind(int parameter, std::uint64_t value);  // the same 64 bits; SQLite shows those above 2^63 as negative
  Query& bind(int parameter, const std::string& text);
  Query& bind(int parameter, std::span<const std::byte> blob);
  /// Moves to the next row; false at the end and after an error.
  bool next();
  std::uint64_t number(int column) const;
  std::string text(int column) const;
  base::Bytes blob(int column) const;
  bool is_null(int column) const;

  base::Result<void> result() const { return failed_; }
  /// For statements without rows: runs to the end.
  base::Result<void> finish();

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const;
  };
  void note(int code);
  Sqlite& database_;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  base::Result<void> failed_;
};

/// All or nothing: what is not committed is rolled back.
class Transaction {
 public:
  /// Takes the right to write at once, so that what is read inside stays true.
  static base::Result<Transaction> begin(Sqlite& database);
  Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
  Transaction& operator=(Transaction&&) = delete;
  ~Transaction();
  /// Durable when it returns.
  base::Result<void> commit();

 private:
  explicit Transaction(Sqlite& database) : database_(&database) {}
  Sqlite* database_;
};

}  // namespace stagecoach::store
