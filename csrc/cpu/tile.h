// The per-thread buffers in which kernels work on a few edges at a time. Plain code: no instruction set is assumed here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gat::cpu {

inline constexpr int kTile = 32;

// The buffers of one thread. Per-edge values are head-major, [H, kTile], so that an exponential runs over the edges of a head.
template <class A>
struct TileScratch {
  std::int64_t neighbor[kTile];
  std::int64_t id[kTile];
  std::vector<A> score, weight, multiplier, sum;  // [H, kTile]

  TileScratch(std::int64_t num_heads)
      : score(size(num_heads)), weight(size(num_heads)), multiplier(size(num_heads)), sum(size(num_heads)) {}
  static std::size_t size(std::int64_t num_heads) { return static_cast<std::size_t>(num_heads * kTile); }
};

}  // namespace gat::cpu
