// Bitmap: which microbatches of a step a worker has accumulated.
//
// Thread:  any; a value.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace stagecoach::replica {

class Bitmap {
 public:
  Bitmap() = default;
  explicit Bitmap(std::uint64_t bits) : words_((bits + 63) / 64, 0) {}
  /// From the words of a message; bits beyond `bits` make it invalid.
  static bool valid(const std::vector<std::uint64_t>& words, std::uint64_t bits) {
    if (words.size() != (bits + 63) / 64) return false;
    return words.empty() || bits % 64 == 0 || (words.back() >> (bits % 64)) == 0;
  }
  explicit Bitmap(std::vector<std::uint64_t> words) : words_(std::move(words)) {}

  void set(std::uint64_t bit) { words_[bit / 64] |= std::uint64_t{1} << (bit % 64); }
  bool test(std::uint64_t bit) const { return words_[bit / 64] >> (bit % 64) & 1; }
  std::uint64_t count() const {
    std::uint64_t n = 0;
    for (std::uint64_t word : words_) n += static_cast<std::uint64_t>(std::popcount(word));
    return n;
  }
  bool overlaps(const Bitmap& other) const {
    for (std::size_t i = 0; i < words_.size() && i < other.words_.size(); ++i)
      if (words_[i] & other.words_[i]) return true;
    return false;
  }
  void merge(const Bitmap& other) {
    for (std::size_t i = 0; i < words_.size() && i < other.words_.size(); ++i) words_[i] |= other.words_[i];
  }
  /// Every bit of `other` is set here too.
  bool contains(const Bitmap& other) const {
    for (std::size_t i = 0; i < words_.size() && i < other.words_.size(); ++i)
      if (other.words_[i] & ~words_[i]) return false;
    return true;
  }
  const std::vector<std::uint64_t>& words() const { return words_; }
  bool operator==(const Bitmap&) const = default;

 private:
  std::vector<std::uint64_t> words_;
};

}  // namespace stagecoach::replica
