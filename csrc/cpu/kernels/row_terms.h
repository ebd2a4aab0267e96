// The terms that the loops of tile_rows.h sum: products, the terms of a score and their gradients.
#pragma once

#include <cstdint>

#include "../../core/scores/score.h"
#include "../simd.h"

namespace gat::cpu {

// p row: the weighted sum.
struct Scaled {
  template <class V>
  GAT_HD int fixed(std::int64_t) const {
    return 0;
  }
  template <class A, class V>
  GAT_HD V operator()(A p, V row, int) const {
    return row * p;
  }
};

// <factor x, row>.
template <class T>
struct DotWith {
  const T* x;  // [H, C]
  Acc<T> factor = 1;
  template <class V>
  GAT_HD V fixed(std::int64_t at) const {
    return load<V>(x + at) * factor;
  }
  template <class V>
  GAT_HD V operator()(V row, V fixed) const {
    return fixed * row;
  }
};

// <x, factor row>.
template <class T>
struct DotWithScaled {
  const T* x;  // [H, C]
  Acc<T> factor;
  template <class V>
  GAT_HD V fixed(std::int64_t at) const {
    return load<V>(x + at);
  }
  template <class V>
  GAT_HD V operator()(V row, V fixed) const {
    return fixed * V(row * factor);
  }
};

// <x, factor y> of pairs.
template <class A>
struct Product {
  A factor = 1;
  template <class V>
  GAT_HD int fixed(std::int64_t) const {
    return 0;
  }
  template <class V>
  GAT_HD V operator()(V x, V y, int) const {
    return x * V(y * factor);
  }
};

// The term of a score for pairs (x, y).
template <class Score, class T>
struct ScoreTermOfPair {
  const T* att;  // [H, D]
  ScoreParams<Acc<T>> params;

  template <class V>
  GAT_HD V fixed(std::int64_t at) const {
    if constexpr (Score::has_weight) return load<V>(att + at);
    return V{};
  }
  template <class V>
  GAT_HD V operator()(V x, V y, V weight) const {
    return Score::term(x, y, weight, params);
  }
};

// The gradient of the term for pairs (x, y) times p with respect to y.
template <class Score, class T>
struct PairGradY : ScoreTermOfPair<Score, T> {
  template <class A, class V>
  GAT_HD V operator()(A p, V x, V y, V weight) const {
    return Score::term_vjp(V(V{} + p), x, y, weight, this->params).y;
  }
};

// What the term of a score reads at [h, d] besides the row: the other vector, and the weight.
template <class V>
struct TermFixed {
  V other, weight;
};
template <class Score, class T>
struct TermInputs {
  const T* other;  // [H, D] x, or where the rows are x, y
  const T* att;    // [H, D]
  ScoreParams<Acc<T>> params;

  template <class V>
  GAT_HD TermFixed<V> fixed(std::int64_t at) const {
    TermFixed<V> f{load<V>(other + at), V{}};
    if constexpr (Score::has_weight) f.weight = load<V>(att + at);
    return f;
  }
};

// The term of a score; rows are y, or x.
template <class Score, class T>
struct ScoreTermOfY : TermInputs<Score, T> {
  template <class V>
  GAT_HD V operator()(V y, TermFixed<V> f) const {
    return Score::term(f.other, y, f.weight, this->params);
  }
};
template <class Score, class T>
struct ScoreTermOfX : TermInputs<Score, T> {
  template <class V>
  GAT_HD V operator()(V x, TermFixed<V> f) const {
    return Score::term(x, f.other, f.weight, this->params);
  }
};

// The gradients of the term times p: of x and of w, rows being y, and of y, rows being x.
template <class Score, class T>
struct TermGradX : TermInputs<Score, T> {
  template <class A, class V>
  GAT_HD V operator()(A p, V y, TermFixed<V> f) const {
    return Score::term_vjp(V(V{} + p), f.other, y, f.weight, this->params).x;
  }
};
template <class Score, class T>
struct TermGradW : TermInputs<Score, T> {
  template <class A, class V>
  GAT_HD V operator()(A p, V y, TermFixed<V> f) const {
    return Score::term_vjp(V(V{} + p), f.other, y, f.weight, this->params).w;
  }
};
template <class Score, class T>
struct TermGradY : TermInputs<Score, T> {
  template <class A, class V>
  GAT_HD V operator()(A p, V x, TermFixed<V> f) const {
    return Score::term_vjp(V(V{} + p), x, f.other, f.weight, this->params).y;
  }
};

}  // namespace gat::cpu
