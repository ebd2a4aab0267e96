// Storage types, and the types of sums over them.
#pragma once

#include <cstdint>

namespace gat {

// The upper 16 bits of IEEE binary32. Storage only: no arithmetic is done in it.
struct bf16 {
  std::uint16_t bits;
};

// IEEE binary16. Storage only.
struct fp16 {
  std::uint16_t bits;
};

// Sums, exponentials, lse and delta of values of storage type T have type Acc<T>.
template <class T>
struct AccOf {
  using type = float;
};
template <>
struct AccOf<double> {
  using type = double;
};
template <class T>
using Acc = typename AccOf<T>::type;

template <class... Ts>
struct TypeList {};

}  // namespace gat
