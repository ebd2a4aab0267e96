// Tiles of edges: the scores of up to kTile edges of one row, recomputed wherever they are needed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <type_traits>

#include "../../core/online_softmax.h"
#include "../edge_attention.h"
#include "../lane_math.h"
#include "../simd.h"
#include "../tile.h"
#include "head_columns.h"
#include "linear_edges.h"
#include "philox_lanes.h"
#include "row_terms.h"
#include "tile_rows.h"

namespace gat::cpu {

// True if a row is computed for each edge of a tile: see linear_edges.h.
template <class Score, class T>
GAT_HD bool has_edge_rows(const EdgeAttentionInputs<T>& in) {
  return in.edge_feat || (in.edge_attr && !kIsProduct<Score>);
}

template <class Score, class T>
GAT_HD TileScratch<Acc<T>> make_tile_scratch(const EdgeAttentionInputs<T>& in) {
  return {in.num_heads, has_edge_rows<Score>(in) ? in.score_channels : 0,
          padded_terms(in.edge_channels)};
}

// True if the scores or the weighted sum read a tensor in the caller's order.
template <class T>
GAT_HD bool reads_edges(const EdgeAttentionInputs<T>& in) {
  return in.dropout.active() || in.edge_term || in.bias || in.edge_feat || in.edge_attr;
}

// out[e] = in[begin + e] for N elements; where there are fewer, the last one is repeated.
template <int N>
GAT_HD void widen(const IndexArray& in, std::int64_t begin, std::int64_t end, std::int64_t* out) {
  const auto copy = [&](const auto* from) {
    prefetch(from + std::min(begin + 8 * N, end - 1), N * static_cast<std::int64_t>(sizeof(*from)));
    if (begin + N <= end) {
      for (int e = 0; e < N; ++e) out[e] = from[begin + e];
    } else {
      for (int e = 0; e < N; ++e) out[e] = from[std::min(begin + e, end - 1)];
    }
  };
  if (in.wide) {
    copy(static_cast<const std::int64_t*>(in.data));
  } else {
    copy(static_cast<const std::int32_t*>(in.data));
  }
}

// Loads the indices of a tile that starts at position begin: those of its edges, and of the
// following edges, whose rows are prefetched. ids is true where a tensor in the caller's order is
// read or written.
template <class Scratch>
GAT_HD void load_tile(const CsrView& csr, std::int64_t begin, bool ids, Scratch& s) {
  const std::int64_t num_edges = csr.num_edges();
  widen<kTile + kAhead>(csr.col, begin, num_edges, s.neighbor);
  if (!ids) return;
  if (csr.edge_id) {
    widen<kTile + kAhead>(csr.edge_id, begin, num_edges, s.id);
  } else {
    for (int e = 0; e < kTile + kAhead; ++e) s.id[e] = std::min(begin + e, num_edges - 1);
  }
}

// ---- rows with their edge features

// rows[e] = base[index[e]] + what edge e adds.
template <class Isa, Ahead Prefetches, class T>
void add_edge_features(const EdgeAttentionInputs<T>& in, const T* base, const std::int64_t* index,
                       std::int64_t row_size, int n, const TileScratch<Acc<T>>& s, Acc<T>* rows) {
  using A = Acc<T>;
  if (in.edge_attr) {
    add_linear_features<Prefetches, Isa>(base, index, in.edge_map, s.edge_attr.data(), row_size,
                                         padded_terms(in.edge_channels), n, rows);
    return;
  }
  for (int e = 0; e < n; ++e) {
    if constexpr (Prefetches == Ahead::yes)
      prefetch(base + index[e + kAhead] * row_size,
               row_size * static_cast<std::int64_t>(sizeof(T)));
    const T *const x = base + index[e] * row_size, *const f = in.edge_feat + s.id[e] * row_size;
    for_lanes<Isa, A>(row_size, [&](std::int64_t d, auto lanes) {
      using V = typename decltype(lanes)::V;
      store(rows + e * row_size + d, V(load<V>(x + d) + load<V>(f + d)));
    });
  }
}

// Prefetches b of the following neighbours.
template <class Score, class T>
struct NodeTermAhead {
  const EdgeAttentionInputs<T>& in;
  const std::int64_t* neighbor;
  GAT_HD void operator()(int e) const {
    if constexpr (Score::has_node_terms) {
      prefetch(in.src_term + neighbor[e + kAhead] * in.num_heads,
               in.num_heads * static_cast<std::int64_t>(sizeof(T)));
    }
  }
};

// Calls f(RowTile) with the rows y + e of a tile. Prefetches is no where the rows have been read
// before.
template <class Score, Ahead Prefetches, class T, class F>
GAT_HD void with_key_rows(const EdgeAttentionInputs<T>& in, int n, const TileScratch<Acc<T>>& s,
                          F&& f) {
  const std::int64_t H = in.num_heads, D = in.score_channels;
  if (has_edge_rows<Score>(in)) {
    f(RowTile<Acc<T>, Ahead::no>{s.key.data(), s.own, n, H, D});
  } else if constexpr (Prefetches == Ahead::yes) {
    f(RowTile<T, Ahead::yes, NodeTermAhead<Score, T>>{
        in.key, s.neighbor, n, H, D, {in, s.neighbor}});
  } else {
    f(RowTile<T, Ahead::no>{in.key, s.neighbor, n, H, D});
  }
}

// Likewise for v or v + e. Where v is y, the rows have been read before.
template <class Isa, class Score, class T, class F>
GAT_HD void with_value_rows(const EdgeAttentionInputs<T>& in, int n, TileScratch<Acc<T>>& s,
                            F&& f) {
  const std::int64_t H = in.num_heads, channels = in.value_channels;
  if constexpr (Score::has_term) {
    if (in.edge_in_value && has_edge_rows<Score>(in)) {
      add_edge_features<Isa, Ahead::yes>(in, in.value, s.neighbor, H * channels, n, s,
                                         s.value.data());
      f(RowTile<Acc<T>, Ahead::no>{s.value.data(), s.own, n, H, channels});
    } else if (in.value == in.key) {
      f(RowTile<T, Ahead::no>{in.value, s.neighbor, n, H, channels});
    } else {
      f(RowTile<T, Ahead::yes>{in.value, s.neighbor, n, H, channels});
    }
  } else {
    f(RowTile<T, Ahead::yes, NodeTermAhead<Score, T>>{
        in.value, s.neighbor, n, H, channels, {in, s.neighbor}});
  }
}

// ---- scores

// Sets the scores of edges that top-k drops, and of the padding up to a full vector, to -inf; the
// edge of lane e is at CSR position position(e).
template <class Isa, class T, class P>
GAT_HD void mask_scores(const EdgeAttentionInputs<T>& in, int n, TileScratch<Acc<T>>& s,
                        const P& position) {
  using A = Acc<T>;
  for (std::int64_t h = 0; h < in.num_heads; ++h) {
    A* const score = s.score.data() + h * kTile;
    if (in.selected) {
      for (int e = 0; e < n; ++e) {
        if (!in.selected[position(e) * in.num_heads + h]) score[e] = negative_infinity<A>();
      }
    }
    std::fill(score + n, score + padded<Isa, A>(n), negative_infinity<A>());
  }
}

// Writes the scores of n edges of a row, from CSR position begin on, to s.score, the sums of the
// terms to s.sum, and b to s.src_term.
template <class Isa, class Score, class T>
GAT_HD void score_tile(const EdgeAttentionInputs<T>& in, std::int64_t row, std::int64_t begin,
                       int n, TileScratch<Acc<T>>& s) {
  using A = Acc<T>;
  const std::int64_t H = in.num_heads, D = in.score_channels;
  if constexpr (Score::has_term) {
    if (in.edge_attr) load_edge_attr<Isa, kIsProduct<Score>>(in, n, s);
    if (has_edge_rows<Score>(in))
      add_edge_features<Isa, Ahead::yes>(in, in.key, s.neighbor, H * D, n, s, s.key.data());
    const ScoreTermOfY<Score, T> term{{in.query + row * H * D, in.att, in.params}};
    with_key_rows<Score, Ahead::yes>(
        in, n, s, [&](auto rows) { reduce_rows<Isa, A>(rows, term, s.sum.data()); });
    if (kIsProduct<Score> && in.edge_attr) {
      const LinearEdges<Isa, T> edges(in);
      edges.transpose_map(in.query + row * H * D, s.query_map.data());
      edges.add_products(s.query_map.data(), A(1), n, s, s.sum.data());
    }
  }
  if constexpr (Score::has_node_terms) {
    gather_heads<Isa>(in.src_term, s.neighbor, n, H, s.src_term.data());
    if (in.edge_term) gather_add_heads(in.edge_term, s.id, n, H, s.src_term.data());
  }
  for (std::int64_t h = 0; h < H; ++h) {
    const A a = Score::has_node_terms ? read(in.dst_term + row * H + h) : A(0);
    const std::int64_t tile = h * kTile;
    for_edges<Isa, A>(n, [&](int e, auto zero) {
      using V = decltype(zero);
      const std::int64_t at = tile + e;
      store(s.score.data() + at, Score::finish(load<V>(s.sum.data() + at), V(zero + a),
                                               load<V>(s.src_term.data() + at), in.params));
    });
  }
  if (in.bias) gather_add_heads(in.bias, s.id, n, H, s.score.data());
  mask_scores<Isa>(in, n, s, [begin](int e) { return begin + e; });
}

// The sum of a column of a tile of n edges.
template <class Isa, class A>
GAT_HD A sum_column(const A* column, int n) {
  Vec<A, kLanes<Isa, A>> sum{};
  for_edges<Isa, A>(
      n, [&](int e, auto zero) { sum += below_lane<A>(n - e, load<decltype(zero)>(column + e)); });
  return sum_lanes<A>(sum);
}

// weights = exp(scores - shift) for one head of a tile; returns their sum.
template <class Isa, class A>
GAT_HD A exp_tile(const A* scores, A shift, int n, A* weights) {
  Vec<A, kLanes<Isa, A>> sum{};
  for_edges<Isa, A>(n, [&](int e, auto zero) {
    using V = decltype(zero);
    const V p = exp_of<A, V>(load<V>(scores + e) - shift);
    store(weights + e, p);
    sum += p;
  });
  return sum_lanes<A>(sum);
}

// Writes alpha of n edges of a row, whose scores are in s.score, to s.weight.
template <class Isa, class A>
GAT_HD void weights_tile(const RowSoftmax<A>* softmax, std::int64_t num_heads, int n,
                         TileScratch<A>& s) {
  for (std::int64_t h = 0; h < num_heads; ++h) {
    const auto [shift, scale] = softmax[h];
    for_edges<Isa, A>(n, [&](int e, auto zero) {
      using V = decltype(zero);
      const std::int64_t at = h * kTile + e;
      store(s.weight.data() + at, V(exp_of<A, V>(load<V>(s.score.data() + at) - shift) * scale));
    });
  }
}

// Writes the dropout multipliers of a tile, those of Dropout::multiplier, to s.multiplier.
template <class Isa, class A>
void draw_multipliers(const Dropout& dropout, std::int64_t num_heads, int n, TileScratch<A>& s) {
  using U = Vec<std::uint64_t, kLanes<Isa, std::uint64_t>>;
  using V = Vec<A, kLanesOf<U, std::uint64_t>>;
  const V keep = V{} + static_cast<A>(dropout.keep_scale);
  const std::int64_t* counter = s.id;
  std::int64_t numbers[kTile] = {};
  if (dropout.number) {
    for (int e = 0; e < n; ++e) numbers[e] = dropout.number[s.id[e]];
    counter = numbers;
  }
  for (std::int64_t group = 0; 4 * group < num_heads; ++group) {
    A* const multiplier = s.multiplier.data() + 4 * group * kTile;
    const auto store_word = [&](int i, std::int64_t word, U number) {
      if (4 * group + word >= num_heads) return;
      const auto kept = convert<
          Vec<std::conditional_t<sizeof(A) == 8, std::int64_t, std::int32_t>, kLanesOf<V, A>>>(
          (number & 0xffffffffu) >= dropout.threshold);
      store(multiplier + word * kTile + i, V(kept ? keep : V{}));
    };
    philox_lanes<Isa>(static_cast<std::uint64_t>(*dropout.seed), counter, n,
                      static_cast<std::uint64_t>(group), [&](int i, U w0, U w1, U w2, U w3) {
                        store_word(i, 0, w0), store_word(i, 1, w1), store_word(i, 2, w2),
                            store_word(i, 3, w3);
                      });
  }
}

// weights *= multipliers for all heads of a tile, except in the padding.
template <class A>
GAT_HD void apply_multipliers(std::int64_t num_heads, int n, const TileScratch<A>& s, A* weights) {
  for (std::int64_t h = 0; h < num_heads; ++h) {
    for (int e = 0; e < n; ++e)
      weights[h * kTile + e] *= s.multiplier[static_cast<std::size_t>(h * kTile + e)];
  }
}

}  // namespace gat::cpu
