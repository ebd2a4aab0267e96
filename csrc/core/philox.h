// Philox4x32-10, a counter-based random number generator: Salmon, Moraes, Dror, Shaw, "Parallel
// random numbers: as easy as 1, 2, 3", SC 2011. A number depends on (seed; edge, head) only, so
// forward, backward, any schedule and any device draw the same number without storing it.
#pragma once

#include <cstdint>

#include "macros.h"

namespace gat {

inline constexpr std::uint32_t kPhiloxMultiplier0 = 0xD2511F53u, kPhiloxMultiplier1 = 0xCD9E8D57u;
inline constexpr std::uint32_t kPhiloxWeyl0 = 0x9E3779B9u, kPhiloxWeyl1 = 0xBB67AE85u;
inline constexpr int kPhiloxRounds = 10;

struct Philox4 {
  std::uint32_t word[4];
};

GAT_HD Philox4 philox(std::uint64_t seed, std::uint64_t counter_low, std::uint64_t counter_high) {
  std::uint32_t c0 = static_cast<std::uint32_t>(counter_low),
                c1 = static_cast<std::uint32_t>(counter_low >> 32);
  std::uint32_t c2 = static_cast<std::uint32_t>(counter_high),
                c3 = static_cast<std::uint32_t>(counter_high >> 32);
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const std::uint64_t p0 = std::uint64_t{kPhiloxMultiplier0} * c0;
    const std::uint64_t p1 = std::uint64_t{kPhiloxMultiplier1} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += kPhiloxWeyl0;
    k1 += kPhiloxWeyl1;
  }
  return {{c0, c1, c2, c3}};
}

// Inverted dropout on attention weights: a weight is multiplied by 0 with probability p, otherwise
// by 1 / (1 - p).
struct Dropout {
  // In the memory of the device, so that a launch recorded in a CUDA graph reads a new value.
  const std::int64_t* seed = nullptr;
  // p * 2^32: a 32-bit draw below it drops the weight; 0 turns dropout off.
  std::uint64_t threshold = 0;
  double keep_scale = 1;  // 1 / (1 - p), or 0 when p = 1
  // The numbers that take the place of the edges' own, such as those in a graph of which these
  // edges are a part; null: their own.
  const std::int64_t* number = nullptr;

  static Dropout make(double p, const std::int64_t* seed, const std::int64_t* number = nullptr) {
    return {seed, static_cast<std::uint64_t>(p * 4294967296.0), p < 1 ? 1 / (1 - p) : 0, number};
  }
  GAT_HD bool active() const { return threshold != 0; }

  // One counter serves four consecutive heads.
  GAT_HD Philox4 draw(std::int64_t edge, std::int64_t head_group) const {
    return philox(static_cast<std::uint64_t>(*seed),
                  static_cast<std::uint64_t>(number ? number[edge] : edge),
                  static_cast<std::uint64_t>(head_group));
  }
  // Selects by comparison, because registers cannot be indexed.
  GAT_HD bool kept(const Philox4& numbers, std::int64_t head) const {
    const std::uint32_t even = head & 2 ? numbers.word[2] : numbers.word[0],
                        odd = head & 2 ? numbers.word[3] : numbers.word[1];
    return (head & 1 ? odd : even) >= threshold;
  }
  template <class A>
  GAT_HD A multiplier(const Philox4& numbers, std::int64_t head) const {
    return kept(numbers, head) ? static_cast<A>(keep_scale) : A(0);
  }
};

}  // namespace gat
