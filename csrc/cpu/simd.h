// Loads, stores and loops over vectors of lanes, conversions of 16-bit storage, and the exponential
// of the softmax.
//
// Only kernel definitions (csrc/cpu/kernels) may include this header: its functions must be
// compiled for the instruction set of the kernel that calls them, and are always inlined there.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "../core/macros.h"
#include "../core/types.h"
#include "lanes.h"

namespace gat::cpu {

template <class Isa, class A>
inline constexpr int kLanes = Isa::vector_bytes / static_cast<int>(sizeof(A));

// ---- conversions between 16-bit storage (in the low half of U) and float lanes; V and U have the
// same number of lanes

template <class V, class U>
GAT_HD V widen_bf16(U h) {
  return bitcast<V>(U(h << 16));
}

template <class U, class V>
GAT_HD U narrow_bf16(V v) {  // round to nearest even; NaN stays NaN
  const U u = bitcast<U>(v);
  const U rounded = (u + (((u >> 16) & 1u) + 0x7fffu)) >> 16;
  return v == v ? rounded : U((u >> 16) | 0x40u);
}

template <class V, class U>
GAT_HD V widen_fp16(U h) {
  const U magnitude = (h & 0x7fffu) << 13;
  // Changes the bias of the exponent; denormals become normal numbers.
  const U scaled = bitcast<U>(V(bitcast<V>(magnitude) * 0x1p112f));
  const U special = (h & 0x7c00u) == 0x7c00u ? U(scaled | 0x7f800000u) : scaled;
  return bitcast<V>(U(special | ((h & 0x8000u) << 16)));
}

template <class U, class V>
GAT_HD U narrow_fp16(V v) {  // round to nearest even; overflow to infinity
  const U bits = bitcast<U>(v);
  const U a = bits & 0x7fffffffu;
  const U normal = (a + (((a >> 13) & 1u) + (0xfffu - 0x38000000u))) >> 13;
  const U subnormal = bitcast<U>(V(bitcast<V>(a) + 0.5f)) - 0x3f000000u;
  const U zero = a & 0u;
  U r = a < 0x38800000u ? subnormal : normal;
  r = a >= 0x477ff000u ? U(zero | 0x7c00u) : r;
  r = a > 0x7f800000u ? U(zero | 0x7e00u) : r;
  return r | ((bits >> 16) & 0x8000u);
}

// ---- loads and stores of lanes, no alignment required

template <class V, class T>
GAT_HD V load(const T* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class V>
GAT_HD auto load_words(const void* p) {
  constexpr int W = kLanesOf<V, float>;
  Vec<std::uint16_t, W> raw;
  __builtin_memcpy(&raw, p, sizeof raw);
  return convert<Vec<std::uint32_t, W>>(raw);
}
template <class V>
GAT_HD V load(const bf16* p) {
  return widen_bf16<V>(load_words<V>(p));
}
template <class V>
GAT_HD V load(const fp16* p) {
  return widen_fp16<V>(load_words<V>(p));
}

template <class T, class V>
GAT_HD void store(T* p, V v) {
  __builtin_memcpy(p, &v, sizeof v);
}
template <class V>
GAT_HD void store(bf16* p, V v) {
  constexpr int W = kLanesOf<V, float>;
  const auto raw = convert<Vec<std::uint16_t, W>>(narrow_bf16<Vec<std::uint32_t, W>>(v));
  __builtin_memcpy(p, &raw, sizeof raw);
}
template <class V>
GAT_HD void store(fp16* p, V v) {
  constexpr int W = kLanesOf<V, float>;
  const auto raw = convert<Vec<std::uint16_t, W>>(narrow_fp16<Vec<std::uint32_t, W>>(v));
  __builtin_memcpy(p, &raw, sizeof raw);
}

// One element, converted to the type of computation.
template <class T>
GAT_HD Acc<T> read(const T* p) {
  return load<Acc<T>>(p);
}

// ---- loops over features

template <class V_, class A>
struct Lanes {
  using V = V_;
  static constexpr int width = kLanesOf<V_, A>;
};

// Calls f(d, Lanes) for d from 0 to n: first with full vectors, then with halves, quarters, … and
// single elements.
template <class Isa, class A, class F>
GAT_HD void for_lanes(std::int64_t n, F&& f) {
  constexpr int W = kLanes<Isa, A>;
  std::int64_t d = 0;
  for (; d + W <= n; d += W) f(d, Lanes<Vec<A, W>, A>{});
  if constexpr (W >= 16) {
    if (d + 8 <= n) f(d, Lanes<Vec<A, 8>, A>{}), d += 8;
  }
  if constexpr (W >= 8) {
    if (d + 4 <= n) f(d, Lanes<Vec<A, 4>, A>{}), d += 4;
  }
  if constexpr (W >= 4) {
    if (d + 2 <= n) f(d, Lanes<Vec<A, 2>, A>{}), d += 2;
  }
  for (; d < n; ++d) f(d, Lanes<A, A>{});
}

template <class A, class V>
GAT_HD A sum_lanes(V v) {
  constexpr int W = kLanesOf<V, A>;
  if constexpr (W == 1) {
    return v;
  } else {
    using Half = Vec<A, W / 2>;
    struct Halves {
      Half low, high;
    };
    const auto halves = bitcast<Halves>(v);
    return sum_lanes<A>(Half(halves.low + halves.high));
  }
}

template <class A, class V>
GAT_HD A max_lanes(V v) {
  constexpr int W = kLanesOf<V, A>;
  if constexpr (W == 1) {
    return v;
  } else {
    using Half = Vec<A, W / 2>;
    struct Halves {
      Half low, high;
    };
    const auto h = bitcast<Halves>(v);
    return max_lanes<A>(Half(h.low > h.high ? h.low : h.high));
  }
}

// dst = scale * src, rounded to T.
template <class Isa, class A, class T>
GAT_HD void store_scaled(T* dst, const A* src, A scale, std::int64_t n) {
  for_lanes<Isa, A>(n, [&](std::int64_t d, auto lanes) {
    using V = typename decltype(lanes)::V;
    store(dst + d, V(load<V>(src + d) * scale));
  });
}

// ---- exp

// exp(x) for x <= 0, up to rounding: 2^n times the Taylor polynomial of the remainder
// |r| <= ln(2) / 2, whose truncation error is below half a unit in the last place. Returns 0 where
// the result would be denormal; NaN stays NaN.
template <class A, class V>
GAT_HD V exp_of(V x) {
  if constexpr (std::is_same_v<A, float>) {
    using I = Vec<std::int32_t, kLanesOf<V, A>>;
    // 1.5 * 2^23: the low bits of t are round(x / ln 2).
    const V t = x * 1.44269504088896341f + 12582912.0f;
    const V n = t - 12582912.0f;
    const V r = x - n * 0.693145751953125f - n * 1.42860682030941723e-6f;
    V p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    using U = Vec<std::uint32_t, kLanesOf<V, A>>;
    const V two_to_n = bitcast<V>(U((bitcast<U>(t) + 127u) << 23));
    static_assert(sizeof(I) == sizeof(V));
    return x < -87.3f ? V{} : p * two_to_n;
  } else {
    using U = Vec<std::uint64_t, kLanesOf<V, A>>;
    const V t = x * 1.44269504088896340736 + 6755399441055744.0;  // 1.5 * 2^52
    const V n = t - 6755399441055744.0;
    const V r = x - n * 0.693147180369123816490 - n * 1.90821492927058770002e-10;
    V p = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    const V two_to_n = bitcast<V>(U((bitcast<U>(t) + 1023u) << 52));
    return x < -708.0 ? V{} : p * two_to_n;
  }
}

// ---- prefetch

// Prefetches the cache lines of a row that will be read soon.
GAT_HD void prefetch(const void* row, std::int64_t bytes) {
  const char* p = static_cast<const char*>(row);
  for (std::int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(p + offset, 0, 2);
}

// Prefetches rows of a result that will be written soon: a store that misses the cache delays the
// stores after it, and every load of what they write.
template <class T>
GAT_HD void prefetch_for_write(const T* rows, std::int64_t size) {
  const char* p = reinterpret_cast<const char*>(rows);
  const auto bytes = size * static_cast<std::int64_t>(sizeof(T));
  for (std::int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(p + offset, 1);
}

}  // namespace gat::cpu
