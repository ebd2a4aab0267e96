// Philox4x32-10 for a vector of counters, the numbers of ../../core/philox.h.
#pragma once

#include <cstdint>

#include "../../core/philox.h"
#include "../simd.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gat::cpu {

// The 64-bit products of the lower halves of 64-bit lanes; the upper halves are ignored.
template <class U>
GAT_HD U multiply_lower_halves(U a, U b) {
#if defined(__x86_64__)
  if constexpr (sizeof(U) == 64)
    return bitcast<U>(_mm512_maskz_mul_epu32(0xff, bitcast<__m512i>(a), bitcast<__m512i>(b)));
  if constexpr (sizeof(U) == 32)
    return bitcast<U>(_mm256_mul_epu32(bitcast<__m256i>(a), bitcast<__m256i>(b)));
  if constexpr (sizeof(U) == 16)
    return bitcast<U>(_mm_mul_epu32(bitcast<__m128i>(a), bitcast<__m128i>(b)));
#endif
  constexpr std::uint64_t kLower = 0xffffffffu;
  return (a & kLower) * (b & kLower);
}

// Calls f(i, w0, w1, w2, w3) with the numbers of counters i, i + 1, … for all n counters, rounded
// up to a full vector, each number in the lower half of a 64-bit lane. Products and sums use the
// lower half of a word only, so the upper halves are never cleared.
template <class Isa, class F>
GAT_HD void philox_lanes(std::uint64_t seed, const std::int64_t* counter_low, int n,
                         std::uint64_t counter_high, F&& f) {
  using U = Vec<std::uint64_t, kLanes<Isa, std::uint64_t>>;
  const U multiplier0 = U{} + std::uint64_t{kPhiloxMultiplier0},
          multiplier1 = U{} + std::uint64_t{kPhiloxMultiplier1};
  for (int i = 0; i < n; i += kLanes<Isa, std::uint64_t>) {
    U c0 = load<U>(counter_low + i), c1 = c0 >> 32, c2 = U{} + counter_high, c3 = c2 >> 32;
    std::uint32_t k0 = static_cast<std::uint32_t>(seed),
                  k1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
      const U p0 = multiply_lower_halves(c0, multiplier0),
              p1 = multiply_lower_halves(c2, multiplier1);
      c0 = (p1 >> 32) ^ c1 ^ std::uint64_t{k0};
      c1 = p1;
      c2 = (p0 >> 32) ^ c3 ^ std::uint64_t{k1};
      c3 = p0;
      k0 += kPhiloxWeyl0;
      k1 += kPhiloxWeyl1;
    }
    f(i, c0, c1, c2, c3);
  }
}

}  // namespace gat::cpu
