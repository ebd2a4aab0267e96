// The loops over the feature rows of a tile of edges, which take nearly all of the time:
//
//   reduce_rows       out[h, e]  = sum_d term(row_e[h, d])
//   accumulate_rows   acc[h, d] += sum_e term(p[h, e], row_e[h, d])
//
// They process a tile head by head, with the vectors of one head in registers and the edges in the
// inner loop: loads of many edges are then in flight at once, and a row is prefetched kAhead edges
// before it is read.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "../simd.h"
#include "../tile.h"

namespace gat::cpu {

struct Nothing {
  GAT_HD void operator()(int) const {}
};

// The number of lanes to which a tile of n edges is padded.
template <class Isa, class A>
GAT_HD int padded(int n) {
  constexpr int W = kLanes<Isa, A>;
  return (n + W - 1) / W * W;
}

// Calls f(e, V) for each vector of lanes of a tile of n edges.
template <class Isa, class A, class F>
GAT_HD void for_edges(int n, F&& f) {
  for (int e = 0; e < padded<Isa, A>(n); e += kLanes<Isa, A>) f(e, Vec<A, kLanes<Isa, A>>{});
}

// Whether a loop prefetches the following rows. Where several loops read the rows of a tile, only
// the first one does.
enum class Ahead { no, yes };

// The rows base[index[e]] of [H, C] elements of the edges e of a tile; index has kAhead more
// elements. also(e) is called once per edge, to prefetch other data.
template <class R, Ahead Prefetches_, class Also = Nothing>
struct RowTile {
  using Element = R;
  static constexpr Ahead Prefetches = Prefetches_;
  const R* base;
  const std::int64_t* index;
  int n;
  std::int64_t num_heads, channels;
  Also also{};
};

// K adjacent vectors. Masked: the first lanes also belong to the block before, which processes
// them.
template <class V_, class A, int K_, bool Masked_>
struct Block {
  using V = V_;
  static constexpr int K = K_, W = kLanesOf<V_, A>;
  static constexpr bool Masked = Masked_;
};

// Calls f(Lanes) with the widest vector that the channels fill: that of the machine, halves of it
// down to 4 lanes, or single elements.
template <class Isa, class A, class F, int W = kLanes<Isa, A>>
GAT_HD void with_lanes(std::int64_t channels, F&& f) {
  if constexpr (W == 1) {
    f(Lanes<A, A>{});
  } else {
    constexpr int Next = W > 4 ? W / 2 : 1;
    if (channels >= W) {
      f(Lanes<Vec<A, W>, A>{});
    } else {
      with_lanes<Isa, A, F&, Next>(channels, f);
    }
  }
}

// Divides [0, channels) into blocks of four, two and one vectors, and calls f(Block, first channel,
// number of lanes to leave out). Where the channels do not fill the last vector, it overlaps the
// block before.
template <class A, class L, class F>
GAT_HD void for_blocks(L, std::int64_t channels, F&& f) {
  using V = typename L::V;
  constexpr int W = L::width;
  std::int64_t d = 0;
  for (; d + 4 * W <= channels; d += 4 * W) f(Block<V, A, 4, false>{}, d, 0);
  if (d + 2 * W <= channels) f(Block<V, A, 2, false>{}, d, 0), d += 2 * W;
  if (d + W <= channels) f(Block<V, A, 1, false>{}, d, 0), d += W;
  if constexpr (W > 1) {
    if (d < channels) f(Block<V, A, 1, true>{}, channels - W, static_cast<int>(d - (channels - W)));
  }
}

template <class A, class V>
GAT_HD auto lane_numbers() {
  Vec<std::conditional_t<sizeof(A) == 8, std::int64_t, std::int32_t>, kLanesOf<V, A>> lane;
  for (int i = 0; i < kLanesOf<V, A>; ++i) lane[i] = i;
  return lane;
}

// v in the lanes from `first` on, 0 before.
template <class A, class V>
GAT_HD V from_lane(int first, V v) {
  return lane_numbers<A, V>() >= first ? v : V{};
}

// v in the lanes before `end`, 0 from there on.
template <class A, class V>
GAT_HD V below_lane(int end, V v) {
  return lane_numbers<A, V>() < end ? v : V{};
}

// The sums of the lanes of four vectors, as one vector.
template <class A, class V>
GAT_HD Vec<A, 4> sum_lanes_of_four(V a, V b, V c, V d) {
  constexpr int W = kLanesOf<V, A>;
  if constexpr (W == 4) {
    const V ab =
        __builtin_shufflevector(a, b, 0, 4, 2, 6) + __builtin_shufflevector(a, b, 1, 5, 3, 7);
    const V cd =
        __builtin_shufflevector(c, d, 0, 4, 2, 6) + __builtin_shufflevector(c, d, 1, 5, 3, 7);
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) +
           __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
  } else if constexpr (W == 2) {
    using Half = Vec<A, 4>;
    const Half ab = __builtin_shufflevector(a, b, 0, 1, 2, 3),
               cd = __builtin_shufflevector(c, d, 0, 1, 2, 3);
    return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) +
           __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
  } else {
    using Half = Vec<A, W / 2>;
    struct Halves {
      Half low, high;
    };
    const auto fold = [](V v) {
      const auto halves = bitcast<Halves>(v);
      return Half(halves.low + halves.high);
    };
    return sum_lanes_of_four<A, Half>(fold(a), fold(b), fold(c), fold(d));
  }
}

template <class Rows, class B>
GAT_HD void prefetch_block(const Rows& rows, std::int64_t row_size, std::int64_t at, int e, B) {
  if constexpr (Rows::Prefetches == Ahead::yes) {
    constexpr auto bytes = static_cast<std::int64_t>(B::K * B::W * sizeof(typename Rows::Element));
    prefetch(rows.base + rows.index[e + kAhead] * row_size + at, bytes);
  }
}

// acc[h, d] += sum_e term(p[h, e], row_e[h, d]). A term has
//   fixed<V>(at)          what it reads at [h, d] whatever the edge
//   operator()(p, row, fixed)
template <class Isa, class A, class Rows, class Term>
__attribute__((noinline)) void accumulate_rows(const Rows& rows, const A* p, const Term& term,
                                               A* acc) {
  const std::int64_t C = rows.channels, row_size = rows.num_heads * C;
  with_lanes<Isa, A>(C, [&](auto lanes) {
    for (std::int64_t h = 0; h < rows.num_heads; ++h) {
      const A* const weight = p + h * kTile;
      for_blocks<A>(lanes, C, [&](auto block, std::int64_t d, int first) {
        using B = decltype(block);
        using V = typename B::V;
        const std::int64_t at = h * C + d;
        V sum[B::K];
        decltype(term.template fixed<V>(at)) fixed[B::K];
        for (int j = 0; j < B::K; ++j) {
          sum[j] = B::Masked ? V{} : load<V>(acc + at + j * B::W);
          fixed[j] = term.template fixed<V>(at + j * B::W);
        }
        for (int e = 0; e < rows.n; ++e) {
          if (at == 0) rows.also(e);
          prefetch_block(rows, row_size, at, e, block);
          const auto* const row = rows.base + rows.index[e] * row_size + at;
          const A w = weight[e];
          for (int j = 0; j < B::K; ++j) sum[j] += term(w, load<V>(row + j * B::W), fixed[j]);
        }
        for (int j = 0; j < B::K; ++j) {
          if constexpr (B::Masked)
            sum[j] = from_lane<A>(first, sum[j]) + load<V>(acc + at + j * B::W);
          store(acc + at + j * B::W, sum[j]);
        }
      });
    }
  });
}

// out[h, e] = sum_d term(row_e[h, d]); a term is as above, without p. Results behind the tile, up
// to a multiple of four edges, are undefined, and the index of the tile must be valid up to there.
template <class Isa, class A, class Rows, class Term>
__attribute__((noinline)) void reduce_rows(const Rows& rows, const Term& term, A* out) {
  const std::int64_t C = rows.channels, row_size = rows.num_heads * C;
  if (C == 0) std::fill(out, out + rows.num_heads * kTile, A(0));  // empty sums
  with_lanes<Isa, A>(C, [&](auto lanes) {
    for (std::int64_t h = 0; h < rows.num_heads; ++h) {
      A* const head_out = out + h * kTile;
      for_blocks<A>(lanes, C, [&](auto block, std::int64_t d, int first) {
        using B = decltype(block);
        using V = typename B::V;
        const std::int64_t at = h * C + d;
        decltype(term.template fixed<V>(at)) fixed[B::K];
        for (int j = 0; j < B::K; ++j) fixed[j] = term.template fixed<V>(at + j * B::W);
        const auto sum_row = [&](int e) __attribute__((always_inline)) {
          if (at == 0) rows.also(e);
          prefetch_block(rows, row_size, at, e, block);
          const auto* const row = rows.base + rows.index[e] * row_size + at;
          V sum{};
          for (int j = 0; j < B::K; ++j) sum += term(load<V>(row + j * B::W), fixed[j]);
          if constexpr (B::Masked) sum = from_lane<A>(first, sum);
          return sum;
        };
        if constexpr (B::W == 1) {
          for (int e = 0; e < rows.n; ++e)
            head_out[e] = d > 0 ? head_out[e] + sum_row(e) : sum_row(e);
        } else {
          for (int e = 0; e < rows.n; e += 4) {
            Vec<A, 4> sums =
                sum_lanes_of_four<A, V>(sum_row(e), sum_row(e + 1), sum_row(e + 2), sum_row(e + 3));
            if (d > 0) sums += load<Vec<A, 4>>(head_out + e);
            store(head_out + e, sums);
          }
        }
      });
    }
  });
}

// out[h, e] = sum_d term(x_e[h, d], y_e[h, d]), in the order of reduce_rows: where a row of x or y
// is the same for all edges, the results are bitwise identical. It is a separate loop because one
// loop for any number of tiles takes 3 % longer in the backward with edge features.
template <class Isa, class A, class X, class Y, class Term>
__attribute__((noinline)) void reduce_pairs(const X& xs, const Y& ys, const Term& term, A* out) {
  const std::int64_t C = xs.channels, row_size = xs.num_heads * C;
  if (C == 0) std::fill(out, out + xs.num_heads * kTile, A(0));
  with_lanes<Isa, A>(C, [&](auto lanes) {
    for (std::int64_t h = 0; h < xs.num_heads; ++h) {
      A* const head_out = out + h * kTile;
      for_blocks<A>(lanes, C, [&](auto block, std::int64_t d, int first) {
        using B = decltype(block);
        using V = typename B::V;
        const std::int64_t at = h * C + d;
        decltype(term.template fixed<V>(at)) fixed[B::K];
        for (int j = 0; j < B::K; ++j) fixed[j] = term.template fixed<V>(at + j * B::W);
        const auto sum_row = [&](int e) __attribute__((always_inline)) {
          if (at == 0) xs.also(e);
          prefetch_block(xs, row_size, at, e, block);
          const auto* const x = xs.base + xs.index[e] * row_size + at;
          const auto* const y = ys.base + ys.index[e] * row_size + at;
          V sum{};
          for (int j = 0; j < B::K; ++j)
            sum += term(load<V>(x + j * B::W), load<V>(y + j * B::W), fixed[j]);
          if constexpr (B::Masked) sum = from_lane<A>(first, sum);
          return sum;
        };
        if constexpr (B::W == 1) {
          for (int e = 0; e < xs.n; ++e)
            head_out[e] = d > 0 ? head_out[e] + sum_row(e) : sum_row(e);
        } else {
          for (int e = 0; e < xs.n; e += 4) {
            Vec<A, 4> sums =
                sum_lanes_of_four<A, V>(sum_row(e), sum_row(e + 1), sum_row(e + 2), sum_row(e + 3));
            if (d > 0) sums += load<Vec<A, 4>>(head_out + e);
            store(head_out + e, sums);
          }
        }
      });
    }
  });
}

// acc[h, d] += sum_e term(p[h, e], x_e[h, d], y_e[h, d]).
template <class Isa, class A, class X, class Y, class Term>
__attribute__((noinline)) void accumulate_pairs(const X& xs, const Y& ys, const A* p,
                                                const Term& term, A* acc) {
  const std::int64_t C = xs.channels, row_size = xs.num_heads * C;
  with_lanes<Isa, A>(C, [&](auto lanes) {
    for (std::int64_t h = 0; h < xs.num_heads; ++h) {
      const A* const weight = p + h * kTile;
      for_blocks<A>(lanes, C, [&](auto block, std::int64_t d, int first) {
        using B = decltype(block);
        using V = typename B::V;
        const std::int64_t at = h * C + d;
        V sum[B::K];
        decltype(term.template fixed<V>(at)) fixed[B::K];
        for (int j = 0; j < B::K; ++j) {
          sum[j] = B::Masked ? V{} : load<V>(acc + at + j * B::W);
          fixed[j] = term.template fixed<V>(at + j * B::W);
        }
        for (int e = 0; e < xs.n; ++e) {
          prefetch_block(xs, row_size, at, e, block);
          const auto* const x = xs.base + xs.index[e] * row_size + at;
          const auto* const y = ys.base + ys.index[e] * row_size + at;
          const A w = weight[e];
          for (int j = 0; j < B::K; ++j)
            sum[j] += term(w, load<V>(x + j * B::W), load<V>(y + j * B::W), fixed[j]);
        }
        for (int j = 0; j < B::K; ++j) {
          if constexpr (B::Masked)
            sum[j] = from_lane<A>(first, sum[j]) + load<V>(acc + at + j * B::W);
          store(acc + at + j * B::W, sum[j]);
        }
      });
    }
  });
}

}  // namespace gat::cpu
