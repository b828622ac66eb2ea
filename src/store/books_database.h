// What the books' readers and writers share.
//
// In/out:  SQL of the database behind Books.
// Thread:  as Books.
// Why:     the rules of writing stand alone in books_write.cpp; opening and loading in books.cpp.
#pragma once

#include <string>

#include "store/books.h"
#include "store/sqlite.h"

namespace stagecoach::store {

class Books::Database : public Sqlite {
 public:
  explicit Database(Sqlite database) : Sqlite(std::move(database)) {}
};

inline constexpr char kNewestStep[] = "SELECT MAX(step) FROM \"commit\"";
inline constexpr char kHighestAttempt[] = "SELECT MAX(attempt) FROM view";
inline constexpr char kNewestTerm[] = "SELECT MAX(term) FROM term";

/// The single number of a query without parameters; 0 where there is no row or NULL.
base::Result<std::uint64_t> number_of(Sqlite& database, const char* sql);

}  // namespace stagecoach::store
