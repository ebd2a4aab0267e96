// Storage types, and the type in which sums over them are kept.
#pragma once

#include <cstdint>

namespace gat {

// IEEE binary32 cut to its upper 16 bits. Storage only: no arithmetic is done in it.
struct bf16 {
  std::uint16_t bits;
};

// IEEE binary16. Storage only.
struct fp16 {
  std::uint16_t bits;
};

// Sums, exponentials, lse and delta of a storage type T are kept in Acc<T>.
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
