// Paced tensors: one word of provenance in the books, a tensor of the real size on the road.
//
// In:      messages that leave or arrive. Out: the same with their tensors unfolded to the model's sizes, or folded to words again.
// Thread:  any; pure.
// Why:     custody of a step's boundary tensors is gigabytes a worker; of words that say what is in them it is nothing. Every byte that
//          travels still follows from its word and its place, so that one which does not is seen.
#pragma once

#include <cstddef>

#include "base/bytes.h"
#include "base/result.h"
#include "wire/messages.h"

namespace stagecoach::world::paced {

/// Of one worker's messages, in bytes on the road.
struct TensorSizes {
  std::size_t tokens = 0;
  std::size_t input = 0;   // of a boundary tensor into its stage, and of that one's gradient; 0 at the head
  std::size_t output = 0;  // of one out of it; 0 at the tail
};

/// `bytes` bytes for a word: the word times multiplier(0), multiplier(1), …; little-endian, the last one cut.
base::Payload unfolded(const base::Payload& word, std::size_t bytes);
/// The word of such bytes.
///
/// errors: corrupt  another length, or bytes that do not follow from the first eight
base::Result<base::Payload> folded(const base::Payload& tensor, std::size_t bytes);

/// Gives the boundary tensors and tokens of a message that leaves their sizes. Other messages stay as they are.
void unfold(wire::Message& message, const TensorSizes& sizes);
/// Takes those of a message that arrived back to words.
///
/// errors: those of folded(): the sender is of another run, or another program
base::Result<void> fold(wire::Message& message, const TensorSizes& sizes);

}  // namespace stagecoach::world::paced
