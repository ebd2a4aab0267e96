// The contract of a score.
//
//   s_ij = finish(sum_d term(x_i[d], y_j[d], w[d]), a_i, b_j)
//
// A score is a type with
//   name                    its public name, also the key in gat_ext.reference.SCORES
//   has_term, has_weight    whether it reads x and y, and w
//   has_node_terms          whether it reads a and b
//   term, term_vjp          the summand, and its gradients for an upstream gradient g
//   finish, finish_vjp      the scalar end, and its gradients
// Both halves are templates over the value type V: a scalar, or on the CPU a vector of lanes, so they use only + - * and the
// conditional operator. No half reads anything but its arguments, so kernels may recompute a score wherever they need it.
#pragma once

#include "../macros.h"

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
