// Elementary functions of a value type V: a scalar, or on the CPU a vector of lanes.
//
// Scalars use the standard library, on the host and in device code. csrc/cpu/lane_math.h
// specialises ElementaryMath for vectors of lanes. Functions composed of these are written once for
// all of them.
#pragma once

#include <cmath>

#include "macros.h"

namespace gat {

template <class V, class = void>
struct ElementaryMath {
  GAT_HD static V exp(V x) { return std::exp(x); }
  GAT_HD static V log(V x) { return std::log(x); }
  GAT_HD static V tanh(V x) { return std::tanh(x); }
  GAT_HD static V sqrt(V x) { return std::sqrt(x); }
};

template <class V>
GAT_HD V exp(V x) {
  return ElementaryMath<V>::exp(x);
}
template <class V>
GAT_HD V log(V x) {
  return ElementaryMath<V>::log(x);
}
template <class V>
GAT_HD V tanh(V x) {
  return ElementaryMath<V>::tanh(x);
}
template <class V>
GAT_HD V sqrt(V x) {
  return ElementaryMath<V>::sqrt(x);
}

// 1 / (1 + exp(-x)), computed as exp(x) / (1 + exp(x)) for x < 0: exp never overflows, and small
// results keep their precision.
template <class V>
GAT_HD V sigmoid(V x) {
  const V one = V{} + 1;
  const V e = exp(V(x < V{} ? x : -x));
  return (x < V{} ? e : one) / (one + e);
}

// d sigmoid(x) / dx, times g; s = sigmoid(x).
template <class V>
GAT_HD V sigmoid_vjp(V g, V s) {
  return g * s * (1 - s);
}

}  // namespace gat
