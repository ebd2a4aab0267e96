// Tiles of edges: the scores of up to kTile edges of one row, recomputed wherever they are needed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "../../core/online_softmax.h"
#include "../edge_attention.h"
#include "../simd.h"
#include "../tile.h"

namespace gat::cpu {

inline constexpr std::int64_t kPrefetchEdges = 12;  // a row is asked for this many edges before it is read

// <x, y + e> and its like for one edge and head: sum_d term(x_d, y_d + e_d, w_d).
template <class Isa, class Score, class T>
GAT_HD Acc<T> sum_terms(const T* x, const T* y, const T* e, const T* w, std::int64_t channels,
                        const ScoreParams<Acc<T>>& params) {
  using A = Acc<T>;
  Vec<A, kLanes<Isa, A>> full{};
  A rest{};
  for_lanes<Isa, A>(channels, [&](std::int64_t d, auto lanes) {
    using V = typename decltype(lanes)::V;
    V yd = load<V>(y + d);
    if (e != nullptr) yd += load<V>(e + d);
    V wd{};
    if constexpr (Score::has_weight) wd = load<V>(w + d);
    const V t = Score::term(load<V>(x + d), yd, wd, params);
    if constexpr (decltype(lanes)::width == kLanes<Isa, A>) {
      full += t;
    } else {
      rest += sum_lanes<A>(t);
    }
  });
  return sum_lanes<A>(full) + rest;
}

// <x, y> over channels.
template <class Isa, class A, class T, class U>
GAT_HD A dot_product(const T* x, const U* y, std::int64_t channels) {
  Vec<A, kLanes<Isa, A>> full{};
  A rest{};
  for_lanes<Isa, A>(channels, [&](std::int64_t d, auto lanes) {
    using V = typename decltype(lanes)::V;
    const V t = load<V>(x + d) * load<V>(y + d);
    if constexpr (decltype(lanes)::width == kLanes<Isa, A>) {
      full += t;
    } else {
      rest += sum_lanes<A>(t);
    }
  });
  return sum_lanes<A>(full) + rest;
}

// acc += p * x over channels.
template <class Isa, class A, class T>
GAT_HD void add_scaled(A* acc, A p, const T* x, std::int64_t channels) {
  for_lanes<Isa, A>(channels, [&](std::int64_t d, auto lanes) {
    using V = typename decltype(lanes)::V;
    store(acc + d, V(load<V>(acc + d) + load<V>(x + d) * p));
  });
}

// dst = scale * src, rounded to T.
template <class Isa, class A, class T>
GAT_HD void store_scaled(T* dst, const A* src, A scale, std::int64_t n) {
  for_lanes<Isa, A>(n, [&](std::int64_t d, auto lanes) {
    using V = typename decltype(lanes)::V;
    store(dst + d, V(load<V>(src + d) * scale));
  });
}

// Widens the indices of a tile. Edge ids are filled only where something in the caller's order is read or written.
template <class A>
GAT_HD void load_tile(const CsrView& csr, std::int64_t begin, int n, TileScratch<A>& s) {
  for (int e = 0; e < n; ++e) s.neighbor[e] = csr.col[begin + e];
  for (int e = 0; e < n; ++e) s.id[e] = csr.id(begin + e);
}

// Asks for the feature row of the edge kPrefetchEdges ahead of position k.
template <class T>
GAT_HD void prefetch_row(const CsrView& csr, std::int64_t num_edges, std::int64_t k, const T* rows, std::int64_t row_size) {
  if (k + kPrefetchEdges < num_edges) {
    prefetch(rows + csr.col[k + kPrefetchEdges] * row_size, row_size * static_cast<std::int64_t>(sizeof(T)));
  }
}

// Number of lanes a tile of n edges is padded to.
template <class Isa, class A>
GAT_HD int padded(int n) {
  constexpr int W = kLanes<Isa, A>;
  return (n + W - 1) / W * W;
}

// The score of one edge and head; raw receives the sum over the term.
template <class Isa, class Score, class T>
GAT_HD Acc<T> edge_score(const EdgeAttentionInputs<T>& in, std::int64_t dst, std::int64_t src, std::int64_t id, std::int64_t h,
                         Acc<T>& raw) {
  using A = Acc<T>;
  const std::int64_t H = in.num_heads, D = in.score_channels;
  raw = A(0);
  if constexpr (Score::has_term) {
    raw = sum_terms<Isa, Score, T>(in.query + (dst * H + h) * D, in.key + (src * H + h) * D,
                                   in.edge_feat ? in.edge_feat + (id * H + h) * D : nullptr,
                                   Score::has_weight ? in.att + h * D : nullptr, D, in.params);
  }
  A a{}, b{};
  if constexpr (Score::has_node_terms) {
    a = read(in.dst_term + dst * H + h);
    b = read(in.src_term + src * H + h);
    if (in.edge_term) b += read(in.edge_term + id * H + h);
  }
  const A s = Score::finish(raw, a, b, in.params);
  return in.bias ? s + read(in.bias + id * H + h) : s;
}

// Fills s.score (and s.sum, the sums over the term) for n edges of a row from CSR position begin on; what top-k leaves out and
// the padding up to a full vector is -inf.
template <class Isa, class Score, class T>
GAT_HD void score_tile(const EdgeAttentionInputs<T>& in, std::int64_t row, std::int64_t begin, int n, TileScratch<Acc<T>>& s) {
  using A = Acc<T>;
  const std::int64_t H = in.num_heads, row_size = H * in.score_channels, num_edges = in.csr.num_edges();
  for (int e = 0; e < n; ++e) {
    if constexpr (Score::has_term) prefetch_row(in.csr, num_edges, begin + e, in.key, row_size);
    for (std::int64_t h = 0; h < H; ++h) {
      A& score = s.score[static_cast<std::size_t>(h * kTile + e)];
      score = edge_score<Isa, Score, T>(in, row, s.neighbor[e], s.id[e], h, s.sum[static_cast<std::size_t>(h * kTile + e)]);
      if (in.selected && !in.selected[(begin + e) * H + h]) score = negative_infinity<A>();
    }
  }
  for (std::int64_t h = 0; h < H; ++h) {
    for (int e = n; e < padded<Isa, A>(n); ++e) s.score[static_cast<std::size_t>(h * kTile + e)] = negative_infinity<A>();
  }
}

// weights = exp(scores - shift) for one head of a tile; returns their sum.
template <class Isa, class A>
GAT_HD A exp_tile(const A* scores, A shift, int n, A* weights) {
  constexpr int W = kLanes<Isa, A>;
  using V = Vec<A, W>;
  V sum{};
  for (int e = 0; e < padded<Isa, A>(n); e += W) {
    const V p = exp_of<A, V>(load<V>(scores + e) - shift);
    store(weights + e, p);
    sum += p;
  }
  return sum_lanes<A>(sum);
}

// Fills s.multiplier with the dropout multipliers of n edges.
template <class A>
GAT_HD void draw_multipliers(const Dropout& dropout, std::int64_t num_heads, int n, TileScratch<A>& s) {
  for (int e = 0; e < n; ++e) {
    for (std::int64_t h = 0; h < num_heads; h += 4) {
      const Philox4 numbers = dropout.draw(s.id[e], h / 4);
      for (std::int64_t k = h; k < std::min(h + 4, num_heads); ++k) {
        s.multiplier[static_cast<std::size_t>(k * kTile + e)] = dropout.multiplier<A>(numbers, k);
      }
    }
  }
}

}  // namespace gat::cpu
