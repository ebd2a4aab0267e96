// sum_d w_d leaky_relu(x_d + y_d): Brody, Alon, Yahav, "How Attentive are Graph Attention
// Networks?", ICLR 2022, eq. 7.
#pragma once

#include "score.h"

namespace gat {

struct AdditiveV2 : PlainFinish {
  static constexpr const char* name = "additive_v2";
  static constexpr bool has_term = true, has_weight = true;

  template <class V, class A>
  GAT_HD static V term(V x, V y, V w, const ScoreParams<A>& p) {
    return w * leaky_relu(x + y, p.slope);
  }
  template <class V, class A>
  GAT_HD static TermGrad<V> term_vjp(V g, V x, V y, V w, const ScoreParams<A>& p) {
    const V gz = leaky_relu_vjp(g * w, x + y, p.slope);
    return {gz, gz, g * leaky_relu(x + y, p.slope)};
  }
};

}  // namespace gat
