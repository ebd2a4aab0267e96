// c <x, y>: Vaswani et al., "Attention Is All You Need", 2017, eq. 1, where the caller passes
// c = 1 / sqrt(d).
#pragma once

#include "score.h"

namespace gat {

struct Dot : DotTerm {
  static constexpr const char* name = "dot";
  static constexpr bool has_node_terms = false;

  template <class V, class A>
  GAT_HD static V finish(V acc, V, V, const ScoreParams<A>& p) {
    return acc * p.scale;
  }
  template <class V, class A>
  GAT_HD static FinishGrad<V> finish_vjp(V g, V, V, V, const ScoreParams<A>& p) {
    return {g * p.scale, V{}, V{}};
  }
};

}  // namespace gat
