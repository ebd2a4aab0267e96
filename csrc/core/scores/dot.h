// c <x, y>: Vaswani et al., "Attention Is All You Need", 2017, eq. 1, with c = 1 / sqrt(d) the caller's choice.
#pragma once

#include "score.h"

namespace gat {

struct Dot {
  static constexpr const char* name = "dot";
  static constexpr bool has_term = true;
  static constexpr bool has_weight = false;
  static constexpr bool has_node_terms = false;

  template <class V, class A>
  GAT_HD static V term(V x, V y, V, const ScoreParams<A>&) {
    return x * y;
  }
  template <class V, class A>
  GAT_HD static TermGrad<V> term_vjp(V g, V x, V y, V, const ScoreParams<A>&) {
    return {g * y, g * x, V{}};
  }
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
