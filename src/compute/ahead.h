// Loops over several long arrays at once, with the memory fetched ahead.
//
// Why:     a core's own prefetcher begins anew on every page of every array; asking for lines some hundred elements ahead takes a fifth
//          off an update that lives in memory. It changes no value. Included by files that are compiled without contraction (clones.h).
#pragma once

#include <cstdint>

namespace stagecoach::compute {

inline constexpr std::int64_t kAheadBlock = 64;
inline constexpr std::int64_t kAheadDistance = 192;
inline constexpr std::int64_t kCacheLineBytes = 64;

/// The lines of `Elements` elements, some way ahead of `x`. An address beyond an array's end is harmless: nothing is read.
template <std::int64_t Elements, class T>
[[gnu::always_inline]] inline void fetch_ahead(const T* x) {
  const char* first = reinterpret_cast<const char*>(x + kAheadDistance);
  for (std::int64_t at = 0; at < Elements * static_cast<std::int64_t>(sizeof(T)); at += kCacheLineBytes) __builtin_prefetch(first + at);
}

/// Calls work(i) for each of `count` elements, in order; `arrays` are what it reads.
template <class Work, class... T>
[[gnu::always_inline]] inline void with_memory_ahead(std::int64_t count, const Work& work, const T*... arrays) {
  const std::int64_t whole = count - count % kAheadBlock;
  for (std::int64_t first = 0; first < whole; first += kAheadBlock) {
    (fetch_ahead<kAheadBlock>(arrays + first), ...);
    for (std::int64_t i = first; i < first + kAheadBlock; ++i) work(i);
  }
  for (std::int64_t i = whole; i < count; ++i) work(i);
}

}  // namespace stagecoach::compute
