// The destination pass: gradients of which each row belongs to a destination.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backward_pass.h"

namespace gat::cpu {

// Destination pass of a score with a term. State of a row: gradients of x [H, D] and of a [H].
// Shared state: gradient of w [H, D].
template <class Isa, class Score, class T>
struct DestinationPass : BackwardPass<Isa, Score, T> {
  using Base = BackwardPass<Isa, Score, T>;
  using A = typename Base::A;
  using Scratch = typename Base::Scratch;
  using Base::args, Base::in, Base::H, Base::D, Base::F, Base::edge_ids;
  using Base::Base;

  std::int64_t state_size() const { return H * (D + 1); }
  std::int64_t shared_size() const { return args.grad_att ? H * D : 0; }
  void init(A* state) const { std::fill(state, state + state_size(), A(0)); }

  // The gradient of the edge features of one tile: through y, and through v if the features are
  // added to v too.
  void write_edge_feat_gradients(std::int64_t row, int n, const Scratch& s) const {
    for (int e = 0; e < n; ++e) {
      for (std::int64_t h = 0; h < H; ++h) {
        const auto at = static_cast<std::size_t>(h * kTile + e);
        const A g = s.grad_sum[at], weight = in.edge_in_value ? s.weight[at] : A(0);
        const T* const x = in.query + (row * H + h) * D;
        const A* const y = s.key.data() + (e * H + h) * D;
        for_lanes<Isa, A>(D, [&](std::int64_t d, auto lanes) {
          using V = typename decltype(lanes)::V;
          V w{};
          if constexpr (Score::has_weight) w = load<V>(in.att + h * D + d);
          V grad = Score::term_vjp(V(V{} + g), load<V>(x + d), load<V>(y + d), w, in.params).y;
          if (in.edge_in_value) grad += load<V>(args.grad_out + (row * H + h) * F + d) * weight;
          store(args.grad_edge_feat + (s.id[e] * H + h) * D + d, grad);
        });
      }
    }
  }

  void accumulate(std::int64_t row, std::int64_t begin, std::int64_t end, A* state, A* shared,
                  Scratch& s) const {
    const TermInputs<Score, T> term{in.query + row * H * D, in.att, in.params};
    for (std::int64_t k = begin; k < end; k += kTile) {
      const int n = static_cast<int>(std::min<std::int64_t>(kTile, end - k));
      load_tile(in.csr, k, edge_ids, s);
      score_tile<Isa, Score, T>(in, row, k, n, s);
      weights_tile<Isa>(args.softmax + row * H, H, n, s);
      const T* const g = args.grad_out + row * H * F;
      with_value_rows<Isa, Score>(in, n, s, [&](auto rows) {
        if (in.dropout.active()) {
          reduce_rows<Isa, A>(rows, DotWithScaled<T>{g, this->keep}, s.grad_weight.data());
        } else {
          reduce_rows<Isa, A>(rows, DotWith<T>{g}, s.grad_weight.data());
        }
      });
      const auto nodes = [&](std::int64_t h, int e, auto zero) {
        using V = decltype(zero);
        const A a = Score::has_node_terms ? read(in.dst_term + row * H + h) : A(0);
        return NodeValues<V>{zero + a, load<V>(s.src_term.data() + h * kTile + e),
                             zero + args.delta[row * H + h]};
      };
      this->differentiate(n, s, nodes, state + H * D, nullptr);
      this->write_edge_gradients(n, s);
      with_key_rows<Score, Ahead::no>(in, n, s, [&](auto rows) {
        if (args.grad_query)
          accumulate_rows<Isa, A>(rows, s.grad_sum.data(), TermGradX<Score, T>{term}, state);
        if constexpr (Score::has_weight) {
          if (args.grad_att)
            accumulate_rows<Isa, A>(rows, s.grad_sum.data(), TermGradW<Score, T>{term}, shared);
        }
      });
      if (args.grad_edge_feat) write_edge_feat_gradients(row, n, s);
    }
  }

  void merge(A* state, const A* other) const { add_states(state, other, state_size()); }
  void prepare(std::int64_t row) const {
    if (args.grad_query) prefetch_for_write(args.grad_query + row * H * D, H * D);
  }
  void finish(std::int64_t row, const A* state) const {
    if (args.grad_query) store_scaled<Isa, A>(args.grad_query + row * H * D, state, A(1), H * D);
    if (args.grad_dst_term)
      store_scaled<Isa, A>(args.grad_dst_term + row * H, state + H * D, A(1), H);
  }
  void finish_shared(const A* shared) const {
    store_scaled<Isa, A>(args.grad_att, shared, A(1), H * D);
  }
};

}  // namespace gat::cpu
