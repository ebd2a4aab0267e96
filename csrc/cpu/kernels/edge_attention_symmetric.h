// The backward of a score of dot products on a symmetric graph, where x, y and v are one tensor:
// one pass over the rows, which gathers x_j and g_j once for both directions of an edge.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backward_pass.h"
#include "edge_attention_node_terms.h"
#include "for_each_row.h"

namespace gat::cpu {

// An edge of row i and neighbour j stands for two: j -> i, and i -> j, which is at the same
// position in the transpose. Their scores have one dot product, <x_i, x_j>. State of a row:
// gradients of x [H, D], a [H] and b [H].
template <class Isa, class Score, class T>
struct SymmetricPass : BackwardPass<Isa, Score, T>, NothingShared {
  using Base = BackwardPass<Isa, Score, T>;
  using A = typename Base::A;
  using Scratch = typename Base::Scratch;
  using Base::args, Base::in, Base::H, Base::D;
  const A* node_table;  // [N, kNodeColumns, H]

  SymmetricPass(const EdgeAttentionBackward<T>& a, const A* table) : Base(a), node_table(table) {}
  std::int64_t state_size() const { return H * (D + 2); }
  void init(A* state) const { std::fill(state, state + state_size(), A(0)); }

  // The rows of a tile's neighbours in x or g, that are in the cache already.
  RowTile<T, Ahead::no> rows_of(const T* tensor, int n, const Scratch& s) const {
    return {tensor, s.neighbor, n, H, D};
  }

  // The sums of x_i x_j to s.sum, <g_i, x_j> to s.grad_weight and <x_i, g_j> to s.grad_score.
  void multiply(std::int64_t row, int n, Scratch& s) const {
    const T *const x = in.value + row * H * D, *const g = args.grad_out + row * H * D;
    reduce_rows<Isa, A>(
        RowTile<T, Ahead::yes, NodeTermAhead<Score, T>>{
            in.value, s.neighbor, n, H, D, {in, s.neighbor}},
        ScoreTermOfY<Score, T>{{x, in.att, in.params}}, s.sum.data());
    reduce_rows<Isa, A>(rows_of(in.value, n, s), DotWith<T>{g}, s.grad_weight.data());
    reduce_rows<Isa, A>(
        RowTile<T, Ahead::yes, NodeTableAhead<A>>{
            args.grad_out, s.neighbor, n, H, D, {node_table, s.neighbor, H}},
        DotWith<T>{x}, s.grad_score.data());
  }

  // What one direction of an edge adds to the gradients of x, a and b, with its alpha.
  template <class V>
  struct Direction {
    FinishGrad<V> grad;
    V alpha;
  };
  template <class V>
  Direction<V> differentiate_one(V sum, V a, V b, V shift, V scale, V grad_weight, V delta) const {
    const V alpha = exp_of<A, V>(Score::finish(sum, a, b, in.params) - shift) * scale;
    const V ds = alpha * (grad_weight - delta);
    return {Score::finish_vjp(ds, sum, a, b, in.params), alpha};
  }

  // Writes the factor of x_j to s.grad_sum and that of g_j, alpha of i -> j, to s.weight.
  void differentiate(std::int64_t row, int n, A* state, Scratch& s) const {
    for (std::int64_t h = 0; h < H; ++h) {
      const A* const table = node_table + row * kNodeColumns * H + h;
      const A own_b = Score::has_node_terms ? read(in.src_term + row * H + h) : A(0);
      Vec<A, kLanes<Isa, A>> sum_a{}, sum_b{};
      for_edges<Isa, A>(n, [&](int e, auto zero) {
        using V = decltype(zero);
        const std::int64_t at = h * kTile + e;
        const auto of = [at](const auto& column) { return load<V>(column.data() + at); };
        const V sum = of(s.sum), b = Score::has_node_terms ? of(s.src_term) : zero;
        const auto to_row =
            differentiate_one<V>(sum, zero + table[0], b, zero + table[H], zero + table[2 * H],
                                 of(s.grad_weight), zero + table[3 * H]);
        const auto from_row = differentiate_one<V>(sum, of(s.dst_term), zero + own_b, of(s.shift),
                                                   of(s.scale), of(s.grad_score), of(s.delta));
        store(s.grad_sum.data() + at, V(to_row.grad.acc + from_row.grad.acc));
        store(s.weight.data() + at, from_row.alpha);
        if constexpr (Score::has_node_terms) {
          sum_a += below_lane<A>(n - e, to_row.grad.a);
          sum_b += below_lane<A>(n - e, from_row.grad.b);
        }
      });
      state[H * D + h] += sum_lanes<A>(sum_a);
      state[H * (D + 1) + h] += sum_lanes<A>(sum_b);
    }
  }

  void accumulate(std::int64_t row, std::int64_t begin, std::int64_t end, A* state, A*,
                  Scratch& s) const {
    const TermInputs<Score, T> term{in.value + row * H * D, in.att, in.params};
    for (std::int64_t k = begin; k < end; k += kTile) {
      const int n = static_cast<int>(std::min<std::int64_t>(kTile, end - k));
      load_tile(in.csr, k, false, s);
      multiply(row, n, s);
      read_node_table<Isa>(node_table, n, H, s);
      if constexpr (Score::has_node_terms)
        gather_heads<Isa>(in.src_term, s.neighbor, n, H, s.src_term.data());
      differentiate(row, n, state, s);
      accumulate_rows<Isa, A>(rows_of(in.value, n, s), s.grad_sum.data(), TermGradX<Score, T>{term},
                              state);
      accumulate_rows<Isa, A>(rows_of(args.grad_out, n, s), s.weight.data(), Scaled{}, state);
    }
  }

  void merge(A* state, const A* other) const { add_states(state, other, state_size()); }
  void prepare(std::int64_t row) const { prefetch_for_write(args.grad_value + row * H * D, H * D); }
  void finish(std::int64_t row, const A* state) const {
    store_scaled<Isa, A>(args.grad_value + row * H * D, state, A(1), H * D);
    if (args.grad_dst_term)
      store_scaled<Isa, A>(args.grad_dst_term + row * H, state + H * D, A(1), H);
    if (args.grad_src_term)
      store_scaled<Isa, A>(args.grad_src_term + row * H, state + H * (D + 1), A(1), H);
  }
};

}  // namespace gat::cpu
