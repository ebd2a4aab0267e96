// Vectors of elements from the places that a vector of indices names, and masks of 64-bit lanes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../simd.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gat::cpu {

// False on AMD's CPUs, where the instruction takes longer than a load for each lane: a step of a
// walk takes 0.83 of the time without it (Zen 4).
GAT_HD bool has_fast_gather() {
#if defined(__x86_64__)
  return !__builtin_cpu_is("amd");
#else
  return false;
#endif
}

// A bit for each lane of a comparison.
template <class I>
GAT_HD unsigned bits_of(I mask) {
#if defined(__x86_64__)
  if constexpr (sizeof(I) == 64)
    return static_cast<unsigned>(_mm512_movepi64_mask(bitcast<__m512i>(mask)));
  if constexpr (sizeof(I) == 32)
    return static_cast<unsigned>(_mm256_movemask_pd(bitcast<__m256d>(mask)));
#endif
  unsigned bits = 0;
  for (int i = 0; i < kLanesOf<I, std::int64_t>; ++i) bits |= (mask[i] & 1u) << i;
  return bits;
}

// from[index], as int64 or double. Where the mask is not set, the index must be 0, and the result
// is 0 or from[0]. AVX-512 has an instruction for it, which may be used where has_fast_gather() is
// true; that of AVX2 is slower than a load for each lane.
template <bool use_instruction, class T, class I>
GAT_HD auto gather(const T* from, I index, I mask) {
  constexpr int n = kLanesOf<I, std::int64_t>;
  using Wide = std::conditional_t<std::is_floating_point_v<T>, double, std::int64_t>;
  using V = Vec<Wide, n>;
#if defined(__x86_64__)
  if constexpr (use_instruction && sizeof(I) == 64) {
    const __mmask8 lanes = _mm512_movepi64_mask(bitcast<__m512i>(mask));
    const __m512i at = bitcast<__m512i>(index);
    if constexpr (sizeof(T) == 8) {
      return bitcast<V>(_mm512_mask_i64gather_epi64(_mm512_setzero_si512(), lanes, at, from, 8));
    } else {
      return convert<V>(bitcast<Vec<T, n>>(
          _mm512_mask_i64gather_epi32(_mm256_setzero_si256(), lanes, at, from, 4)));
    }
  } else
#endif
  {
    V v;
    for (int i = 0; i < n; ++i) v[i] = static_cast<Wide>(from[index[i]]);
    return v;
  }
}

}  // namespace gat::cpu
