// The number of threads that a loop starts: only the caller's where there is little work.
//
// OpenMP keeps the threads that a loop has started. Waking them takes longer than a small graph
// does, and they do not exist in a forked process, where a loop that relies on them would wait
// forever. A loop on one thread needs no others.
#pragma once

#include <algorithm>
#include <cstdint>

namespace gat::cpu {

// Multiplications and additions: some tens of microseconds.
inline constexpr std::int64_t kWorkOfThread = 1 << 17;

// At most num_threads; fewer where there is not enough work, or not an item for each thread.
inline int threads_for(std::int64_t work, std::int64_t items, int num_threads) {
  const std::int64_t worth = std::min(items, 1 + work / kWorkOfThread);
  return static_cast<int>(std::clamp<std::int64_t>(worth, 1, num_threads));
}

}  // namespace gat::cpu
