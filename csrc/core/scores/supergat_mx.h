// leaky_relu((a_i + b_j) sigmoid(<x, y>)): Kim, Oh, "How to Find Your Friendly Neighborhood: Graph
// Attention Design with Self-Supervision", ICLR 2021, eq. 3 and 5, the form MX.
#pragma once

#include "score.h"

namespace gat {

struct SuperGatMx : DotTerm {
  static constexpr const char* name = "supergat_mx";
  static constexpr bool has_node_terms = true;

  template <class V, class A>
  GAT_HD static V finish(V acc, V a, V b, const ScoreParams<A>& p) {
    return leaky_relu((a + b) * sigmoid(acc), p.slope);
  }
  template <class V, class A>
  GAT_HD static FinishGrad<V> finish_vjp(V g, V acc, V a, V b, const ScoreParams<A>& p) {
    const V sum = a + b, gate = sigmoid(acc), gz = leaky_relu_vjp(g, V(sum * gate), p.slope);
    return {sigmoid_vjp(V(gz * sum), gate), gz * gate, gz * gate};
  }
};

}  // namespace gat
