#include "store/books.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <limits>

#include "base/prng.h"
#include "store/sqlite.h"
#include "store/test_directory.h"

namespace stagecoach::store {
namespace {

using base::Attempt;
using base::ErrorCode;
using base::Incarnation;
using base::StageIndex;
using base::Step;
using base::Term;
using base::ViewNumber;
using ::testing::HasSubstr;

base::PeerId peer(std::uint8_t first) {
  base::PeerId id;
  id.bytes[0] = first;
  return id;
}

RunRecord run_record() {
  RunRecord run{.run = base::RunId(0xfedcba9876543210),
                .config_text = "a=1\n",
                .layout_text = "0-2\n",
                .created_unix_s = 1'700'000'000};
  run.config.bytes[31] = 9;
  return run;
}

ViewRow view_row(std::uint64_t attempt, std::uint64_t number) {
  return {Attempt(attempt),
          {{StageIndex(0), ViewNumber(number), {{peer(1), Incarnation(~0ull)}, {peer(2), Incarnation(7)}}},
           {StageIndex(1), ViewNumber(number), {{peer(3), Incarnation(8)}}}}};
}

CommitRow commit_row(std::uint64_t step, std::uint64_t attempt) {
  return {.step = Step(step),
          .attempt = Attempt(attempt),
          .stages = {{ViewNumber(1), ~0ull - step}, {ViewNumber(1), step}},
          .global_norm = 1.0 / static_cast<double>(step),
          .train_losses = {0.1 * static_cast<double>(step), 5e-324},
          .eval_losses = {}};
}

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

class BooksTest : public DirectoryTest {
 protected:
  std::filesystem::path path() const { return directory_ / "books.sqlite"; }
  /// Books in their first term, with attempt 1 open.
  Books begun() {
    auto books = Books::create(path(), run_record());
    CHECK(books.ok(), "the test's books are created");
    CHECK(books->begin_term().ok() && books->write_view(Term(1), view_row(1, 1)).ok(),
          "the test's first attempt is written");
    return std::move(books).value();
  }
};

TEST_F(BooksTest, EverythingIsThereAfterAReopen) {
  // Claim: what was written is loaded by another process as it was: 64-bit values above 2^63, empty lists and texts
  // included.
  {
    Books books = begun();
    ASSERT_TRUE(
        books.write_incarnation(Term(1), {peer(2), Incarnation(7), StageIndex(0), Standing::admitted, ""}).ok());
    ASSERT_TRUE(
        books.write_incarnation(Term(1), {peer(1), Incarnation(~0ull), StageIndex(0), Standing::admitted, ""}).ok());
    ASSERT_TRUE(
        books.write_incarnation(Term(1), {peer(2), Incarnation(7), StageIndex(0), Standing::evicted, "silent"}).ok());
    for (std::uint64_t step = 1; step <= 3; ++step) ASSERT_TRUE(books.write_commit(Term(1), commit_row(step, 1)).ok());
    ASSERT_TRUE(books.write_checkpoint(Term(1), {Step(2), "/runs/x/step-00000002"}).ok());
    ASSERT_TRUE(books.write_view(Term(1), {Attempt(2), {{StageIndex(1), ViewNumber(2), {}}}}).ok());
  }
  auto books = Books::open_for(path(), run_record());
  ASSERT_TRUE(books.ok()) << books.error().message;
  const auto state = books->load();
  ASSERT_TRUE(state.ok()) << state.error().message;
  EXPECT_EQ(state->run, run_record());
  EXPECT_EQ(state->term, Term(1));
  EXPECT_EQ(state->attempt, Attempt(2));
  EXPECT_EQ(state->newest_step(), Step(3));
  EXPECT_EQ(state->newest_commit->stages, commit_row(3, 1).stages);
  EXPECT_EQ(state->views, (std::vector<StageView>{view_row(1, 1).views[0], {StageIndex(1), ViewNumber(2), {}}}));
  EXPECT_EQ(state->incarnations,
            (std::vector<IncarnationRow>{{peer(1), Incarnation(~0ull), StageIndex(0), Standing::admitted, ""},
                                         {peer(2), Incarnation(7), StageIndex(0), Standing::evicted, "silent"}}));
  EXPECT_EQ(state->checkpoints, (std::vector<CheckpointRow>{{Step(2), "/runs/x/step-00000002"}}));
  const auto rows = books->commits(Step(2), Step(9));
  ASSERT_EQ(rows->size(), 2u);
  EXPECT_EQ(rows->front().step, Step(2));
  EXPECT_TRUE(same_bits(rows->front().train_losses, commit_row(2, 1).train_losses));
}

TEST_F(BooksTest, TheBlobsAreThoseOfTheFormatPage) {
  // Claim: the worked example of docs/formats/books.md: members of 40 bytes, results of 16, doubles of 8, all
  // little-endian.
  Books books = begun();
  CommitRow row{
      .step = Step(1), .attempt = Attempt(1), .stages = {{ViewNumber(1), 0x1122334455667788}}, .global_norm = 1.5};
  row.train_losses = {2.0};
  ASSERT_TRUE(books.write_commit(Term(1), row).ok());
  auto database = Sqlite::open(path());
  Query query(*database,
              "SELECT hex(stages), hex(global_norm), hex(train_losses), hex(eval_losses), (SELECT hex(members) FROM "
              "view WHERE stage = 1), "
              "(SELECT hex(run_id) FROM run) FROM \"commit\"");
  ASSERT_TRUE(query.next());
  EXPECT_EQ(query.text(0), "01000000000000008877665544332211");
  EXPECT_EQ(query.text(1), "000000000000F83F");
  EXPECT_EQ(query.text(2), "0000000000000040");
  EXPECT_EQ(query.text(3), "");
  EXPECT_EQ(query.text(4), "03" + std::string(62, '0') + "0800000000000000");
  EXPECT_EQ(query.text(5), "1032547698BADCFE");
}

TEST_F(BooksTest, DoublesKeepEveryBit) {
  // Claim: −0, NaN with its payload, infinities and the smallest number come back as they went in.
  Books books = begun();
  CommitRow row = commit_row(1, 1);
  row.global_norm = -0.0;
  row.train_losses = {std::bit_cast<double>(0x7ff8000000000001ull), std::numeric_limits<double>::infinity(), 5e-324,
                      -0.0};
  row.eval_losses = {0.1};
  ASSERT_TRUE(books.write_commit(Term(1), row).ok());
  const auto read = books.load();
  EXPECT_TRUE(std::signbit(read->newest_commit->global_norm));
  EXPECT_TRUE(same_bits(read->newest_commit->train_losses, row.train_losses));
  EXPECT_TRUE(same_bits(read->newest_commit->eval_losses, row.eval_losses));
}

TEST_F(BooksTest, AnOldTermWritesNothing) {
  // Claim: once a second coordinator began a term, no write of the first goes through, and the reason says what to do.
  Books first = begun();
  auto second = Books::open(path());
  ASSERT_TRUE(second.ok());
  ASSERT_EQ(*second->begin_term(), Term(2));
  const base::Result<void> writes[] = {
      first.write_view(Term(1), view_row(2, 2)),
      first.write_commit(Term(1), commit_row(1, 1)),
      first.write_incarnation(Term(1), {peer(1), Incarnation(1), StageIndex(0), Standing::admitted, ""}),
      first.write_checkpoint(Term(1), {Step(0), "x"}),
      first.truncate_after(Term(1), Step(0)),
      first.write_commit(Term(3), commit_row(1, 1))};
  for (const auto& write : writes) {
    ASSERT_FALSE(write.ok());
    EXPECT_EQ(write.error().code, ErrorCode::refused);
    EXPECT_THAT(write.error().message, HasSubstr("term 2 has begun"));
  }
  const auto state = first.load();
  EXPECT_EQ(state->newest_step(), Step(0));
  EXPECT_TRUE(state->incarnations.empty());
  EXPECT_EQ(*first.begin_term(), Term(3));
}

TEST_F(BooksTest, StepsAreCommittedInOrderAndInTheOpenAttempt) {
  // Claim: a gap, a repetition and a void attempt are refused and change nothing.
  Books books = begun();
  EXPECT_EQ(books.write_commit(Term(1), commit_row(2, 1)).error().code, ErrorCode::refused);
  EXPECT_EQ(books.write_commit(Term(1), commit_row(0, 1)).error().code, ErrorCode::refused);
  ASSERT_TRUE(books.write_commit(Term(1), commit_row(1, 1)).ok());
  EXPECT_EQ(books.write_commit(Term(1), commit_row(1, 1)).error().code, ErrorCode::refused);
  ASSERT_TRUE(books.write_view(Term(1), view_row(2, 2)).ok());
  EXPECT_EQ(books.write_commit(Term(1), commit_row(2, 1)).error().code, ErrorCode::refused);
  EXPECT_EQ(books.write_commit(Term(1), commit_row(2, 3)).error().code, ErrorCode::refused);
  EXPECT_TRUE(books.write_commit(Term(1), commit_row(2, 2)).ok());
  EXPECT_EQ(books.load()->newest_step(), Step(2));
}

TEST_F(BooksTest, AttemptsAndViewNumbersAreNeverUsedTwice) {
  // Claim: a lower attempt, the present one in a later term, and a number a stage had before are refused, a row as a
  // whole.
  Books books = begun();
  ASSERT_TRUE(books.write_view(Term(1), view_row(5, 2)).ok());
  EXPECT_EQ(books.write_view(Term(1), view_row(4, 3)).error().code, ErrorCode::refused);
  EXPECT_TRUE(books.write_view(Term(1), {Attempt(5), {{StageIndex(1), ViewNumber(3), {}}}}).ok())
      << "a repair inside the attempt";
  EXPECT_EQ(books.write_view(Term(1), view_row(6, 3)).error().code, ErrorCode::refused) << "stage 1 had number 3";
  EXPECT_EQ(books.load()->views[0].number, ViewNumber(2)) << "stage 0 of the refused row was not written either";
  ASSERT_EQ(*books.begin_term(), Term(2));
  EXPECT_EQ(books.write_view(Term(2), view_row(5, 4)).error().code, ErrorCode::refused);
  EXPECT_TRUE(books.write_view(Term(2), view_row(6, 4)).ok());
}

TEST_F(BooksTest, TheEvictedStayOut) {
  // Claim: an evicted incarnation is not admitted again, its peer under a new one is.
  Books books = begun();
  const auto write = [&](std::uint64_t incarnation, Standing standing) {
    return books.write_incarnation(Term(1), {peer(4), Incarnation(incarnation), StageIndex(1), standing, "because"});
  };
  EXPECT_TRUE(write(1, Standing::admitted).ok());
  EXPECT_TRUE(write(1, Standing::evicted).ok());
  EXPECT_TRUE(write(1, Standing::evicted).ok());
  EXPECT_EQ(write(1, Standing::admitted).error().code, ErrorCode::refused);
  EXPECT_TRUE(write(2, Standing::admitted).ok());
  EXPECT_EQ(books.load()->incarnations.size(), 2u);
}

TEST_F(BooksTest, ARollBackKeepsTheOldStoryAside) {
  // Claim: after a roll-back to step 2 the next commit is step 3 again, in a higher attempt; the commits taken back are
  // kept with the term that did it; checkpoints of later steps are forgotten.
  Books books = begun();
  for (std::uint64_t step = 1; step <= 4; ++step) ASSERT_TRUE(books.write_commit(Term(1), commit_row(step, 1)).ok());
  for (const std::uint64_t step : {2, 4}) ASSERT_TRUE(books.write_checkpoint(Term(1), {Step(step), "path"}).ok());
  EXPECT_EQ(books.write_checkpoint(Term(1), {Step(5), "path"}).error().code, ErrorCode::refused);
  ASSERT_EQ(*books.begin_term(), Term(2));
  EXPECT_EQ(books.truncate_after(Term(2), Step(5)).error().code, ErrorCode::refused);
  ASSERT_TRUE(books.truncate_after(Term(2), Step(2)).ok());
  EXPECT_EQ(books.load()->newest_step(), Step(2));
  EXPECT_EQ(books.load()->attempt, Attempt(1));
  EXPECT_EQ(books.load()->checkpoints.size(), 1u);
  ASSERT_TRUE(books.write_view(Term(2), view_row(2, 2)).ok());
  ASSERT_TRUE(books.write_commit(Term(2), commit_row(3, 2)).ok());
  EXPECT_EQ(books.load()->newest_commit->attempt, Attempt(2));
  auto database = Sqlite::open(path());
  ASSERT_TRUE(database.ok());
  Query aside(*database, "SELECT step, rolled_back_term, attempt FROM rolled_back ORDER BY id");
  for (const std::uint64_t step : {3, 4}) {
    ASSERT_TRUE(aside.next());
    EXPECT_EQ(aside.number(0), step);
    EXPECT_EQ(aside.number(1), 2u);
    EXPECT_EQ(aside.number(2), 1u);
  }
  EXPECT_FALSE(aside.next());
}

TEST_F(BooksTest, OtherFilesAreNotOurBooks) {
  // Claim: a missing file, garbage, an empty database, another program's and another run's are told apart.
  EXPECT_EQ(Books::open(path()).error().code, ErrorCode::not_found);
  EXPECT_FALSE(std::filesystem::exists(path())) << "looking for books makes none";
  overwrite(path(), std::string(8192, 'x'));
  EXPECT_EQ(Books::open(path()).error().code, ErrorCode::corrupt);
  overwrite(path(), "");
  EXPECT_EQ(Books::open(path()).error().code, ErrorCode::not_found);
  EXPECT_TRUE(Books::create(path(), run_record()).ok()) << "an empty file is a start that did not get further";
  EXPECT_EQ(Books::create(path(), run_record()).error().code, ErrorCode::already_exists);
  RunRecord other = run_record();
  other.run = base::RunId(1);
  EXPECT_THAT(Books::open_for(path(), other).error().message, HasSubstr("another run"));
  other = run_record();
  other.config.bytes[0] = 1;
  EXPECT_EQ(Books::open_for(path(), other).error().code, ErrorCode::mismatch);
  {
    auto database = Sqlite::open(directory_ / "other.sqlite");
    ASSERT_TRUE(database->run("CREATE TABLE t (x); PRAGMA user_version = 3;").ok());
  }
  EXPECT_EQ(Books::open(directory_ / "other.sqlite").error().code, ErrorCode::corrupt);
}

TEST_F(BooksTest, DamageInsideTheFileIsFound) {
  // Claim: books with a page overwritten are refused when they are opened, not when the row is needed.
  {
    Books books = begun();
    for (std::uint64_t step = 1; step <= 200; ++step)
      ASSERT_TRUE(books.write_commit(Term(1), commit_row(step, 1)).ok());
  }
  std::string text = contents(path());
  ASSERT_GT(text.size(), 40'000u);
  for (std::size_t page = 12; page < 20 && (page + 1) * 4096 <= text.size(); ++page) {
    std::fill_n(text.begin() + static_cast<std::ptrdiff_t>(page * 4096), 4096, 'x');
  }
  overwrite(path(), text);
  const auto opened = Books::open(path());
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, ErrorCode::corrupt);
}

/// Starts a term and commits for ever, with each committed step into `said`. Runs in a process of its own.
[[noreturn]] void commit_for_ever(const std::filesystem::path& path, int said) {
  auto books = Books::open(path);
  if (!books.ok()) ::_exit(1);
  const auto term = books->begin_term();
  if (!term.ok()) ::_exit(2);
  const auto state = books->load();
  if (!state.ok()) ::_exit(3);
  const std::uint64_t number = state->views[0].number.value() + 1, attempt = state->attempt.value() + 1;
  if (!books->write_view(*term, view_row(attempt, number)).ok()) ::_exit(4);
  for (std::uint64_t step = state->newest_step().value() + 1;; ++step) {
    if (!books->write_commit(*term, commit_row(step, attempt)).ok()) ::_exit(5);
    if (::write(said, &step, sizeof step) != sizeof step) ::_exit(6);
  }
}

TEST_F(BooksTest, KillsLoseNothingThatWasSaid) {
  // Claim: after kill −9 at random moments every step that was announced is in the books, in order, with its values;
  // each restart had a term and an attempt of its own. STAGECOACH_LONG=1: 100 kills instead of 10.
  const char* long_run = std::getenv("STAGECOACH_LONG");
  const std::uint64_t kills = long_run != nullptr && std::string_view(long_run) == "1" ? 100 : 10;
  {
    Books books = begun();
  }
  base::Prng prng(77);
  std::uint64_t said = 0;
  for (std::uint64_t kill = 1; kill <= kills; ++kill) {
    int channel[2];
    ASSERT_EQ(::pipe(channel), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) commit_for_ever(path(), channel[1]);
    ::close(channel[1]);
    for (std::uint64_t left = 1 + prng.below(20); left > 0 && ::read(channel[0], &said, sizeof said) == sizeof said;
         --left) {
    }
    volatile std::uint64_t spin = prng.below(1'000'000);
    while (spin > 0) spin = spin - 1;
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer failed by itself with " << WEXITSTATUS(status);
    while (::read(channel[0], &said, sizeof said) == sizeof said) {
    }
    ::close(channel[0]);

    auto books = Books::open(path());
    ASSERT_TRUE(books.ok()) << books.error().message;
    const auto state = books->load();
    ASSERT_TRUE(state.ok());
    EXPECT_GE(state->newest_step().value(), said);
    EXPECT_LE(state->newest_step().value(), said + 1);
    EXPECT_EQ(state->term.value(), 1 + kill);
    EXPECT_EQ(state->attempt.value(), 1 + kill);
    const auto rows = books->commits(Step(1), state->newest_step());
    ASSERT_EQ(rows->size(), state->newest_step().value());
    for (std::uint64_t step = 1; step <= rows->size(); ++step) {
      const CommitRow& row = rows->at(step - 1);
      ASSERT_EQ(row.step, Step(step));
      ASSERT_EQ(row.stages, commit_row(step, 1).stages);
      ASSERT_TRUE(same_bits(row.train_losses, commit_row(step, 1).train_losses));
    }
  }
}

}  // namespace
}  // namespace stagecoach::store
