// The destination pass: gradients of which each row belongs to a destination.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backward_pass.h"

namespace gat::cpu {

// Destination pass of a score with a term. It hands the source pass, in CSR order, what that needs
// of each edge: alpha m, and the gradients of the sum of the terms and of b. State of a row:
// gradients of x [H, D] and of a [H].
// Shared state: gradients of w [H, D] and of the map of linear edge features.
template <class Isa, class Score, class T>
struct DestinationPass : BackwardPass<Isa, Score, T> {
  using Base = BackwardPass<Isa, Score, T>;
  using A = typename Base::A;
  using Scratch = typename Base::Scratch;
  using Base::args, Base::in, Base::H, Base::D, Base::F, Base::edge_ids;
  A* edge_factors;  // [E, kEdgeFactors<Score>, H] or null

  DestinationPass(const EdgeAttentionBackward<T>& a, A* factors) : Base(a), edge_factors(factors) {}
  std::int64_t state_size() const { return H * (D + 1); }
  std::int64_t edge_terms() const { return padded_terms(in.edge_channels); }
  std::int64_t att_size() const { return args.grad_att ? H * D : 0; }
  std::int64_t shared_size() const {
    return att_size() + (args.grad_edge_map ? edge_terms() * H * D : 0);
  }
  void init(A* state) const { std::fill(state, state + state_size(), A(0)); }

  // The gradients of x and w, and that of the features of each edge of a tile, through y, and
  // through v if they are added to v too. The last are written to the rows to(e) [H, D].
  template <class To>
  void edge_row_gradients(std::int64_t row, int n, const Scratch& s, A* state, A* shared,
                          const To& to) const {
    const TermInputs<Score, T> inputs{in.query + row * H * D, in.att, in.params};
    const T* const grad_out = args.grad_out + row * H * F;
    with_lanes<Isa, A>(D, [&](auto lanes) {
      for (std::int64_t h = 0; h < H; ++h) {
        const A* const p = s.grad_sum.data() + h * kTile;
        const A* const weight = s.weight.data() + h * kTile;
        for_blocks<A>(lanes, D, [&](auto block, std::int64_t d, int first) {
          using B = decltype(block);
          using V = typename B::V;
          for (int j = 0; j < B::K; ++j) {
            const std::int64_t at = h * D + d + j * B::W;
            const TermFixed<V> fixed = inputs.template fixed<V>(at);
            V sum_x{}, sum_w{}, g{};
            if (in.edge_in_value) g = load<V>(grad_out + at);
            for (int e = 0; e < n; ++e) {
              const V y = load<V>(s.key.data() + e * H * D + at);
              const auto grad =
                  Score::term_vjp(V(V{} + p[e]), fixed.other, y, fixed.weight, in.params);
              sum_x += grad.x, sum_w += grad.w;
              store(to(e) + at, V(in.edge_in_value ? grad.y + g * weight[e] : grad.y));
            }
            const auto add = [&](A* sums, V sum) {
              if constexpr (B::Masked) sum = from_lane<A>(first, sum);
              store(sums + at, V(load<V>(sums + at) + sum));
            };
            if (args.grad_query) add(state, sum_x);
            if (Score::has_weight && args.grad_att) add(shared, sum_w);
          }
        });
      }
    });
  }

  // map_grad[k, d] += sum_e grad[e, d] edge_attr[e, k].
  void add_map_gradients(int n, const Scratch& s, A* map_grad) const {
    const std::int64_t row_size = H * D, terms = edge_terms();
    const A *const grad = s.value.data(), *const edge_attr = s.edge_attr.data();
    for_map_blocks<Isa, A>(row_size, [&](std::int64_t d, auto lanes, auto vectors) {
      using V = typename decltype(lanes)::V;
      constexpr int J = decltype(vectors)::value, W = decltype(lanes)::width;
      for_map_rows(terms, [&](std::int64_t k, auto count) {
        constexpr int N = decltype(count)::value;
        A* const to = map_grad + k * row_size + d;
        V sum[N][J];
        for (int i = 0; i < N; ++i) {
          for (int j = 0; j < J; ++j) sum[i][j] = load<V>(to + i * row_size + j * W);
        }
        for (int e = 0; e < n; ++e) {
          const A* const attr = edge_attr + e * terms + k;
          for (int j = 0; j < J; ++j) {
            const V g = load<V>(grad + e * row_size + d + j * W);
            for (int i = 0; i < N; ++i) sum[i][j] += g * attr[i];
          }
        }
        for (int i = 0; i < N; ++i) {
          for (int j = 0; j < J; ++j) store(to + i * row_size + j * W, sum[i][j]);
        }
      });
    });
  }

  // The gradient of e is the product of the map and that of the features; four edges and four rows
  // of the map at a time.
  void write_edge_attr_gradients(int n, const Scratch& s) const {
    using V = Vec<A, kLanes<Isa, A>>;
    constexpr int W = kLanes<Isa, A>;
    const std::int64_t row_size = H * D, K = in.edge_channels, whole = row_size / W * W;
    for (int e = 0; e < n; e += 4) {
      const A* const grad = s.value.data() + e * row_size;
      for (std::int64_t k = 0; k < K; k += 4) {
        const A* const map = in.edge_map + k * row_size;
        V sum[4][4] = {};
        for (std::int64_t d = 0; d < whole; d += W) {
          V g[4];
          for (int i = 0; i < 4; ++i) g[i] = load<V>(grad + i * row_size + d);
          for (int j = 0; j < 4; ++j) {
            const V m = load<V>(map + j * row_size + d);
            for (int i = 0; i < 4; ++i) sum[i][j] += g[i] * m;
          }
        }
        for (int i = 0; i < 4 && e + i < n; ++i) {
          A total[4];
          store(total, sum_lanes_of_four<A, V>(sum[i][0], sum[i][1], sum[i][2], sum[i][3]));
          for (int j = 0; j < 4 && k + j < K; ++j) {
            for (std::int64_t d = whole; d < row_size; ++d)
              total[j] += grad[i * row_size + d] * map[j * row_size + d];
            store(args.grad_edge_attr + s.id[e + i] * K + k + j, total[j]);
          }
        }
      }
    }
  }

  // The gradients of x and of linear edge features of a score of a dot product.
  void add_gradients_of_row(const LinearEdges<Isa, T>& edges, std::int64_t row, int n, Scratch& s,
                            A* state, A* shared) const {
    const T *const x = in.query + row * H * D, *const g = args.grad_out + row * H * F;
    A *const sums = s.edge_sum.data(), *const map_grad = shared + att_size();
    if (args.grad_edge_attr) {
      edges.write_attr_gradients(s.grad_sum.data(), s.query_map.data(),
                                 in.edge_in_value ? s.weight.data() : nullptr, s.grad_map.data(), n,
                                 s, args.grad_edge_attr);
    }
    if (!args.grad_query && !args.grad_edge_map) return;
    edges.sum_edges(s.grad_sum.data(), n, s, sums);
    if (args.grad_query) edges.add_mapped(sums, state);
    if (!args.grad_edge_map) return;
    A* const value_sums = s.value_sum.data();
    if (in.edge_in_value) edges.sum_edges(s.weight.data(), n, s, value_sums);
    edges.add_outer(x, sums, in.edge_in_value ? g : nullptr, value_sums, map_grad);
  }

  // Writes the factors of the edges from CSR position k on.
  void hand_over(std::int64_t k, int n, const Scratch& s) const {
    constexpr std::int64_t C = kEdgeFactors<Score>;
    A* const to = edge_factors + k * C * H;
    columns_to_rows<Isa, A>(s.weight.data(), n, H, {to, s.own, C * H});
    columns_to_rows<Isa, A>(s.grad_sum.data(), n, H, {to + H, s.own, C * H});
    if constexpr (C == 3)
      columns_to_rows<Isa, A>(s.grad_src_term.data(), n, H, {to + 2 * H, s.own, C * H});
  }

  // The gradients of x, w and of edge features; shared as in the pass.
  void add_edge_gradients(std::int64_t row, int n, Scratch& s, A* state, A* shared) const {
    if (args.grad_edge_feat) {
      edge_row_gradients(row, n, s, state, shared,
                         [&](int e) { return args.grad_edge_feat + s.id[e] * H * D; });
      return;
    }
    edge_row_gradients(row, n, s, state, shared, [&](int e) { return s.value.data() + e * H * D; });
    if (args.grad_edge_attr) write_edge_attr_gradients(n, s);
    if (args.grad_edge_map) add_map_gradients(n, s, shared + att_size());
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
      const LinearEdges<Isa, T> edges(in);
      const bool of_row = kIsProduct<Score> && in.edge_attr;
      if (of_row && in.edge_in_value) {
        edges.transpose_map(g, s.grad_map.data());
        edges.add_products(s.grad_map.data(), this->keep, n, s, s.grad_weight.data());
      }
      const auto nodes = [&](std::int64_t h, int e, auto zero) {
        using V = decltype(zero);
        const A a = Score::has_node_terms ? read(in.dst_term + row * H + h) : A(0);
        return NodeValues<V>{zero + a, load<V>(s.src_term.data() + h * kTile + e),
                             zero + args.delta[row * H + h]};
      };
      this->differentiate(n, s, nodes, state + H * D, nullptr);
      this->write_edge_gradients(n, s);
      if (edge_factors) hand_over(k, n, s);
      if (!of_row && (args.grad_edge_feat || args.grad_edge_attr || args.grad_edge_map)) {
        add_edge_gradients(row, n, s, state, shared);
        continue;
      }
      if (of_row) add_gradients_of_row(edges, row, n, s, state, shared);
      with_key_rows<Score, Ahead::no>(in, n, s, [&](auto rows) {
        if (args.grad_query)
          accumulate_rows<Isa, A>(rows, s.grad_sum.data(), TermGradX<Score, T>{term}, state);
        if constexpr (Score::has_weight) {
          if (args.grad_att)
            accumulate_rows<Isa, A>(rows, s.grad_sum.data(), TermGradW<Score, T>{term}, shared);
        }
      });
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
    if (args.grad_att) store_scaled<Isa, A>(args.grad_att, shared, A(1), H * D);
    if (args.grad_edge_map)
      store_scaled<Isa, A>(args.grad_edge_map, shared + att_size(), A(1), edge_terms() * H * D);
  }
};

}  // namespace gat::cpu
