// Intrinsic functions of one thread.
#pragma once

#include <cstring>

#include "memory.h"

namespace gat_emulation {

template <class To, class From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

}  // namespace gat_emulation

inline unsigned __float_as_uint(float x) { return gat_emulation::same_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return gat_emulation::same_bits<float>(x); }
inline long long __double_as_longlong(double x) { return gat_emulation::same_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return gat_emulation::same_bits<double>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) {
  return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x));
}

// A load, whole and aligned, of memory that no thread of the launch writes.
template <class T>
T __ldg(const T* p) {
  gat_emulation::check_alignment(p, sizeof(T));
  T value;
  std::memcpy(static_cast<void*>(&value), static_cast<const void*>(p), sizeof(T));
  return value;
}
