// Softmax over a stream: Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
//
// The state of a row is (max, sum, weighted sum): the largest score m so far, l = sum exp(s - m),
// and acc = sum exp(s - m) v. Two states over disjoint sets of edges merge into the state over
// their union; the empty state (-inf, 0, 0) is the identity.
#pragma once

#include <cmath>

#include "macros.h"

namespace gat {

template <class A>
GAT_HD constexpr A negative_infinity() {
  return -static_cast<A>(__builtin_huge_val());
}

// The value to subtract in exp(s - m): m, except 0 for the empty state, so that -inf - m stays -inf
// and NaN stays NaN.
template <class A>
GAT_HD A safe_max(A m) {
  return m == negative_infinity<A>() ? A(0) : m;
}

// The factors by which the sums of two states are multiplied when the states merge.
template <class A>
struct MergeFactors {
  A max, left, right;
};
template <class A>
GAT_HD MergeFactors<A> merge_factors(A left_max, A right_max) {
  const A m = left_max > right_max ? left_max : right_max;
  return {m, std::exp(left_max - safe_max(m)), std::exp(right_max - safe_max(m))};
}

// log sum exp of a finished row; -inf for an empty one.
template <class A>
GAT_HD A log_sum_exp(A m, A l) {
  return l == A(0) ? negative_infinity<A>() : safe_max(m) + std::log(l);
}

// The factor that turns the weighted sum into the mean; 0 for an empty row.
template <class A>
GAT_HD A normalizer(A l) {
  return l == A(0) ? A(0) : A(1) / l;
}

// The softmax of a finished row: alpha = exp(s - shift) * scale, with the maximum and the sum kept
// separately. exp(s - lse) would lose log l to rounding where |m| is large: with every score at
// -1e9, each alpha would be 1. An empty row has shift +inf, so that its weights are 0.
template <class A>
struct RowSoftmax {
  A shift, scale;

  GAT_HD static RowSoftmax of(A m, A l) {
    return {l == A(0) ? static_cast<A>(__builtin_huge_val()) : safe_max(m), normalizer(l)};
  }
};

}  // namespace gat
