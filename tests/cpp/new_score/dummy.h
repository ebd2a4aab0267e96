// log(1 + exp(z)) sqrt(1 + b_j^2), z = a_i + sum_d w_d tanh(x_d y_d): a score for this test only,
// which reads every input and calls every function of core/math.h.
#pragma once

#include "score.h"

namespace gat {

struct Dummy {
  static constexpr const char* name = "dummy";
  static constexpr bool has_term = true, has_weight = true, has_node_terms = true;

  template <class V, class A>
  GAT_HD static V term(V x, V y, V w, const ScoreParams<A>&) {
    return w * tanh(V(x * y));
  }
  template <class V, class A>
  GAT_HD static TermGrad<V> term_vjp(V g, V x, V y, V w, const ScoreParams<A>&) {
    const V t = tanh(V(x * y)), of_product = g * w * (1 - t * t);
    return {of_product * y, of_product * x, g * t};
  }
  template <class V, class A>
  GAT_HD static V finish(V acc, V a, V b, const ScoreParams<A>&) {
    return log(V(1 + exp(V(acc + a)))) * sqrt(V(1 + b * b));
  }
  template <class V, class A>
  GAT_HD static FinishGrad<V> finish_vjp(V g, V acc, V a, V b, const ScoreParams<A>&) {
    const V root = sqrt(V(1 + b * b)), of_z = g * root * sigmoid(V(acc + a));
    return {of_z, of_z, g * log(V(1 + exp(V(acc + a)))) * b / root};
  }
};

}  // namespace gat
