// The reduce among replicas: shards, bitmaps, sums, and everything that must be refused.
#include "replica/reduce.h"

#include <gtest/gtest.h>

#include <deque>
#include <functional>

#include "base/prng.h"

namespace stagecoach::replica {
namespace {

using base::Payload;
using base::PeerId;
using base::ShardIndex;

PeerId peer(std::uint8_t n) {
  PeerId id;
  id.bytes[0] = n;
  return id;
}

Payload words(const std::vector<std::uint64_t>& values) {
  base::ByteWriter out;
  for (std::uint64_t value : values) out.u64(value);
  return base::make_payload(out.take());
}
std::vector<std::uint64_t> values(const Payload& payload) {
  base::ByteReader in(*payload);
  std::vector<std::uint64_t> out(payload->size() / 8);
  for (auto& value : out) value = in.u64();
  return out;
}

template <class T>
bool any(const Actions& actions) {
  for (const auto& action : actions)
    if (std::holds_alternative<T>(action)) return true;
  return false;
}

Reduce::Options options(std::uint64_t members, std::uint64_t self, std::int64_t elements, std::uint64_t bits) {
  Reduce::Options o;
  for (std::uint64_t i = 0; i < members; ++i) o.members.push_back(peer(static_cast<std::uint8_t>(i)));
  o.self = o.members[self];
  o.elements = elements, o.bits = o.required = bits;
  return o;
}

/// A group whose messages are delivered in an order that a seed picks; member i accumulated the microbatches m with m mod R = i.
class Group {
 public:
  Group(std::uint64_t members, std::int64_t elements, std::uint64_t bits, std::uint64_t seed) : order_(seed) {
    for (std::uint64_t i = 0; i < members; ++i) {
      reduces_.emplace_back(options(members, i, elements, bits));
      Bitmap bitmap(bits);
      for (std::uint64_t m = i; m < bits; m += members) bitmap.set(m);
      for (std::uint64_t to = 0; to < members; ++to)
        later([this, to, i, bitmap] { act(to, reduces_[to].bits_from(peer(static_cast<std::uint8_t>(i)), bitmap)); });
    }
  }
  /// Member i's accumulator at element e.
  static std::uint64_t own(std::uint64_t i, std::int64_t e) { return base::mix64(i + 1, static_cast<std::uint64_t>(e)); }
  void run() {
    while (!waiting_.empty()) {
      const std::size_t next = order_.below(waiting_.size());
      auto what = std::move(waiting_[next]);
      waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(next));
      what();
    }
  }
  std::vector<std::uint64_t> sum_at(std::uint64_t i) const {
    std::vector<std::uint64_t> all;
    for (const auto& [shard, sums] : reduces_[i].sums()) {
      const auto part = values(sums);
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }
  std::deque<Reduce> reduces_;
  int broken = 0;

 private:
  void later(std::function<void()> what) { waiting_.push_back(std::move(what)); }
  void act(std::uint64_t at, const Actions& actions) {
    for (const auto& action : actions) {
      const PeerId self = peer(static_cast<std::uint8_t>(at));
      if (auto* read = std::get_if<ReadShard>(&action)) {
        std::vector<std::uint64_t> slice;
        for (std::int64_t e = read->slice.first; e < read->slice.last; ++e) slice.push_back(own(at, e));
        later([=, this, k = read->shard, sums = words(slice)] { act(at, reduces_[at].shard_read(k, sums)); });
      } else if (auto* part = std::get_if<SendPart>(&action)) {
        later([=, this, to = part->to.bytes[0], k = part->shard, sums = part->sums] { act(to, reduces_[to].part_from(self, k, sums)); });
      } else if (auto* add = std::get_if<AddParts>(&action)) {
        auto total = values(add->parts.at(0));
        for (std::size_t i = 1; i < add->parts.size(); ++i) {
          const auto more = values(add->parts[i]);
          for (std::size_t e = 0; e < total.size(); ++e) total[e] += more[e];
        }
        later([=, this, k = add->shard, sums = words(total)] { act(at, reduces_[at].parts_added(k, sums)); });
      } else if (auto* sum = std::get_if<SendSum>(&action)) {
        later([=, this, to = sum->to.bytes[0], k = sum->shard, sums = sum->sums] { act(to, reduces_[to].sum_from(self, k, sums)); });
      } else if (std::holds_alternative<Broken>(action)) {
        ++broken;
      }
    }
  }
  base::Prng order_;
  std::vector<std::function<void()>> waiting_;
};

/// Claim: for any sizes, shards follow each other without gap or overlap, are a multiple of R, and none is over the wire's bound.
TEST(Shards, CoverEverythingOnce) {
  for (const std::int64_t elements : {1ll, 2ll, 11ll, 1000ll, (kShardBytesMax / 8) * 5ll + 3, 12'345'678ll}) {
    for (std::uint64_t members = 1; members <= 5; ++members) {
      const std::uint64_t shards = shard_count(elements * 8, members);
      EXPECT_EQ(shards % members, 0u);
      std::int64_t at = 0;
      for (std::uint64_t k = 0; k < shards; ++k) {
        const Slice slice = slice_of(elements, shards, ShardIndex(k));
        EXPECT_EQ(slice.first, at);
        EXPECT_GE(slice.last, slice.first);
        EXPECT_LE((slice.last - slice.first) * 8, kShardBytesMax + 8);
        at = slice.last;
      }
      EXPECT_EQ(at, elements);
    }
  }
  EXPECT_EQ(shard_count(0, 3), 0u);
}

/// Claim: sums that are long enough are cut into several shards a member; short ones into one; a bound on a shard's length goes first.
TEST(Shards, SeveralAMemberWhereTheyAreLongEnough) {
  constexpr std::int64_t k = kShardBytesMin;
  EXPECT_EQ(shard_count(3 * k - 3, 3), 3u);
  EXPECT_EQ(shard_count(3 * 2 * k, 3), 6u);
  EXPECT_EQ(shard_count(3 * 100 * k, 3), 12u);
  EXPECT_EQ(shard_count(3 * 100 * k, 3, 10 * k), 30u);
}

/// Claim: the sum of a member's first shard leaves while parts of its last are still missing.
TEST(Reduce, SumsLeaveBeforeAllPartsAreHere) {
  const std::int64_t elements = 2 * 2 * kShardBytesMin / 8;  // two shards each
  Reduce reduce(options(2, 0, elements, 1));
  Bitmap all(1);
  all.set(0);
  EXPECT_TRUE(reduce.bits_from(peer(0), all).empty());
  EXPECT_TRUE(any<ReadShard>(reduce.bits_from(peer(1), Bitmap(1))));
  ASSERT_EQ(reduce.shards(), 4u);
  const Payload quarter = words(std::vector<std::uint64_t>(static_cast<std::size_t>(elements / 4), 1));
  EXPECT_TRUE(reduce.shard_read(ShardIndex(0), quarter).empty());
  EXPECT_TRUE(any<AddParts>(reduce.part_from(peer(1), ShardIndex(0), quarter)));
  EXPECT_TRUE(any<SendSum>(reduce.parts_added(ShardIndex(0), quarter)));
}

/// Claim: whatever the order of events, every member of every group ends with the same sum: Σ over members, modulo 2^64.
TEST(Reduce, AnyOrderGivesTheSameSums) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    const std::uint64_t members = 1 + seed % 4;
    const std::int64_t elements = static_cast<std::int64_t>(seed % 13);  // also none, and fewer than members
    Group group(members, elements, 7, seed);
    group.run();
    EXPECT_EQ(group.broken, 0);
    std::vector<std::uint64_t> expected(static_cast<std::size_t>(elements), 0);
    for (std::uint64_t i = 0; i < members; ++i)
      for (std::int64_t e = 0; e < elements; ++e) expected[static_cast<std::size_t>(e)] += Group::own(i, e);
    for (std::uint64_t i = 0; i < members; ++i) {
      ASSERT_TRUE(group.reduces_[i].whole()) << "seed " << seed << ": " << group.reduces_[i].waiting_for();
      if (group.reduces_[i].alone()) expected.clear();  // it is in the accumulator
      EXPECT_EQ(group.sum_at(i), expected) << "seed " << seed << " member " << i;
      EXPECT_EQ(group.reduces_[i].waiting_for(), "");
    }
  }
}

/// Claim: it starts when all bitmaps are here and complete, empty ones too, and not before; bits only ever grow.
TEST(Reduce, StartsWhenTheBitmapsAreComplete) {
  Reduce reduce(options(3, 0, 4, 2));
  Bitmap first(2), second(2);
  first.set(0);
  second.set(1);
  EXPECT_TRUE(reduce.bits_from(peer(0), first).empty());
  EXPECT_TRUE(reduce.bits_from(peer(1), Bitmap(2)).empty());
  EXPECT_TRUE(reduce.bits_from(peer(1), second).empty());
  EXPECT_FALSE(reduce.started());
  EXPECT_NE(reduce.waiting_for().find(peer(2).short_hex()), std::string::npos);
  EXPECT_TRUE(reduce.bits_from(peer(9), Bitmap(2)).empty()) << "a stranger's bitmap says nothing";
  EXPECT_TRUE(any<ReadShard>(reduce.bits_from(peer(2), Bitmap(2))));
  EXPECT_TRUE(reduce.started());
  EXPECT_TRUE(reduce.bits_from(peer(1), second).empty()) << "a repeat starts nothing again";
}

/// Claim: a microbatch in two bitmaps, or more of them than the step has, means broken books.
TEST(Reduce, BitmapsThatDoNotAddUp) {
  Reduce twice(options(2, 0, 4, 2));
  Bitmap both(2);
  both.set(0);
  EXPECT_TRUE(twice.bits_from(peer(0), both).empty());
  EXPECT_TRUE(any<Broken>(twice.bits_from(peer(1), both)));

  auto narrow = options(1, 0, 4, 3);
  narrow.required = 1;
  Reduce beyond(narrow);
  Bitmap many(3);
  many.set(0), many.set(2);
  EXPECT_TRUE(any<Broken>(beyond.bits_from(peer(0), many)));
}

/// Claim: a contribution or a sum of the wrong owner, shard, member or length means broken books.
TEST(Reduce, WrongPartsAndSums) {
  // Four elements, two members: shard 0 is ours, shard 1 is theirs, two elements each.
  const auto fresh = [] { return Reduce(options(2, 0, 4, 1)); };
  EXPECT_TRUE(any<Broken>(fresh().part_from(peer(1), ShardIndex(1), words({1, 2})))) << "not our shard";
  EXPECT_TRUE(any<Broken>(fresh().part_from(peer(1), ShardIndex(2), words({1, 2})))) << "no such shard";
  EXPECT_TRUE(any<Broken>(fresh().part_from(peer(7), ShardIndex(0), words({1, 2})))) << "no member";
  EXPECT_TRUE(any<Broken>(fresh().part_from(peer(1), ShardIndex(0), words({1})))) << "too short";
  EXPECT_TRUE(any<Broken>(fresh().part_from(peer(1), ShardIndex(0), nullptr))) << "nothing";
  EXPECT_TRUE(any<Broken>(fresh().sum_from(peer(1), ShardIndex(0), words({1, 2})))) << "our shard's sum comes from us";
  EXPECT_TRUE(any<Broken>(fresh().sum_from(peer(0), ShardIndex(1), words({1, 2})))) << "not its owner";
  EXPECT_TRUE(any<Broken>(fresh().sum_from(peer(1), ShardIndex(1), words({1, 2, 3})))) << "too long";
  EXPECT_TRUE(any<Broken>(fresh().sum_from(peer(1), ShardIndex(9), words({1, 2})))) << "no such shard";
}

/// Claim: repeats are ignored; two different sums of one shard mean broken books.
TEST(Reduce, RepeatsAndContradictions) {
  Reduce reduce(options(2, 0, 4, 1));
  Bitmap all(1);
  all.set(0);
  EXPECT_TRUE(reduce.bits_from(peer(0), all).empty());
  EXPECT_FALSE(any<Broken>(reduce.bits_from(peer(1), Bitmap(1))));
  EXPECT_EQ(reduce.taken(), 0u);
  EXPECT_TRUE(reduce.part_from(peer(1), ShardIndex(0), words({1, 2})).empty());
  EXPECT_TRUE(reduce.part_from(peer(1), ShardIndex(0), words({1, 2})).empty());
  EXPECT_EQ(reduce.taken(), 1u) << "a repeat is no progress";
  EXPECT_TRUE(any<AddParts>(reduce.shard_read(ShardIndex(0), words({10, 20}))));
  EXPECT_TRUE(reduce.shard_read(ShardIndex(0), words({10, 20})).empty()) << "added once";
  EXPECT_TRUE(any<SendSum>(reduce.parts_added(ShardIndex(0), words({11, 22}))));
  EXPECT_TRUE(any<Whole>(reduce.sum_from(peer(1), ShardIndex(1), words({5, 6}))));
  EXPECT_TRUE(reduce.sum_from(peer(1), ShardIndex(1), words({5, 6})).empty());
  EXPECT_EQ(reduce.taken(), 4u);
  EXPECT_TRUE(any<Broken>(reduce.sum_from(peer(1), ShardIndex(1), words({5, 7}))));
}

/// Claim: one member alone is whole as soon as its bitmap is complete, and reads, adds and sends nothing.
TEST(Reduce, OneMemberAlone) {
  Reduce reduce(options(1, 0, 3, 2));
  Bitmap all(2);
  all.set(0), all.set(1);
  Bitmap half(2);
  half.set(0);
  EXPECT_TRUE(reduce.alone());
  EXPECT_TRUE(reduce.bits_from(peer(0), half).empty());
  const Actions done = reduce.bits_from(peer(0), all);
  ASSERT_EQ(done.size(), 1u);
  EXPECT_TRUE(any<Whole>(done));
  EXPECT_TRUE(reduce.whole());
  EXPECT_TRUE(reduce.sums().empty());
  EXPECT_EQ(reduce.waiting_for(), "");
}

/// Claim: a bitmap holds exactly the bits that were set, over word borders; words with bits beyond the end are refused.
TEST(Bitmap, SetTestCountMerge) {
  Bitmap a(130), b(130);
  for (const std::uint64_t bit : {0u, 63u, 64u, 129u}) a.set(bit);
  b.set(64), b.set(65);
  EXPECT_EQ(a.count(), 4u);
  EXPECT_TRUE(a.test(129));
  EXPECT_FALSE(a.test(128));
  EXPECT_TRUE(a.overlaps(b));
  EXPECT_FALSE(a.contains(b));
  a.merge(b);
  EXPECT_EQ(a.count(), 5u);
  EXPECT_TRUE(a.contains(b));
  EXPECT_TRUE(Bitmap::valid(a.words(), 130));
  EXPECT_FALSE(Bitmap::valid(a.words(), 129)) << "bit 129 is beyond 129 bits";
  EXPECT_FALSE(Bitmap::valid(a.words(), 64)) << "too many words";
  EXPECT_TRUE(Bitmap::valid({}, 0));
  EXPECT_TRUE(Bitmap::valid({~std::uint64_t{0}}, 64));
}

}  // namespace
}  // namespace stagecoach::replica
