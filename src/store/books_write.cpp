// Writing the books: each function is one rule of the protocol and one transaction.
#include "base/bytes.h"
#include "store/books_database.h"

namespace stagecoach::store {
namespace {

using base::Attempt;
using base::Bytes;
using base::ByteWriter;
using base::Error;
using base::ErrorCode;
using base::Result;
using base::Step;
using base::Term;

Error refused(const std::string& sentence) { return Error{ErrorCode::refused, "not written: " + sentence}; }

Result<Transaction> begin_under(Sqlite& database, Term term) {
  auto transaction = Transaction::begin(database);
  if (!transaction.ok()) return transaction.error();
  const auto newest = number_of(database, kNewestTerm);
  if (!newest.ok()) return newest.error();
  if (*newest == term.value()) return transaction;
  return refused("term " + std::to_string(term.value()) + " is over, term " + std::to_string(*newest) +
                 " has begun: another coordinator runs this run, stop this one");
}

Bytes pack(const std::vector<ViewMember>& members) {
  ByteWriter out;
  for (const ViewMember& member : members) {
    out.raw(std::as_bytes(std::span(member.peer.bytes)));
    out.u64(member.incarnation.value());
  }
  return out.take();
}

Bytes pack(const std::vector<StageResult>& stages) {
  ByteWriter out;
  for (const StageResult& stage : stages) {
    out.u64(stage.view.value());
    out.u64(stage.hash);
  }
  return out.take();
}

Bytes pack(const std::vector<double>& values) {
  ByteWriter out;
  for (const double value : values) out.f64(value);
  return out.take();
}

}  // namespace

Result<Term> Books::begin_term() {
  auto transaction = Transaction::begin(*database_);
  if (!transaction.ok()) return transaction.error();
  const auto newest = number_of(*database_, kNewestTerm);
  if (!newest.ok()) return newest.error();
  const Term term(*newest + 1);
  RETURN_IF_ERROR(Query(*database_, "INSERT INTO term VALUES (?1)").bind(1, term.value()).finish());
  RETURN_IF_ERROR(transaction->commit());
  return term;
}

Result<void> Books::write_view(Term term, const ViewRow& row) {
  CHECK(!row.views.empty(), "an attempt is written with the views it begins with");
  auto transaction = begin_under(*database_, term);
  if (!transaction.ok()) return transaction.error();
  Query highest(*database_, "SELECT attempt, term FROM view ORDER BY attempt DESC LIMIT 1");
  if (highest.next()) {
    const Attempt attempt(highest.number(0));
    if (row.attempt < attempt || (row.attempt == attempt && highest.number(1) != term.value())) {
      return refused("attempt " + std::to_string(row.attempt.value()) + " was used before, " +
                     std::to_string(attempt.value()) + " is the highest");
    }
  }
  RETURN_IF_ERROR(highest.result());
  for (const StageView& view : row.views) {
    Query newest(*database_, "SELECT MAX(number) FROM view WHERE stage = ?1");
    newest.bind(1, view.stage.value());
    if (newest.next() && !newest.is_null(0) && view.number.value() <= newest.number(0)) {
      return refused("view " + std::to_string(view.number.value()) + " of stage " + std::to_string(view.stage.value()) +
                     " was used before");
    }
    RETURN_IF_ERROR(newest.result());
    RETURN_IF_ERROR(
        Query(*database_, "INSERT INTO view (stage, number, attempt, term, members) VALUES (?1, ?2, ?3, ?4, ?5)")
            .bind(1, view.stage.value())
            .bind(2, view.number.value())
            .bind(3, row.attempt.value())
            .bind(4, term.value())
            .bind(5, pack(view.members))
            .finish());
  }
  return transaction->commit();
}

Result<void> Books::write_commit(Term term, const CommitRow& row) {
  auto transaction = begin_under(*database_, term);
  if (!transaction.ok()) return transaction.error();
  const auto newest = number_of(*database_, kNewestStep);
  const auto attempt = number_of(*database_, kHighestAttempt);
  if (!newest.ok()) return newest.error();
  if (!attempt.ok()) return attempt.error();
  if (row.step.value() != *newest + 1) {
    return refused("step " + std::to_string(row.step.value()) + " does not follow " + std::to_string(*newest) +
                   ", the newest committed one");
  }
  if (row.attempt.value() != *attempt) {
    return refused("step " + std::to_string(row.step.value()) + " was prepared in attempt " +
                   std::to_string(row.attempt.value()) + ", and attempt " + std::to_string(*attempt) + " is open");
  }
  RETURN_IF_ERROR(Query(*database_,
                        "INSERT INTO \"commit\" (step, term, attempt, stages, global_norm, train_losses, eval_losses) "
                        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")
                      .bind(1, row.step.value())
                      .bind(2, term.value())
                      .bind(3, row.attempt.value())
                      .bind(4, pack(row.stages))
                      .bind(5, pack(std::vector<double>{row.global_norm}))
                      .bind(6, pack(row.train_losses))
                      .bind(7, pack(row.eval_losses))
                      .finish());
  return transaction->commit();
}

Result<void> Books::write_incarnation(Term term, const IncarnationRow& row) {
  auto transaction = begin_under(*database_, term);
  if (!transaction.ok()) return transaction.error();
  const auto peer = std::as_bytes(std::span(row.peer.bytes));
  Query known(*database_, "SELECT state FROM incarnation WHERE peer = ?1 AND incarnation = ?2");
  known.bind(1, peer).bind(2, row.incarnation.value());
  if (known.next() && known.text(0) == "evicted" && row.standing != Standing::evicted) {
    return refused("incarnation " + std::to_string(row.incarnation.value()) + " of " + row.peer.short_hex() +
                   " was evicted and never comes back; its peer may, started anew");
  }
  RETURN_IF_ERROR(known.result());
  RETURN_IF_ERROR(Query(*database_,
                        "INSERT OR REPLACE INTO incarnation (peer, incarnation, stage, state, reason, term) "
                        "VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
                      .bind(1, peer)
                      .bind(2, row.incarnation.value())
                      .bind(3, row.stage.value())
                      .bind(4, std::string(row.standing == Standing::evicted ? "evicted" : "admitted"))
                      .bind(5, row.reason)
                      .bind(6, term.value())
                      .finish());
  return transaction->commit();
}

Result<void> Books::write_checkpoint(Term term, const CheckpointRow& row) {
  auto transaction = begin_under(*database_, term);
  if (!transaction.ok()) return transaction.error();
  const auto newest = number_of(*database_, kNewestStep);
  if (!newest.ok()) return newest.error();
  if (row.step.value() > *newest)
    return refused("a checkpoint of step " + std::to_string(row.step.value()) + ", which is not committed");
  RETURN_IF_ERROR(Query(*database_, "INSERT OR REPLACE INTO checkpoint (step, path, term) VALUES (?1, ?2, ?3)")
                      .bind(1, row.step.value())
                      .bind(2, row.path)
                      .bind(3, term.value())
                      .finish());
  return transaction->commit();
}

Result<void> Books::truncate_after(Term term, Step step) {
  auto transaction = begin_under(*database_, term);
  if (!transaction.ok()) return transaction.error();
  const auto newest = number_of(*database_, kNewestStep);
  if (!newest.ok()) return newest.error();
  if (step.value() > *newest) {
    return refused("cannot roll back to step " + std::to_string(step.value()) + ": " + std::to_string(*newest) +
                   " is the newest committed one");
  }
  RETURN_IF_ERROR(Query(*database_,
                        "INSERT INTO rolled_back (rolled_back_term, step, term, attempt, stages, global_norm, "
                        "train_losses, eval_losses) "
                        "SELECT ?1, step, term, attempt, stages, global_norm, train_losses, eval_losses FROM "
                        "\"commit\" WHERE step > ?2 ORDER BY step")
                      .bind(1, term.value())
                      .bind(2, step.value())
                      .finish());
  for (const char* sql : {"DELETE FROM \"commit\" WHERE step > ?1", "DELETE FROM checkpoint WHERE step > ?1"}) {
    RETURN_IF_ERROR(Query(*database_, sql).bind(1, step.value()).finish());
  }
  return transaction->commit();
}

}  // namespace stagecoach::store
