// Linear edge features: e_ij [K] and a map W [H, D, K], which is stored as [K, H, D]. See the note
// of that name in ../../core/edge_attention.h. For a score of a dot product the products with W are
// those of a row; for others the rows y_j + W e_ij of a tile are computed.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "../../core/edge_attention.h"
#include "../simd.h"
#include "../tile.h"
#include "tile_rows.h"

namespace gat::cpu {

// Copies e of a tile to s.edge_attr, padded with zeros: [kTile, padded_terms(K)], or with
// Transposed [padded_terms(K), kTile]. Prefetches that of the following edges.
template <class Isa, bool Transposed, class T>
GAT_HD void load_edge_attr(const EdgeAttentionInputs<T>& in, int n, TileScratch<Acc<T>>& s) {
  const std::int64_t K = in.edge_channels, terms = padded_terms(K);
  Acc<T>* const to = s.edge_attr.data();
  for (int e = 0; e < n; ++e) {
    prefetch(in.edge_attr + s.id[e + kAhead] * K, K * static_cast<std::int64_t>(sizeof(T)));
    const T* const from = in.edge_attr + s.id[e] * K;
    for (std::int64_t k = 0; k < K; ++k)
      to[Transposed ? k * kTile + e : e * terms + k] = read(from + k);
  }
  if constexpr (Transposed) {
    const int end = padded<Isa, Acc<T>>(n);
    if (end == n) return;
    for (std::int64_t k = 0; k < K; ++k)
      std::fill(to + k * kTile + n, to + k * kTile + end, Acc<T>(0));
  }
}

// ---- products of a row

template <class Isa, class T>
struct LinearEdges {
  using A = Acc<T>;
  using Scratch = TileScratch<A>;
  static constexpr int W = kLanes<Isa, A>;
  std::int64_t H, D, K, terms, row_size;
  const A* map;  // [terms, H, D]

  explicit LinearEdges(const EdgeAttentionInputs<T>& in)
      : H(in.num_heads),
        D(in.score_channels),
        K(in.edge_channels),
        terms(padded_terms(in.edge_channels)),
        row_size(H * D),
        map(in.edge_map) {}

  // The products of x [D] of head h with rows k to k + 3 of the map.
  std::array<A, 4> products(const T* x, std::int64_t h, std::int64_t k) const {
    std::array<A, 4> total;
    with_lanes<Isa, A>(D, [&](auto lanes) {
      using V = typename decltype(lanes)::V;
      constexpr int width = decltype(lanes)::width;
      const std::int64_t whole = D / width * width;
      const A* const m = map + k * row_size + h * D;
      V sum[4] = {};
      for (std::int64_t d = 0; d < whole; d += width) {
        const V v = load<V>(x + d);
        for (int j = 0; j < 4; ++j) sum[j] += v * load<V>(m + j * row_size + d);
      }
      for (int j = 0; j < 4; ++j) {
        total[j] = sum_lanes<A>(sum[j]);
        for (std::int64_t d = whole; d < D; ++d) total[j] += read(x + d) * m[j * row_size + d];
      }
    });
    return total;
  }

  // u[h, k] = sum_d x[h, d] map[k, h, d].
  __attribute__((noinline)) void transpose_map(const T* x, A* u) const {
    for (std::int64_t h = 0; h < H; ++h) {
      for (std::int64_t k = 0; k < terms; k += 4) {
        const auto four = products(x + h * D, h, k);
        for (int j = 0; j < 4; ++j) u[h * terms + k + j] = four[j];
      }
    }
  }

  // <W^T x, sums> of head h, x [D], sums [K], in the order of add_products.
  __attribute__((noinline)) A product_with_sums(const T* x, std::int64_t h, const A* sums) const {
    A sum = 0;
    for (std::int64_t k = 0; k < K; k += 4) {
      const auto four = products(x, h, k);
      for (int j = 0; j < 4 && k + j < K; ++j) sum += sums[k + j] * four[j];
    }
    return sum;
  }

  // out[h, e] += <u[h], factor e>.
  void add_products(const A* u, A factor, int n, const Scratch& s, A* out) const {
    for (std::int64_t h = 0; h < H; ++h) {
      for_edges<Isa, A>(n, [&](int e, auto zero) {
        using V = decltype(zero);
        V sum{};
        for (std::int64_t k = 0; k < K; ++k) {
          const V of_edge = load<V>(s.edge_attr.data() + k * kTile + e) * factor;
          sum += of_edge * u[h * terms + k];
        }
        A* const to = out + h * kTile + e;
        store(to, V(load<V>(to) + sum));
      });
    }
  }

  // r[h, k] = sum_e p[h, e] e[k]; p may be anything behind the tile.
  void sum_edges(const A* p, int n, const Scratch& s, A* r) const {
    for (std::int64_t h = 0; h < H; ++h) {
      for (std::int64_t k = 0; k < terms; k += 4) {
        const A* const attr = s.edge_attr.data() + k * kTile;
        Vec<A, W> sum[4] = {};
        for_edges<Isa, A>(n, [&](int e, auto zero) {
          using V = decltype(zero);
          const V of_edge = below_lane<A>(n - e, load<V>(p + h * kTile + e));
          for (int j = 0; j < 4; ++j) sum[j] += of_edge * load<V>(attr + j * kTile + e);
        });
        store(r + h * terms + k, sum_lanes_of_four<A, Vec<A, W>>(sum[0], sum[1], sum[2], sum[3]));
      }
    }
  }

  // row[h, d] += sum_k map[k, h, d] r[h, k].
  __attribute__((noinline)) void add_mapped(const A* r, A* row) const {
    for (std::int64_t h = 0; h < H; ++h) {
      for_lanes<Isa, A>(D, [&](std::int64_t d, auto lanes) {
        using V = typename decltype(lanes)::V;
        A* const to = row + h * D + d;
        V sum = load<V>(to);
        for (std::int64_t k = 0; k < K; ++k)
          sum += load<V>(map + k * row_size + h * D + d) * r[h * terms + k];
        store(to, sum);
      });
    }
  }

  // map_grad[k, h, d] += x[h, d] r[h, k], plus g[h, d] q[h, k] where g is not null.
  __attribute__((noinline)) void add_outer(const T* x, const A* r, const T* g, const A* q,
                                           A* map_grad) const {
    for (std::int64_t h = 0; h < H; ++h) {
      for_lanes<Isa, A>(D, [&](std::int64_t d, auto lanes) {
        using V = typename decltype(lanes)::V;
        const V v = load<V>(x + h * D + d), w = g ? load<V>(g + h * D + d) : V{};
        for (std::int64_t k = 0; k < K; ++k) {
          A* const to = map_grad + k * row_size + h * D + d;
          V sum = load<V>(to) + v * r[h * terms + k];
          if (g) sum += w * q[h * terms + k];
          store(to, sum);
        }
      });
    }
  }

  // grad[id[e], k] = sum_h p[h, e] u[h, k], plus q[h, e] v[h, k] where q is not null.
  void write_attr_gradients(const A* p, const A* u, const A* q, const A* v, int n, const Scratch& s,
                            T* grad) const {
    alignas(64) A of_edges[kTile];
    for (std::int64_t k = 0; k < K; ++k) {
      for_edges<Isa, A>(n, [&](int e, auto zero) {
        using V = decltype(zero);
        V sum{};
        for (std::int64_t h = 0; h < H; ++h) {
          sum += load<V>(p + h * kTile + e) * u[h * terms + k];
          if (q) sum += load<V>(q + h * kTile + e) * v[h * terms + k];
        }
        store(of_edges + e, sum);
      });
      for (int e = 0; e < n; ++e) store(grad + s.id[e] * K + k, of_edges[e]);
    }
  }
};

// ---- rows of edges

// Adjacent vectors of a row for which the loops over linear edge features keep rows of the map, or
// of its gradient, in registers; and the number of such rows.
template <class Isa>
inline constexpr int kMapVectors = Isa::vector_bytes == 64 ? 2 : 1;
inline constexpr int kMapRows = 8;

// Calls f(d, Lanes, number of vectors) for the channels of a row, in blocks of kMapVectors vectors
// while there are so many.
template <class Isa, class A, class F>
GAT_HD void for_map_blocks(std::int64_t row_size, F&& f) {
  constexpr std::int64_t W = kLanes<Isa, A> * kMapVectors<Isa>;
  const std::int64_t whole = row_size / W * W;
  for (std::int64_t d = 0; d < whole; d += W)
    f(d, Lanes<Vec<A, kLanes<Isa, A>>, A>{}, std::integral_constant<int, kMapVectors<Isa>>{});
  for_lanes<Isa, A>(row_size - whole, [&](std::int64_t d, auto lanes) {
    f(whole + d, lanes, std::integral_constant<int, 1>{});
  });
}

// Calls f(k, number of rows) for the rows of the map, four or kMapRows at a time.
template <class F>
GAT_HD void for_map_rows(std::int64_t terms, F&& f) {
  std::int64_t k = 0;
  for (; k + kMapRows <= terms; k += kMapRows) f(k, std::integral_constant<int, kMapRows>{});
  if (k < terms) f(k, std::integral_constant<int, 4>{});
}

// rows[e] = base[index[e]] + sum_k map[k] edge_attr[e, k]; the edges are in the inner loop.
template <Ahead Prefetches, class Isa, class T, class A>
__attribute__((noinline)) void add_linear_features(const T* base, const std::int64_t* index,
                                                   const A* map, const A* edge_attr,
                                                   std::int64_t row_size, std::int64_t terms, int n,
                                                   A* rows) {
  for_map_blocks<Isa, A>(row_size, [&](std::int64_t d, auto lanes, auto vectors) {
    using V = typename decltype(lanes)::V;
    constexpr int J = decltype(vectors)::value, W = decltype(lanes)::width;
    for_map_rows(terms, [&](std::int64_t k, auto count) {
      constexpr int N = decltype(count)::value;
      V factor[N][J];
      for (int i = 0; i < N; ++i) {
        for (int j = 0; j < J; ++j) factor[i][j] = load<V>(map + (k + i) * row_size + d + j * W);
      }
      const auto add = [&](int e, V(&sum)[J]) __attribute__((always_inline)) {
        const A* const attr = edge_attr + e * terms + k;
        for (int i = 0; i < N; ++i) {
          for (int j = 0; j < J; ++j) sum[j] += factor[i][j] * attr[i];
        }
        A* const to = rows + e * row_size + d;
        for (int j = 0; j < J; ++j) store(to + j * W, sum[j]);
      };
      V sum[J];
      for (int e = 0; e < n; ++e) {
        if (k == 0) {
          if constexpr (Prefetches == Ahead::yes)
            prefetch(base + index[e + kAhead] * row_size + d, J * W * std::int64_t{sizeof(T)});
          const T* const from = base + index[e] * row_size + d;
          for (int j = 0; j < J; ++j) sum[j] = load<V>(from + j * W);
        } else {
          for (int j = 0; j < J; ++j) sum[j] = load<V>(rows + e * row_size + d + j * W);
        }
        add(e, sum);
      }
    });
  });
}

}  // namespace gat::cpu
