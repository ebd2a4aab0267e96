// The contract of a score.
//
//   s_ij = finish(sum_d term(x_i[d], y_j[d], w[d]), a_i, b_j + e_ij)
//
// A score is a type with
//   name                 its public name, and its key in gat_ext/ops/scores.py and the reference
//   has_term             true if it reads x and y
//   has_weight           true if it reads w
//   has_node_terms       true if it reads a and b; only then may edges have terms e, added to b
//   term, term_vjp       with has_term only: the summand, and its gradients for an upstream
//                        gradient g
//   finish, finish_vjp   the function of the sum and the node terms, and its gradients; V{} is
//                        passed for an argument that it ignores
// The functions are templates over the value type V, a scalar or a vector of lanes, so they use
// only arithmetic operators, comparisons in the conditional operator, and the functions of
// ../math.h. They read nothing except their arguments, so kernels recompute a score wherever they
// need it.
#pragma once

#include <type_traits>

#include "../macros.h"
#include "../math.h"

namespace gat {

// The scalar parameters of a score.
template <class A>
struct ScoreParams {
  A slope = A(0.2);  // of leaky_relu, for negative arguments
  A scale = A(1);    // c: multiplies the score
};

// Gradients of term with respect to its three arguments.
template <class V>
struct TermGrad {
  V x, y, w;
};

// Gradients of finish with respect to the accumulated sum and the two node terms.
template <class V>
struct FinishGrad {
  V acc, a, b;
};

// Base of a score that reads node terms only, not x, y and w.
struct NoTerm {
  static constexpr bool has_term = false, has_weight = false;
};

// Base of a score of the dot product <x, y>.
struct DotTerm {
  static constexpr bool has_term = true, has_weight = false;

  template <class V, class A>
  GAT_HD static V term(V x, V y, V, const ScoreParams<A>&) {
    return x * y;
  }
  template <class V, class A>
  GAT_HD static TermGrad<V> term_vjp(V g, V x, V y, V, const ScoreParams<A>&) {
    return {g * y, g * x, V{}};
  }
};

// True for scores of a dot product, which is linear in x and in y.
template <class Score>
inline constexpr bool kIsProduct = std::is_base_of_v<DotTerm, Score>;

// Base of a score that is the sum over its terms.
struct PlainFinish {
  static constexpr bool has_node_terms = false;

  template <class V, class A>
  GAT_HD static V finish(V acc, V, V, const ScoreParams<A>&) {
    return acc;
  }
  template <class V, class A>
  GAT_HD static FinishGrad<V> finish_vjp(V g, V, V, V, const ScoreParams<A>&) {
    return {g, V{}, V{}};
  }
};

template <class V, class A>
GAT_HD V leaky_relu(V z, A slope) {
  return z > V{} ? z : z * slope;
}

// d leaky_relu(z) / dz, times g.
template <class V, class A>
GAT_HD V leaky_relu_vjp(V g, V z, A slope) {
  return z > V{} ? g : g * slope;
}

}  // namespace gat
