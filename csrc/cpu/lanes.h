// Vectors of lanes: the vector types of the compiler. A plain header: functions are always inlined,
// and no instruction set is assumed.
#pragma once

#include <type_traits>

#include "../core/macros.h"

namespace gat::cpu {

template <class A, int W>
struct VecOf {
  typedef A type __attribute__((vector_size(sizeof(A) * W)));
};
template <class A>
struct VecOf<A, 1> {
  using type = A;
};
template <class A, int W>
using Vec = typename VecOf<A, W>::type;

template <class V, class A>
inline constexpr int kLanesOf = static_cast<int>(sizeof(V) / sizeof(A));

template <class To, class From>
GAT_HD To bitcast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

template <class To, class From>
GAT_HD To convert(const From& from) {
  if constexpr (std::is_arithmetic_v<From>) {
    return static_cast<To>(from);
  } else {
    return __builtin_convertvector(from, To);
  }
}

}  // namespace gat::cpu
