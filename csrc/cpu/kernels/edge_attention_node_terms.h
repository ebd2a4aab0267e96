// The backward of a score without a term: a pass over the sources, which computes all gradients but
// that of a, and the sum of that one over the rows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backward_pass.h"

namespace gat::cpu {

// Copies a_i, the softmax and delta_i of every destination to one table.
template <class T>
void fill_node_table(const EdgeAttentionBackward<T>& args, Acc<T>* table) {
  using A = Acc<T>;
  const std::int64_t num_dst = args.in.csr.num_rows, H = args.in.num_heads;
  const int threads = threads_for(16 * num_dst * H, num_dst, args.in.num_threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (std::int64_t i = 0; i < num_dst; ++i) {
    A* const to = table + i * kNodeColumns * H;
    for (std::int64_t h = 0; h < H; ++h) {
      to[h] = args.in.dst_term ? read(args.in.dst_term + i * H + h) : A(0);
      to[H + h] = args.softmax[i * H + h].shift;
      to[2 * H + h] = args.softmax[i * H + h].scale;
      to[3 * H + h] = args.delta[i * H + h];
    }
  }
}

// Prefetches the rows of the following neighbours.
template <class A>
struct NodeTableAhead {
  const A* table;
  const std::int64_t* neighbor;
  std::int64_t num_heads;
  GAT_HD void operator()(int e) const {
    const std::int64_t size = kNodeColumns * num_heads;
    prefetch(table + neighbor[e + kAhead] * size, size * static_cast<std::int64_t>(sizeof(A)));
  }
};

// Reads the rows of the neighbours of a tile to s.dst_term, s.shift, s.scale and s.delta.
template <class Isa, class A>
GAT_HD void read_node_table(const A* table, int n, std::int64_t H, TileScratch<A>& s) {
  // The stores of a few edges fill the store buffer: without the prefetch, no more loads would be
  // in flight.
  const std::int64_t size = kNodeColumns * H;
  rows_to_columns<Isa, A>({table, s.neighbor, size, 8, size}, n, H, s.dst_term.data());
  rows_to_columns<Isa, A>({table + H, s.neighbor, size}, n, H, s.shift.data());
  rows_to_columns<Isa, A>({table + 2 * H, s.neighbor, size}, n, H, s.scale.data());
  rows_to_columns<Isa, A>({table + 3 * H, s.neighbor, size}, n, H, s.delta.data());
}

// State of a row: gradients of v [H, F] and b [H].
template <class Isa, class Score, class T>
struct NodeTermPass : BackwardPass<Isa, Score, T>, NothingShared {
  using Base = BackwardPass<Isa, Score, T>;
  using A = typename Base::A;
  using Scratch = typename Base::Scratch;
  using Base::args, Base::in, Base::H, Base::F, Base::edge_ids;
  const A* node_table;  // [N_dst, kNodeColumns, H]

  NodeTermPass(const EdgeAttentionBackward<T>& a, const A* table) : Base(a), node_table(table) {}
  std::int64_t state_size() const { return H * (F + 1); }
  void init(A* state) const { std::fill(state, state + state_size(), A(0)); }

  // Calls f(position in [H, kTile], V{}) for the vectors of all heads.
  template <class Fn>
  void for_all(int n, Fn&& f) const {
    for (std::int64_t h = 0; h < H; ++h)
      for_edges<Isa, A>(n, [&](int e, auto zero) { f(h * kTile + e, zero); });
  }

  // Writes alpha of a tile of the transpose to s.weight.
  void recompute_weights(std::int64_t row, int n, Scratch& s) const {
    for (std::int64_t h = 0; h < H; ++h) {
      std::fill_n(s.src_term.data() + h * kTile, padded<Isa, A>(n),
                  read(in.src_term + row * H + h));
    }
    if (in.edge_term) gather_add_heads(in.edge_term, s.id, n, H, s.src_term.data());
    for_all(n, [&](std::int64_t at, auto zero) {
      using V = decltype(zero);
      const V a = load<V>(s.dst_term.data() + at), b = load<V>(s.src_term.data() + at);
      store(s.score.data() + at, Score::finish(V{}, a, b, in.params));
    });
    if (in.bias) gather_add_heads(in.bias, s.id, n, H, s.score.data());
    mask_scores<Isa>(in, n, s, [&s](int e) { return s.position[e]; });
    for_all(n, [&](std::int64_t at, auto zero) {
      using V = decltype(zero);
      const V exponential =
          exp_of<A, V>(load<V>(s.score.data() + at) - load<V>(s.shift.data() + at));
      store(s.weight.data() + at, V(exponential * load<V>(s.scale.data() + at)));
    });
  }

  // Writes <g_i, v_j> to s.grad_weight.
  void differentiate_weights(std::int64_t row, int n, Scratch& s) const {
    const RowTile<T, Ahead::yes, NodeTableAhead<A>> rows{
        args.grad_out, s.neighbor, n, H, F, {node_table, s.neighbor, H}};
    reduce_rows<Isa, A>(rows, DotWith<T>{in.value + row * H * F, this->keep}, s.grad_weight.data());
  }

  void accumulate(std::int64_t row, std::int64_t begin, std::int64_t end, A* state, A*,
                  Scratch& s) const {
    for (std::int64_t k = begin; k < end; k += kTile) {
      const int n = static_cast<int>(std::min<std::int64_t>(kTile, end - k));
      load_tile(args.transpose, k, edge_ids, s);
      if (in.selected) widen<kTile>(args.position, k, args.transpose.num_edges(), s.position);
      read_node_table<Isa>(node_table, n, H, s);
      recompute_weights(row, n, s);
      differentiate_weights(row, n, s);
      const auto nodes = [&](std::int64_t h, int e, auto zero) {
        using V = decltype(zero);
        const std::int64_t at = h * kTile + e;
        return NodeValues<V>{load<V>(s.dst_term.data() + at), load<V>(s.src_term.data() + at),
                             load<V>(s.delta.data() + at)};
      };
      this->differentiate(n, s, nodes, nullptr, state + H * F);
      this->write_edge_gradients(n, s);
      if (args.edge_grad)
        scatter_heads<Isa>(s.grad_dst_term.data(), s.own, n, H, args.edge_grad + k * H);
      if (args.grad_value) {
        accumulate_rows<Isa, A>(RowTile<T, Ahead::no>{args.grad_out, s.neighbor, n, H, F},
                                s.weight.data(), Scaled{}, state);
      }
    }
  }

  void merge(A* state, const A* other) const { add_states(state, other, state_size()); }
  void prepare(std::int64_t row) const {
    if (args.grad_value) prefetch_for_write(args.grad_value + row * H * F, H * F);
  }
  void finish(std::int64_t row, const A* state) const {
    if (args.grad_value) store_scaled<Isa, A>(args.grad_value + row * H * F, state, A(1), H * F);
    if (args.grad_src_term)
      store_scaled<Isa, A>(args.grad_src_term + row * H, state + H * F, A(1), H);
  }
};

// The gradient of a: sums edge_grad [E, H], which is in the order of the transpose, over the rows
// of the CSR. State of a row: [H].
//
// The source pass writes edge_grad in order, and this pass reads it out of order, because reading a
// cache line out of order costs less than writing one. That needs the inverse of the permutation,
// which the constructor computes.
template <class Isa, class T, class Index>
struct DstTermPass : NothingShared {
  using Scalar = Acc<T>;
  using A = Scalar;
  struct Scratch {};
  const EdgeAttentionBackward<T>& args;
  std::int64_t H = args.in.num_heads, num_edges = args.in.csr.num_edges();
  Index* inverse;  // [E] position in the transpose

  DstTermPass(const EdgeAttentionBackward<T>& a, Index* memory) : args(a), inverse(memory) {
    const int threads = threads_for(16 * num_edges, num_edges, args.in.num_threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t k = 0; k < num_edges; ++k) inverse[args.position[k]] = static_cast<Index>(k);
  }
  std::int64_t state_size() const { return H; }
  Scratch make_scratch() const { return {}; }
  void init(A* state) const { std::fill(state, state + H, A(0)); }
  void accumulate(std::int64_t, std::int64_t begin, std::int64_t end, A* state, A*,
                  Scratch&) const {
    const auto edge = [this](std::int64_t k) { return args.edge_grad + inverse[k] * H; };
    with_heads(H, [&](auto heads) {
      for (std::int64_t k = begin; k < end; ++k) {
        prefetch(edge(std::min(k + 2 * kAhead, num_edges - 1)),
                 heads * static_cast<std::int64_t>(sizeof(A)));
        const A* const from = edge(k);
        for (std::int64_t h = 0; h < heads; ++h) state[h] += from[h];
      }
    });
  }
  void merge(A* state, const A* other) const { add_states(state, other, H); }
  void finish(std::int64_t row, const A* state) const {
    store_scaled<Isa, A>(args.grad_dst_term + row * H, state, A(1), H);
  }
};

}  // namespace gat::cpu
