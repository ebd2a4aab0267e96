// Backward of fused edge attention: see Note [one-pass backward] in ../../core/edge_attention.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "edge_tile.h"
#include "for_each_row.h"

namespace gat::cpu {

template <class Isa, class T>
void edge_attention_delta(const EdgeAttentionInputs<T>& in, const T* grad_out, const Acc<T>* out, const T* grad_weights,
                          const T* weights, const Acc<T>* grad_lse, Acc<T>* delta) {
  using A = Acc<T>;
  const std::int64_t H = in.num_heads, F = in.value_channels;
#pragma omp parallel for num_threads(in.num_threads) schedule(static)
  for (std::int64_t row = 0; row < in.csr.num_rows; ++row) {
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t r = row * H + h;
      A sum = dot_product<Isa, A>(grad_out + r * F, out + r * F, F);
      if (grad_lse) sum -= grad_lse[r];
      if (grad_weights) {
        for (std::int64_t k = in.csr.rowptr[row]; k < in.csr.rowptr[row + 1]; ++k) {
          const std::int64_t e = in.csr.id(k) * H + h;
          sum += read(grad_weights + e) * read(weights + e);
        }
      }
      delta[r] = sum;
    }
  }
}

// What the two passes share.
template <class Isa, class Score, class T>
struct BackwardPass {
  using Scalar = Acc<T>;
  using Scratch = TileScratch<Scalar>;
  using A = Scalar;
  const EdgeAttentionBackward<T>& args;
  const EdgeAttentionInputs<T>& in = args.in;
  std::int64_t H = in.num_heads, D = in.score_channels, F = in.value_channels;

  explicit BackwardPass(const EdgeAttentionBackward<T>& a) : args(a) {}
  Scratch make_scratch() const { return Scratch(H); }

  const T* edge_feat(std::int64_t id, std::int64_t h) const { return in.edge_feat ? in.edge_feat + (id * H + h) * D : nullptr; }

  // dL/d(alpha m) of one edge and head: <g_i, v_j + e_ij> + r_ij.
  A grad_of_weight(std::int64_t dst, std::int64_t src, std::int64_t id, std::int64_t h) const {
    const T* const g = args.grad_out + (dst * H + h) * F;
    A sum = dot_product<Isa, A>(g, in.value + (src * H + h) * F, F);
    if (in.edge_in_value) sum += dot_product<Isa, A>(g, in.edge_feat + (id * H + h) * F, F);
    return args.grad_weights ? sum + read(args.grad_weights + id * H + h) : sum;
  }

  // The gradients of finish for one edge and head; raw is the sum over the term.
  FinishGrad<A> finish_grad(A ds, A raw, std::int64_t dst, std::int64_t src, std::int64_t id, std::int64_t h) const {
    A a{}, b{};
    if constexpr (Score::has_node_terms) {
      a = read(in.dst_term + dst * H + h);
      b = read(in.src_term + src * H + h);
      if (in.edge_term) b += read(in.edge_term + id * H + h);
    }
    return Score::finish_vjp(ds, raw, a, b, in.params);
  }
};

// Destination pass of a score with a term. State of a row: gradient of x [H, D], of a [H]. Shared: gradient of w [H, D].
template <class Isa, class Score, class T>
struct DestinationPass : BackwardPass<Isa, Score, T> {
  using Base = BackwardPass<Isa, Score, T>;
  using A = typename Base::A;
  using Scratch = typename Base::Scratch;
  using Base::args, Base::in, Base::H, Base::D, Base::F;
  using Base::Base;

  std::int64_t state_size() const { return H * (D + 1); }
  std::int64_t shared_size() const { return args.grad_att ? H * D : 0; }
  void init(A* state) const { std::fill(state, state + state_size(), A(0)); }

  void add_term_gradients(A g, A weight, std::int64_t row, std::int64_t src, std::int64_t id, std::int64_t h, A* grad_x,
                          A* grad_w) const {
    const T* const x = in.query + (row * H + h) * D;
    const T* const y = in.key + (src * H + h) * D;
    const T* const e = this->edge_feat(id, h);
    for_lanes<Isa, A>(D, [&](std::int64_t d, auto lanes) {
      using V = typename decltype(lanes)::V;
      V yd = load<V>(y + d), wd{};
      if (e) yd += load<V>(e + d);
      if constexpr (Score::has_weight) wd = load<V>(in.att + h * D + d);
      const auto grad = Score::term_vjp(V(V{} + g), load<V>(x + d), yd, wd, in.params);
      store(grad_x + d, V(load<V>(grad_x + d) + grad.x));
      if constexpr (Score::has_weight) {
        if (args.grad_att) store(grad_w + h * D + d, V(load<V>(grad_w + h * D + d) + grad.w));
      }
      if (args.grad_edge_feat) {
        V ge = grad.y;
        if (in.edge_in_value) ge += load<V>(args.grad_out + (row * H + h) * F + d) * weight;
        store(args.grad_edge_feat + (id * H + h) * D + d, ge);
      }
    });
  }

  void accumulate(std::int64_t row, std::int64_t begin, std::int64_t end, A* state, A* shared, Scratch& s) const {
    const bool term_gradients = args.grad_query || args.grad_att || args.grad_edge_feat;
    const std::int64_t num_edges = in.csr.num_edges();
    for (std::int64_t k = begin; k < end; k += kTile) {
      const int n = static_cast<int>(std::min<std::int64_t>(kTile, end - k));
      load_tile(in.csr, k, n, s);
      score_tile<Isa, Score, T>(in, row, k, n, s);
      if (in.dropout.active()) draw_multipliers(in.dropout, H, n, s);
      for (std::int64_t h = 0; h < H; ++h) {
        exp_tile<Isa, A>(s.score.data() + h * kTile, safe_lse(args.lse[row * H + h]), n, s.weight.data() + h * kTile);
      }
      for (int e = 0; e < n; ++e) {
        if (in.value != in.key) prefetch_row(in.csr, num_edges, k + e, in.value, H * F);
        for (std::int64_t h = 0; h < H; ++h) {
          const auto t = static_cast<std::size_t>(h * kTile + e);
          const std::int64_t src = s.neighbor[e], id = s.id[e];
          const A multiplier = in.dropout.active() ? s.multiplier[t] : A(1);
          const A alpha = s.weight[t], weight = alpha * multiplier;
          const A ds = alpha * (multiplier * this->grad_of_weight(row, src, id, h) - args.delta[row * H + h]);
          args.edge_grad[(k + e) * H + h] = ds;
          args.edge_weight[(k + e) * H + h] = weight;
          if (args.grad_bias) store(args.grad_bias + id * H + h, ds);
          const auto grad = this->finish_grad(ds, s.sum[t], row, src, id, h);
          state[H * D + h] += grad.a;
          if (term_gradients) add_term_gradients(grad.acc, weight, row, src, id, h, state + h * D, shared);
        }
      }
    }
  }

  void merge(A* state, const A* other) const {
    for (std::int64_t d = 0; d < state_size(); ++d) state[d] += other[d];
  }
  void finish(std::int64_t row, const A* state) const {
    if (args.grad_query) store_scaled<Isa, A>(args.grad_query + row * H * D, state, A(1), H * D);
    if (args.grad_dst_term) store_scaled<Isa, A>(args.grad_dst_term + row * H, state + H * D, A(1), H);
  }
  void finish_shared(const A* shared) const { store_scaled<Isa, A>(args.grad_att, shared, A(1), H * D); }
};

// Source pass of a score with a term. State of a row: gradient of y [H, D], of v [H, F], of b [H].
template <class Isa, class Score, class T>
struct SourcePass : BackwardPass<Isa, Score, T>, NothingShared {
  using Base = BackwardPass<Isa, Score, T>;
  using A = typename Base::A;
  using Scratch = typename Base::Scratch;
  using Base::args, Base::in, Base::H, Base::D, Base::F;
  using Base::Base;

  std::int64_t state_size() const { return H * (D + F + 1); }
  void init(A* state) const { std::fill(state, state + state_size(), A(0)); }

  void add_key_gradients(A ds, std::int64_t dst, std::int64_t row, std::int64_t id, std::int64_t h, A* grad_y, A* grad_b) const {
    const T* const x = in.query + (dst * H + h) * D;
    const T* const y = in.key + (row * H + h) * D;
    const T* const e = this->edge_feat(id, h);
    const T* const w = Score::has_weight ? in.att + h * D : nullptr;
    A raw{};
    if constexpr (Score::has_node_terms) raw = sum_terms<Isa, Score, T>(x, y, e, w, D, in.params);
    const auto grad = this->finish_grad(ds, raw, dst, row, id, h);
    *grad_b += grad.b;
    for_lanes<Isa, A>(D, [&](std::int64_t d, auto lanes) {
      using V = typename decltype(lanes)::V;
      V yd = load<V>(y + d), wd{};
      if (e) yd += load<V>(e + d);
      if constexpr (Score::has_weight) wd = load<V>(w + d);
      const auto term_grad = Score::term_vjp(V(V{} + grad.acc), load<V>(x + d), yd, wd, in.params);
      store(grad_y + d, V(load<V>(grad_y + d) + term_grad.y));
    });
  }

  void accumulate(std::int64_t row, std::int64_t begin, std::int64_t end, A* state, A*, Scratch&) const {
    const CsrView& csr = args.transpose;
    const std::int64_t num_edges = csr.num_edges();
    const bool key_gradients = args.grad_key || args.grad_src_term;
    for (std::int64_t k = begin; k < end; ++k) {
      const std::int64_t dst = csr.col[k], id = csr.id(k), position = args.position[k];
      prefetch_row(csr, num_edges, k, args.grad_out, H * F);
      if (key_gradients) prefetch_row(csr, num_edges, k, in.query, H * D);
      if (k + kPrefetchEdges < num_edges) {
        const std::int64_t next = args.position[k + kPrefetchEdges];
        prefetch(args.edge_grad + next * H, H * static_cast<std::int64_t>(sizeof(A)));
        prefetch(args.edge_weight + next * H, H * static_cast<std::int64_t>(sizeof(A)));
      }
      for (std::int64_t h = 0; h < H; ++h) {
        if (args.grad_value) {
          add_scaled<Isa, A>(state + H * D + h * F, args.edge_weight[position * H + h], args.grad_out + (dst * H + h) * F, F);
        }
        if (key_gradients) {
          add_key_gradients(args.edge_grad[position * H + h], dst, row, id, h, state + h * D, state + H * (D + F) + h);
        }
      }
    }
  }

  void merge(A* state, const A* other) const {
    for (std::int64_t d = 0; d < state_size(); ++d) state[d] += other[d];
  }
  void finish(std::int64_t row, const A* state) const {
    if (args.grad_key) store_scaled<Isa, A>(args.grad_key + row * H * D, state, A(1), H * D);
    if (args.grad_value) store_scaled<Isa, A>(args.grad_value + row * H * F, state + H * D, A(1), H * F);
    if (args.grad_src_term) store_scaled<Isa, A>(args.grad_src_term + row * H, state + H * (D + F), A(1), H);
  }
};

// Source pass of a score without a term. State of a row: gradient of v [H, F], of b [H].
template <class Isa, class Score, class T>
struct TermlessSourcePass : BackwardPass<Isa, Score, T>, NothingShared {
  using Base = BackwardPass<Isa, Score, T>;
  using A = typename Base::A;
  using Scratch = typename Base::Scratch;
  using Base::args, Base::in, Base::H, Base::F;
  using Base::Base;

  std::int64_t state_size() const { return H * (F + 1); }
  void init(A* state) const { std::fill(state, state + state_size(), A(0)); }

  // alpha of a tile of the transpose, into s.weight.
  void recompute_weights(std::int64_t row, std::int64_t begin, int n, Scratch& s) const {
    for (int e = 0; e < n; ++e) {
      const std::int64_t dst = s.neighbor[e], position = args.position[begin + e];
      for (std::int64_t h = 0; h < H; ++h) {
        A& score = s.score[static_cast<std::size_t>(h * kTile + e)];
        A raw;
        score = edge_score<Isa, Score, T>(in, dst, row, s.id[e], h, raw) - safe_lse(args.lse[dst * H + h]);
        if (in.selected && !in.selected[position * H + h]) score = negative_infinity<A>();
      }
    }
    for (std::int64_t h = 0; h < H; ++h) {
      A* const score = s.score.data() + h * kTile;
      std::fill(score + n, score + padded<Isa, A>(n), negative_infinity<A>());
      exp_tile<Isa, A>(score, A(0), n, s.weight.data() + h * kTile);
    }
  }

  void accumulate(std::int64_t row, std::int64_t begin, std::int64_t end, A* state, A*, Scratch& s) const {
    const CsrView& csr = args.transpose;
    const std::int64_t num_edges = csr.num_edges();
    for (std::int64_t k = begin; k < end; k += kTile) {
      const int n = static_cast<int>(std::min<std::int64_t>(kTile, end - k));
      load_tile(csr, k, n, s);
      if (in.dropout.active()) draw_multipliers(in.dropout, H, n, s);
      recompute_weights(row, k, n, s);
      for (int e = 0; e < n; ++e) {
        const std::int64_t dst = s.neighbor[e], id = s.id[e], position = args.position[k + e];
        prefetch_row(csr, num_edges, k + e, args.grad_out, H * F);
        for (std::int64_t h = 0; h < H; ++h) {
          const auto t = static_cast<std::size_t>(h * kTile + e);
          const A multiplier = in.dropout.active() ? s.multiplier[t] : A(1);
          const A alpha = s.weight[t];
          const A ds = alpha * (multiplier * this->grad_of_weight(dst, row, id, h) - args.delta[dst * H + h]);
          const auto grad = this->finish_grad(ds, A(0), dst, row, id, h);
          args.edge_grad[position * H + h] = grad.a;
          state[H * F + h] += grad.b;
          if (args.grad_bias) store(args.grad_bias + id * H + h, ds);
          if (args.grad_edge_term) store(args.grad_edge_term + id * H + h, grad.b);
          if (args.grad_value) add_scaled<Isa, A>(state + h * F, alpha * multiplier, args.grad_out + (dst * H + h) * F, F);
        }
      }
    }
  }

  void merge(A* state, const A* other) const {
    for (std::int64_t d = 0; d < state_size(); ++d) state[d] += other[d];
  }
  void finish(std::int64_t row, const A* state) const {
    if (args.grad_value) store_scaled<Isa, A>(args.grad_value + row * H * F, state, A(1), H * F);
    if (args.grad_src_term) store_scaled<Isa, A>(args.grad_src_term + row * H, state + H * F, A(1), H);
  }
};

// Sums edge_grad [E, H] over the rows of the CSR: the gradient of a. State of a row: [H].
template <class Isa, class T>
struct RowSumPass : NothingShared {
  using Scalar = Acc<T>;
  using A = Scalar;
  struct Scratch {};
  const EdgeAttentionBackward<T>& args;
  std::int64_t H = args.in.num_heads;

  explicit RowSumPass(const EdgeAttentionBackward<T>& a) : args(a) {}
  std::int64_t state_size() const { return H; }
  Scratch make_scratch() const { return {}; }
  void init(A* state) const { std::fill(state, state + H, A(0)); }
  void accumulate(std::int64_t, std::int64_t begin, std::int64_t end, A* state, A*, Scratch&) const {
    for (std::int64_t k = begin; k < end; ++k) {
      for (std::int64_t h = 0; h < H; ++h) state[h] += args.edge_grad[k * H + h];
    }
  }
  void merge(A* state, const A* other) const {
    for (std::int64_t h = 0; h < H; ++h) state[h] += other[h];
  }
  void finish(std::int64_t row, const A* state) const { store_scaled<Isa, A>(args.grad_dst_term + row * H, state, A(1), H); }
};

template <class Isa, class Score, class T>
void edge_attention_backward(const EdgeAttentionBackward<T>& args) {
  const CsrView &csr = args.in.csr, &transpose = args.transpose;
  const int threads = args.in.num_threads;
  const auto by_source = [&](const auto& pass) {
    for_each_row(transpose.rowptr, partition_rows(transpose.rowptr, transpose.num_rows), threads, pass);
  };
  const auto by_destination = [&](const auto& pass) {
    for_each_row(csr.rowptr, partition_rows(csr.rowptr, csr.num_rows), threads, pass);
  };
  if constexpr (Score::has_term) {
    by_destination(DestinationPass<Isa, Score, T>(args));
    if (args.grad_key || args.grad_value || args.grad_src_term) by_source(SourcePass<Isa, Score, T>(args));
  } else {
    by_source(TermlessSourcePass<Isa, Score, T>(args));
    if (args.grad_dst_term) by_destination(RowSumPass<Isa, T>(args));
  }
}

}  // namespace gat::cpu
