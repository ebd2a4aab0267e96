// How many threads a loop starts: none but the caller's where there is little to do.
//
// OpenMP keeps the threads that a loop has started. To wake them takes longer than a small graph
// does, and they are missing in a forked process, where a loop that counts on them waits forever. A
// loop on one thread needs no others.
#pragma once

#include <algorithm>
#include <cstdint>

namespace gat::cpu {

// multiplications and additions: some tens of microseconds
inline constexpr std::int64_t kWorkOfThread = 1 << 17;

// Of num_threads, those for which there is work, and an item of it each.
inline int threads_for(std::int64_t work, std::int64_t items, int num_threads) {
  const std::int64_t worth = std::min(items, 1 + work / kWorkOfThread);
  return static_cast<int>(std::clamp<std::int64_t>(worth, 1, num_threads));
}

}  // namespace gat::cpu
