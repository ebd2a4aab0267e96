// leaky_relu(a_i + b_j): Velickovic et al., "Graph Attention Networks", ICLR 2018, eq. 3, with the
// weight vector split into the half for the destination and the half for the source.
#pragma once

#include "score.h"

namespace gat {

struct Additive : NoTerm {
  static constexpr const char* name = "additive";
  static constexpr bool has_node_terms = true;

  template <class V, class A>
  GAT_HD static V finish(V, V a, V b, const ScoreParams<A>& p) {
    return leaky_relu(a + b, p.slope);
  }
  template <class V, class A>
  GAT_HD static FinishGrad<V> finish_vjp(V g, V, V a, V b, const ScoreParams<A>& p) {
    const V gz = leaky_relu_vjp(g, a + b, p.slope);
    return {V{}, gz, gz};
  }
};

}  // namespace gat
