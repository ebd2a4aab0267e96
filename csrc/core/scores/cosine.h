// c a_i b_j <x, y> with a and b the inverse norms of x and y: Thekumparampil et al.,
// "Attention-based Graph Neural Network for Semi-supervised Learning", 2018, eq. 5. The inverse
// norms are inputs: the code that computes them handles zero vectors, and multiplies a by the
// learned temperature beta.
#pragma once

#include "score.h"

namespace gat {

struct Cosine : DotTerm {
  static constexpr const char* name = "cosine";
  static constexpr bool has_node_terms = true;

  template <class V, class A>
  GAT_HD static V finish(V acc, V a, V b, const ScoreParams<A>& p) {
    return acc * p.scale * a * b;
  }
  // acc is the product of two norms, a and b are the inverses of one each, and g may be as large as
  // a norm: each product here is at most that of two norms, which is finite.
  template <class V, class A>
  GAT_HD static FinishGrad<V> finish_vjp(V g, V acc, V a, V b, const ScoreParams<A>& p) {
    const V gs = g * p.scale;
    return {gs * a * b, gs * (acc * b), gs * (acc * a)};
  }
};

}  // namespace gat
