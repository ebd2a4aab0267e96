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

// {a_i, b_j, delta_i} for a vector of edges.
template <class V>
struct NodeValues {
  V a, b, delta;
};

// What the passes share.
template <class Isa, class Score, class T>
struct BackwardPass {
  using Scalar = Acc<T>;
  using Scratch = TileScratch<Scalar>;
  using A = Scalar;
  const EdgeAttentionBackward<T>& args;
  const EdgeAttentionInputs<T>& in = args.in;
  std::int64_t H = in.num_heads, D = in.score_channels, F = in.value_channels;
  bool edge_ids = reads_edges(in) || args.grad_weights || args.grad_bias || args.grad_edge_term;

  explicit BackwardPass(const EdgeAttentionBackward<T>& a) : args(a) {}
  Scratch make_scratch() const { return make_tile_scratch(in); }

  // From alpha in s.weight, dL/d(alpha m) in s.grad_weight and the sum in s.sum: alpha m, ds, and the gradients of the sum and
  // of the node terms. nodes(h, e, V{}) gives {a_i, b_j, delta_i}. Adds up the gradients of a and b where the sums are not null.
  template <class Nodes>
  void differentiate(int n, Scratch& s, const Nodes& nodes, A* sum_dst_term, A* sum_src_term) const {
    if (args.grad_weights) gather_add_heads(args.grad_weights, s.id, n, H, s.grad_weight.data());
    if (in.dropout.active()) draw_multipliers<Isa>(in.dropout, H, n, s);
    for (std::int64_t h = 0; h < H; ++h) {
      Vec<A, kLanes<Isa, A>> sum_a{}, sum_b{};
      for_edges<Isa, A>(n, [&](int e, auto zero) {
        using V = decltype(zero);
        const std::int64_t at = h * kTile + e;
        const V m = in.dropout.active() ? load<V>(s.multiplier.data() + at) : zero + A(1);
        const V alpha = load<V>(s.weight.data() + at);
        const auto [a, b, delta] = nodes(h, e, zero);
        const V ds = alpha * (m * load<V>(s.grad_weight.data() + at) - delta);
        const auto grad = Score::finish_vjp(ds, load<V>(s.sum.data() + at), a, b, in.params);
        store(s.weight.data() + at, V(alpha * m));
        store(s.grad_score.data() + at, ds);
        if constexpr (Score::has_term) store(s.grad_sum.data() + at, grad.acc);
        if constexpr (Score::has_node_terms) {
          store(s.grad_dst_term.data() + at, grad.a);
          store(s.grad_src_term.data() + at, grad.b);
          sum_a += below_lane<A>(n - e, grad.a);  // what is after the tile may be NaN
          sum_b += below_lane<A>(n - e, grad.b);
        }
      });
      if (sum_dst_term) sum_dst_term[h] += sum_lanes<A>(sum_a);
      if (sum_src_term) sum_src_term[h] += sum_lanes<A>(sum_b);
    }
  }

  void write_edge_gradients(int n, const Scratch& s) const {
    if (args.grad_bias) scatter_heads(s.grad_score.data(), s.id, n, H, args.grad_bias);
    if (args.grad_edge_term) scatter_heads(s.grad_src_term.data(), s.id, n, H, args.grad_edge_term);
  }

  void add_states(A* state, const A* other, std::int64_t size) const {
    for (std::int64_t d = 0; d < size; ++d) state[d] += other[d];
  }
};

// Destination pass of a score with a term. State of a row: gradient of x [H, D], of a [H]. Shared: gradient of w [H, D].
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

  // The gradient of the edge features of one tile: that of y, and where v has them too, of v.
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

  void accumulate(std::int64_t row, std::int64_t begin, std::int64_t end, A* state, A* shared, Scratch& s) const {
    const TermInputs<Score, T> term{in.query + row * H * D, in.att, in.params};
    for (std::int64_t k = begin; k < end; k += kTile) {
      const int n = static_cast<int>(std::min<std::int64_t>(kTile, end - k));
      load_tile(in.csr, k, edge_ids, s);
      score_tile<Isa, Score, T>(in, row, k, n, s);
      for (std::int64_t h = 0; h < H; ++h) {
        exp_tile<Isa, A>(s.score.data() + h * kTile, safe_lse(args.lse[row * H + h]), n, s.weight.data() + h * kTile);
      }
      with_value_rows<Isa, Score>(
          in, n, s, [&](auto rows) { reduce_rows<Isa, A>(rows, DotWith<T>{args.grad_out + row * H * F}, s.grad_weight.data()); });
      const auto nodes = [&](std::int64_t h, int e, auto zero) {
        using V = decltype(zero);
        const A a = Score::has_node_terms ? read(in.dst_term + row * H + h) : A(0);
        return NodeValues<V>{zero + a, load<V>(s.src_term.data() + h * kTile + e), zero + args.delta[row * H + h]};
      };
      this->differentiate(n, s, nodes, state + H * D, nullptr);
      this->write_edge_gradients(n, s);
      with_key_rows<Score, Ahead::no>(in, n, s, [&](auto rows) {
        if (args.grad_query) accumulate_rows<Isa, A>(rows, s.grad_sum.data(), TermGradX<Score, T>{term}, state);
        if constexpr (Score::has_weight) {
          if (args.grad_att) accumulate_rows<Isa, A>(rows, s.grad_sum.data(), TermGradW<Score, T>{term}, shared);
        }
      });
      if (args.grad_edge_feat) write_edge_feat_gradients(row, n, s);
    }
  }

  void merge(A* state, const A* other) const { this->add_states(state, other, state_size()); }
  void prepare(std::int64_t row) const {
    if (args.grad_query) prefetch_for_write(args.grad_query + row * H * D, H * D);
  }
  void finish(std::int64_t row, const A* state) const {
    if (args.grad_query) store_scaled<Isa, A>(args.grad_query + row * H * D, state, A(1), H * D);
    if (args.grad_dst_term) store_scaled<Isa, A>(args.grad_dst_term + row * H, state + H * D, A(1), H);
  }
  void finish_shared(const A* shared) const { store_scaled<Isa, A>(args.grad_att, shared, A(1), H * D); }
};

// Puts a_i, lse_i and delta_i of every destination side by side.
template <class T>
void fill_node_table(const EdgeAttentionBackward<T>& args, Acc<T>* table) {
  using A = Acc<T>;
  const std::int64_t num_dst = args.in.csr.num_rows, H = args.in.num_heads;
#pragma omp parallel for num_threads(args.in.num_threads) schedule(static)
  for (std::int64_t i = 0; i < num_dst; ++i) {
    A* const to = table + i * kNodeColumns * H;
    for (std::int64_t h = 0; h < H; ++h) {
      to[h] = args.in.dst_term ? read(args.in.dst_term + i * H + h) : A(0);
      to[H + h] = safe_lse(args.lse[i * H + h]);
      to[2 * H + h] = args.delta[i * H + h];
    }
  }
}

// Source pass. State of a row: gradient of y [H, D], of v [H, F], of b [H]. Nothing of an edge is kept from the destination pass:
// its score is computed again from the rows that are gathered anyway.
template <class Isa, class Score, class T>
struct SourcePass : BackwardPass<Isa, Score, T>, NothingShared {
  using Base = BackwardPass<Isa, Score, T>;
  using A = typename Base::A;
  using Scratch = typename Base::Scratch;
  using Base::args, Base::in, Base::H, Base::D, Base::F, Base::edge_ids;
  const A* node_table;  // [N_dst, kNodeColumns, H]

  SourcePass(const EdgeAttentionBackward<T>& a, const A* table) : Base(a), node_table(table) {}
  std::int64_t state_size() const { return H * (D + F + 1); }
  void init(A* state) const { std::fill(state, state + state_size(), A(0)); }

  void read_nodes(int n, Scratch& s) const {
    with_heads(H, [&](auto heads) {
      for (int e = 0; e < n; ++e) {
        const A* const from = node_table + s.neighbor[e] * kNodeColumns * heads;
        for (std::int64_t h = 0; h < heads; ++h) {
          const auto at = static_cast<std::size_t>(h * kTile + e);
          s.dst_term[at] = from[h], s.lse[at] = from[heads + h], s.delta[at] = from[2 * heads + h];
        }
      }
    });
  }

  // Calls f(position in [H, kTile], V{}) for the vectors of all heads.
  template <class Fn>
  void for_all(int n, Fn&& f) const {
    for (std::int64_t h = 0; h < H; ++h) for_edges<Isa, A>(n, [&](int e, auto zero) { f(h * kTile + e, zero); });
  }

  // With edge features, y + e and v + e are other vectors for each edge: calls f(e, h, channel, lanes, y + e, w).
  template <class Fn>
  void for_edge_terms(std::int64_t row, int n, const Scratch& s, Fn&& f) const {
    for (int e = 0; e < n; ++e) {
      for (std::int64_t h = 0; h < H; ++h) {
        const T *const y = in.key + (row * H + h) * D, *const feat = in.edge_feat + (s.id[e] * H + h) * D;
        for_lanes<Isa, A>(D, [&](std::int64_t d, auto lanes) {
          using V = typename decltype(lanes)::V;
          V w{};
          if constexpr (Score::has_weight) w = load<V>(in.att + h * D + d);
          f(e, h, d, lanes, V(load<V>(y + d) + load<V>(feat + d)), w);
        });
      }
    }
  }

  // The sums over the term, into s.sum.
  void sum_terms(std::int64_t row, int n, Scratch& s) const {
    if (in.edge_feat) {
      std::fill(s.sum.begin(), s.sum.end(), A(0));
      for_edge_terms(row, n, s, [&](int e, std::int64_t h, std::int64_t d, auto lanes, auto y, auto w) {
        using V = typename decltype(lanes)::V;
        const V x = load<V>(in.query + (s.neighbor[e] * H + h) * D + d);
        s.sum[static_cast<std::size_t>(h * kTile + e)] += sum_lanes<A>(V(Score::term(x, y, w, in.params)));
      });
    } else {
      const ScoreTermOfX<Score, T> term{{in.key + row * H * D, in.att, in.params}};
      reduce_rows<Isa, A>(RowTile<T, Ahead::yes>{in.query, s.neighbor, n, H, D}, term, s.sum.data());
    }
  }

  // alpha of a tile of the transpose, into s.weight.
  void recompute_weights(std::int64_t row, int n, Scratch& s) const {
    if constexpr (Score::has_term) sum_terms(row, n, s);
    if constexpr (Score::has_node_terms) {
      for (std::int64_t h = 0; h < H; ++h) {
        std::fill_n(s.src_term.data() + h * kTile, padded<Isa, A>(n), read(in.src_term + row * H + h));
      }
      if (in.edge_term) gather_add_heads(in.edge_term, s.id, n, H, s.src_term.data());
    }
    for_all(n, [&](std::int64_t at, auto zero) {
      using V = decltype(zero);
      const V a = load<V>(s.dst_term.data() + at), b = load<V>(s.src_term.data() + at);
      store(s.score.data() + at, Score::finish(load<V>(s.sum.data() + at), a, b, in.params));
    });
    if (in.bias) gather_add_heads(in.bias, s.id, n, H, s.score.data());
    mask_scores<Isa>(in, n, s, [&s](int e) { return s.position[e]; });
    for_all(n, [&](std::int64_t at, auto zero) {
      using V = decltype(zero);
      store(s.weight.data() + at, exp_of<A, V>(load<V>(s.score.data() + at) - load<V>(s.lse.data() + at)));
    });
  }

  // <g_i, v_j>, or <g_i, v_j + e_ij>, into s.grad_weight.
  void differentiate_weights(std::int64_t row, int n, Scratch& s) const {
    const auto node_ahead = [&](int e) {
      prefetch(node_table + s.neighbor[e + kAhead] * kNodeColumns * H, kNodeColumns * H * static_cast<std::int64_t>(sizeof(A)));
    };
    const RowTile<T, Ahead::yes, decltype(node_ahead)> rows{args.grad_out, s.neighbor, n, H, F, node_ahead};
    reduce_rows<Isa, A>(rows, DotWith<T>{in.value + row * H * F}, s.grad_weight.data());
    if (!in.edge_in_value) return;
    for (int e = 0; e < n; ++e) {
      for (std::int64_t h = 0; h < H; ++h) {
        s.grad_weight[static_cast<std::size_t>(h * kTile + e)] +=
            dot_product<Isa, A>(args.grad_out + (s.neighbor[e] * H + h) * F, in.edge_feat + (s.id[e] * H + h) * F, F);
      }
    }
  }

  void add_key_gradients(std::int64_t row, int n, const Scratch& s, A* grad_y) const {
    if (in.edge_feat) {
      for_edge_terms(row, n, s, [&](int e, std::int64_t h, std::int64_t d, auto lanes, auto y, auto w) {
        using V = typename decltype(lanes)::V;
        const V x = load<V>(in.query + (s.neighbor[e] * H + h) * D + d);
        const V g = V{} + s.grad_sum[static_cast<std::size_t>(h * kTile + e)];
        A* const to = grad_y + h * D + d;
        store(to, V(load<V>(to) + Score::term_vjp(g, x, y, w, in.params).y));
      });
    } else {
      const TermGradY<Score, T> term{{in.key + row * H * D, in.att, in.params}};
      accumulate_rows<Isa, A>(RowTile<T, Ahead::no>{in.query, s.neighbor, n, H, D}, s.grad_sum.data(), term, grad_y);
    }
  }

  void accumulate(std::int64_t row, std::int64_t begin, std::int64_t end, A* state, A*, Scratch& s) const {
    for (std::int64_t k = begin; k < end; k += kTile) {
      const int n = static_cast<int>(std::min<std::int64_t>(kTile, end - k));
      load_tile(args.transpose, k, edge_ids, s);
      if (in.selected) widen<kTile>(args.position, k, args.transpose.num_edges(), s.position);
      read_nodes(n, s);
      recompute_weights(row, n, s);
      differentiate_weights(row, n, s);
      const auto nodes = [&](std::int64_t h, int e, auto zero) {
        using V = decltype(zero);
        const std::int64_t at = h * kTile + e;
        return NodeValues<V>{load<V>(s.dst_term.data() + at), load<V>(s.src_term.data() + at), load<V>(s.delta.data() + at)};
      };
      this->differentiate(n, s, nodes, nullptr, state + H * (D + F));
      if constexpr (!Score::has_term) {
        this->write_edge_gradients(n, s);
        if (args.edge_grad) copy_heads(s.grad_dst_term.data(), n, H, args.edge_grad + k * H);
      }
      if (args.grad_value) {
        accumulate_rows<Isa, A>(RowTile<T, Ahead::no>{args.grad_out, s.neighbor, n, H, F}, s.weight.data(), Scaled{},
                                state + H * D);
      }
      if constexpr (Score::has_term) {
        if (args.grad_key) add_key_gradients(row, n, s, state);
      }
    }
  }

  void merge(A* state, const A* other) const { this->add_states(state, other, state_size()); }
  void prepare(std::int64_t row) const {
    if (args.grad_key) prefetch_for_write(args.grad_key + row * H * D, H * D);
    if (args.grad_value) prefetch_for_write(args.grad_value + row * H * F, H * F);
  }
  // Where y or x is v, the gradients are one: that of x is there already.
  void finish(std::int64_t row, const A* state) const {
    const bool key_is_value = Score::has_term && args.grad_key && args.grad_key == args.grad_value;
    const bool query_is_value = Score::has_term && args.grad_query && args.grad_query == args.grad_value;
    if (args.grad_key && !key_is_value) store_scaled<Isa, A>(args.grad_key + row * H * D, state, A(1), H * D);
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
    if (args.grad_src_term) store_scaled<Isa, A>(args.grad_src_term + row * H, state + H * (D + F), A(1), H);
  }
};

// The gradient of a: sums edge_grad [E, H], in the order of the transpose, over the rows of the CSR. State of a row: [H].
//
// Each edge is read from where its source left it: a line that is read out of order costs less than one that is written so. The
// inverse of the permutation costs a sixteenth of that, and is made here.
template <class Isa, class T, class Index>
struct DstTermPass : NothingShared {
  using Scalar = Acc<T>;
  using A = Scalar;
  struct Scratch {};
  const EdgeAttentionBackward<T>& args;
  std::int64_t H = args.in.num_heads, num_edges = args.in.csr.num_edges();
  Index* inverse;  // [E] position in the transpose

  DstTermPass(const EdgeAttentionBackward<T>& a, Index* memory) : args(a), inverse(memory) {
#pragma omp parallel for num_threads(args.in.num_threads) schedule(static)
    for (std::int64_t k = 0; k < num_edges; ++k) inverse[args.position[k]] = static_cast<Index>(k);
  }
  std::int64_t state_size() const { return H; }
  Scratch make_scratch() const { return {}; }
  void init(A* state) const { std::fill(state, state + H, A(0)); }
  void accumulate(std::int64_t, std::int64_t begin, std::int64_t end, A* state, A*, Scratch&) const {
    const auto edge = [this](std::int64_t k) { return args.edge_grad + inverse[k] * H; };
    with_heads(H, [&](auto heads) {
      for (std::int64_t k = begin; k < end; ++k) {
        prefetch(edge(std::min(k + 2 * kAhead, num_edges - 1)), heads * static_cast<std::int64_t>(sizeof(A)));
        const A* const from = edge(k);
        for (std::int64_t h = 0; h < heads; ++h) state[h] += from[h];
      }
    });
  }
  void merge(A* state, const A* other) const {
    for (std::int64_t h = 0; h < H; ++h) state[h] += other[h];
  }
  void prepare(std::int64_t) const {}
  void finish(std::int64_t row, const A* state) const { store_scaled<Isa, A>(args.grad_dst_term + row * H, state, A(1), H); }
};

template <class Isa, class Score, class T>
void edge_attention_backward(const EdgeAttentionBackward<T>& args, const BackwardScratch<Acc<T>>& scratch) {
  const CsrView &csr = args.in.csr, &transpose = args.transpose;
  const int threads = args.in.num_threads;
  const auto by_source = [&](const auto& pass) {
    for_each_row(transpose.rowptr, partition_rows(transpose.rowptr, transpose.num_rows), threads, pass);
  };
  const auto by_destination = [&](const auto& pass) {
    for_each_row(csr.rowptr, partition_rows(csr.rowptr, csr.num_rows), threads, pass);
  };
  const bool of_edges = args.grad_bias || args.grad_edge_term || args.grad_edge_feat;
  const bool of_sources = args.grad_key || args.grad_value || args.grad_src_term;
  if constexpr (Score::has_term) {
    if (args.grad_query || args.grad_att || args.grad_dst_term || of_edges) by_destination(DestinationPass<Isa, Score, T>(args));
  }
  if (of_sources || (!Score::has_term && (args.grad_dst_term || of_edges))) {
    fill_node_table(args, scratch.node_table);
    by_source(SourcePass<Isa, Score, T>(args, scratch.node_table));
  }
  if constexpr (!Score::has_term) {
    if (args.grad_dst_term && args.position.wide) {
      by_destination(DstTermPass<Isa, T, std::int64_t>(args, static_cast<std::int64_t*>(scratch.inverse)));
    } else if (args.grad_dst_term) {
      by_destination(DstTermPass<Isa, T, std::int32_t>(args, static_cast<std::int32_t*>(scratch.inverse)));
    }
  }
}

}  // namespace gat::cpu
