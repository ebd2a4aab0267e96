// Base of the two backward passes of fused edge attention: see Note [one-pass backward] in
// ../../core/edge_attention.h.
#pragma once

#include <cstdint>

#include "edge_tile.h"
#include "for_each_row.h"

namespace gat::cpu {

// {a_i, b_j, delta_i} for a vector of edges.
template <class V>
struct NodeValues {
  V a, b, delta;
};

// Base of both passes.
template <class Isa, class Score, class T>
struct BackwardPass {
  using Scalar = Acc<T>;
  using Scratch = TileScratch<Scalar>;
  using A = Scalar;
  const EdgeAttentionBackward<T>& args;
  const EdgeAttentionInputs<T>& in = args.in;
  std::int64_t H = in.num_heads, D = in.score_channels, F = in.value_channels;
  // The factor of the weights that dropout keeps.
  A keep = in.dropout.active() ? static_cast<A>(in.dropout.keep_scale) : A(1);
  bool edge_ids = reads_edges(in) || args.grad_weights || args.grad_bias || args.grad_edge_term;

  explicit BackwardPass(const EdgeAttentionBackward<T>& a) : args(a) {}
  Scratch make_scratch() const { return make_tile_scratch<Score>(in); }

  // From alpha in s.weight, <g, keep v> in s.grad_weight and the sum of the terms in s.sum computes
  // alpha m, ds, and the gradients of the sum and of the node terms. nodes(h, e, V{}) returns
  // {a_i, b_j, delta_i}. Adds the gradients of a and b to the two sums that are not null.
  template <class Nodes>
  void differentiate(int n, Scratch& s, const Nodes& nodes, A* sum_dst_term,
                     A* sum_src_term) const {
    if (args.grad_weights)
      gather_add_heads(args.grad_weights, s.id, n, H, s.grad_weight.data(), keep);
    if (in.dropout.active()) draw_multipliers<Isa>(in.dropout, H, n, s);
    for (std::int64_t h = 0; h < H; ++h) {
      Vec<A, kLanes<Isa, A>> sum_a{}, sum_b{};
      for_edges<Isa, A>(n, [&](int e, auto zero) {
        using V = decltype(zero);
        const std::int64_t at = h * kTile + e;
        const V m = in.dropout.active() ? load<V>(s.multiplier.data() + at) : zero + A(1);
        const V alpha = load<V>(s.weight.data() + at);
        const auto [a, b, delta] = nodes(h, e, zero);
        const V grad_weight = load<V>(s.grad_weight.data() + at);
        const V ds = alpha * (V(m != V{} ? grad_weight : V{}) - delta);
        const auto grad = Score::finish_vjp(ds, load<V>(s.sum.data() + at), a, b, in.params);
        store(s.weight.data() + at, V(alpha * m));
        store(s.grad_score.data() + at, ds);
        if constexpr (Score::has_term) store(s.grad_sum.data() + at, grad.acc);
        if constexpr (Score::has_node_terms) {
          store(s.grad_dst_term.data() + at, grad.a);
          store(s.grad_src_term.data() + at, grad.b);
          sum_a += below_lane<A>(n - e, grad.a);  // lanes beyond the tile may be NaN
          sum_b += below_lane<A>(n - e, grad.b);
        }
      });
      if (sum_dst_term) sum_dst_term[h] += sum_lanes<A>(sum_a);
      if (sum_src_term) sum_src_term[h] += sum_lanes<A>(sum_b);
    }
  }

  void write_edge_gradients(int n, const Scratch& s) const {
    if (args.grad_bias) scatter_heads<Isa>(s.grad_score.data(), s.id, n, H, args.grad_bias);
    if (args.grad_edge_term)
      scatter_heads<Isa>(s.grad_src_term.data(), s.id, n, H, args.grad_edge_term);
  }
};

}  // namespace gat::cpu
