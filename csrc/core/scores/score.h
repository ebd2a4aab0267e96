// The contract of a score.
//
//   s_ij = finish(sum_d term(x_i[d], y_j[d], w[d]), a_i, b_j + e_ij)
//
// A score is a type with
//   name                    its public name, also its key in gat_ext/ops/scores.py and in the
//   reference has_term, has_weight    whether it reads x and y, and w has_node_terms whether it
//   reads a and b; only then edges may have terms e, added to b term, term_vjp          the
//   summand, and its gradients for an upstream gradient g; only with
//                           has_term
//   finish, finish_vjp      the scalar end, and its gradients; V{} for an argument that it ignores
// Both halves are templates over the value type V, which is a scalar or a vector of lanes, so they
// use
// + - * /, comparisons in the conditional operator, and the functions of ../math.h. Neither half
// reads anything except its arguments, so kernels may recompute a score wherever they need it.
#pragma once

#include "../macros.h"
#include "../math.h"

namespace gat {

// The scalars of a score.
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

// Base of a score that reads node terms only.
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
