// IEEE binary16: conversions that round as the GPU does, to nearest even.
#pragma once

#include "gat_emulation/intrinsics.h"

struct __half {
  unsigned short bits;
};

inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half h) { return h.bits; }

inline float __half2float(__half h) {
  const unsigned sign = (h.bits & 0x8000u) << 16, rest = h.bits & 0x7fffu;
  if (rest > 0x7c00u) return __uint_as_float(0x7fffffffu);
  if (rest == 0x7c00u) return __uint_as_float(sign | 0x7f800000u);
  // The exponents' biases differ by 112; the product is exact for normal and subnormal numbers
  // alike.
  return __uint_as_float(sign | __float_as_uint(__uint_as_float(rest << 13) * 0x1p112f));
}

inline __half __float2half_rn(float x) {
  const unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
  const auto half = [](unsigned h) { return __half{static_cast<unsigned short>(h)}; };
  if (rest > 0x7f800000u) return half(0x7fffu);
  // 65520, halfway from the largest number to 2^16
  if (rest >= 0x477ff000u) return half(sign | 0x7c00u);
  if (rest >= 0x38800000u)
    return half(sign | ((rest - 0x38000000u + 0xfffu + (rest >> 13 & 1)) >> 13));
  // Below 2^-14: added to 0.5, whose last place is that of a subnormal half.
  return half(sign | (__float_as_uint(__uint_as_float(rest) + 0.5f) - 0x3f000000u));
}
