// The source pass of a score with a term: gradients of which each row belongs to a source.
#pragma once

#include <algorithm>
#include <cstdint>

#include "edge_tile.h"
#include "for_each_row.h"

namespace gat::cpu {

// State of a row: gradients of y [H, D], v [H, F] and b [H].
template <class Isa, class Score, class T>
struct SourcePass : NothingShared {
  using Scalar = Acc<T>;
  using A = Scalar;
  using Scratch = TileScratch<A>;
  const EdgeAttentionBackward<T>& args;
  const EdgeAttentionInputs<T>& in = args.in;
  const A* edge_factors;  // [E, kEdgeFactors<Score>, H], from the destination pass
  std::int64_t H = in.num_heads, D = in.score_channels, F = in.value_channels;
  // The gradient of the term reads y, of which each edge has its own.
  bool edge_rows = has_edge_rows<Score>(in) && !kIsProduct<Score>;

  SourcePass(const EdgeAttentionBackward<T>& a, const A* factors)
      : args(a), edge_factors(factors) {}
  Scratch make_scratch() const { return make_tile_scratch<Score>(in); }
  std::int64_t state_size() const { return H * (D + F + 1); }
  void init(A* state) const { std::fill(state, state + state_size(), A(0)); }

  void read_factors(std::int64_t k, int n, Scratch& s) const {
    constexpr std::int64_t C = kEdgeFactors<Score>;
    widen<kTile + kAhead>(args.position, k, args.transpose.num_edges(), s.position);
    rows_to_columns<Isa, A>({edge_factors, s.position, C * H, kAhead, C * H}, n, H,
                            s.weight.data());
    rows_to_columns<Isa, A>({edge_factors + H, s.position, C * H}, n, H, s.grad_sum.data());
    if constexpr (C == 3)
      rows_to_columns<Isa, A>({edge_factors + 2 * H, s.position, C * H}, n, H,
                              s.grad_src_term.data());
  }

  void add_key_gradients(std::int64_t row, int n, Scratch& s, A* grad_y) const {
    const RowTile<T, Ahead::yes> xs{in.query, s.neighbor, n, H, D};
    const T* const y = in.key + row * H * D;
    if (!edge_rows) {
      accumulate_rows<Isa, A>(xs, s.grad_sum.data(), TermGradY<Score, T>{{y, in.att, in.params}},
                              grad_y);
      return;
    }
    const std::int64_t own_row[kTile] = {};
    if (in.edge_attr) load_edge_attr<Isa, false>(in, n, s);
    add_edge_features<Isa, Ahead::no>(in, y, own_row, H * D, n, s, s.key.data());
    accumulate_pairs<Isa, A>(xs, RowTile<A, Ahead::no>{s.key.data(), s.own, n, H, D},
                             s.grad_sum.data(), PairGradY<Score, T>{in.att, in.params}, grad_y);
  }

  void accumulate(std::int64_t row, std::int64_t begin, std::int64_t end, A* state, A*,
                  Scratch& s) const {
    for (std::int64_t k = begin; k < end; k += kTile) {
      const int n = static_cast<int>(std::min<std::int64_t>(kTile, end - k));
      load_tile(args.transpose, k, edge_rows, s);
      read_factors(k, n, s);
      if (args.grad_key) add_key_gradients(row, n, s, state);
      if (args.grad_value) {
        accumulate_rows<Isa, A>(RowTile<T, Ahead::yes>{args.grad_out, s.neighbor, n, H, F},
                                s.weight.data(), Scaled{}, state + H * D);
      }
      if (args.grad_src_term) {
        for (std::int64_t h = 0; h < H; ++h)
          state[H * (D + F) + h] += sum_column<Isa, A>(s.grad_src_term.data() + h * kTile, n);
      }
    }
  }

  void merge(A* state, const A* other) const { add_states(state, other, state_size()); }
  void prepare(std::int64_t row) const {
    if (args.grad_key) prefetch_for_write(args.grad_key + row * H * D, H * D);
    if (args.grad_value) prefetch_for_write(args.grad_value + row * H * F, H * F);
  }
  // Where y or x is v, their gradients are summed: the destination pass has written that of x
  // already.
  void finish(std::int64_t row, const A* state) const {
    const bool key_is_value = args.grad_key && args.grad_key == args.grad_value;
    const bool query_is_value = args.grad_query && args.grad_query == args.grad_value;
    if (args.grad_key && !key_is_value)
      store_scaled<Isa, A>(args.grad_key + row * H * D, state, A(1), H * D);
    if (args.grad_value) {
      T* const to = args.grad_value + row * H * F;
      const A *const of_value = state + H * D, *const of_key = state;
      for_lanes<Isa, A>(H * F, [&](std::int64_t d, auto lanes) {
        using V = typename decltype(lanes)::V;
        V sum = load<V>(of_value + d);
        if (key_is_value) sum += load<V>(of_key + d);
        if (query_is_value) sum += load<V>(to + d);
        store(to + d, sum);
      });
    }
    if (args.grad_src_term)
      store_scaled<Isa, A>(args.grad_src_term + row * H, state + H * (D + F), A(1), H);
  }
};

}  // namespace gat::cpu
