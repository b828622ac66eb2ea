// Where a SentencePiece model's texts fall apart into words, and the ids of words that came before.
//
// In:      a model's file, texts. Out: chunks of a text whose ids, one after another, are the text's.
// Thread:  any; a WordIds belongs to one thread.
// Why:     the library encodes every word anew, through several copies of it, and texts repeat few words often: a byte-pair model's ids
//          are found many times faster by remembering them. The ids stay the library's own, to the last one.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace stagecoach::data {

/// True where a text's ids are those of its chunks (chunk_end), for every text: a byte-pair model (its merges in one word do not see
/// another; unigram models add scores up over the whole text, and their rounding may decide), of which no piece reaches over a
/// space, with a known piece for the space, one of the library's own normalizations, and a space put before a text.
///
/// source: the protocol buffer messages ModelProto, TrainerSpec and NormalizerSpec of the library's sentencepiece_model.proto
bool falls_apart_at_spaces(std::string_view model_file);

/// Where the chunk ends that begins at `first`: at a single space between two printable ASCII characters, or the text's end. The next
/// chunk begins one behind it.
std::size_t chunk_end(std::string_view text, std::size_t first);

/// A bounded memory of chunks and their ids.
class WordIds {
 public:
  std::optional<std::span<const int>> find(std::string_view word) const;
  /// Keeps short ones; forgets everything where there are too many, so that it follows the texts.
  void put(std::string_view word, std::span<const int> ids);

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view word) const { return std::hash<std::string_view>()(word); }
  };
  struct Place {
    std::uint32_t first = 0;
    std::uint32_t count = 0;
  };
  std::unordered_map<std::string, Place, Hash, std::equal_to<>> places_;
  std::vector<int> ids_;
};

}  // namespace stagecoach::data
