// Backward of fused edge attention: see Note [one-pass backward] in ../core/edge_attention.h, and
// edge_attention.h for the differences from the CPU.
//
// Bytes: the destination pass gathers a row of y and of v for each edge, the source pass a row of x
// and of g, with softmax and delta of the destination; without a term, the source pass gathers g
// only and writes one number per edge and head.
#pragma once

#include "attention.cuh"

namespace gat::cuda {

template <class T>
struct BackwardArgs {
  Attention<T> attention;
  EdgeAttentionBackward<T> to;
  Acc<T>* att_parts = nullptr;  // [slots, H, D] parts of the gradient of w; null where not needed
  // [E, 2, H] in CSR order: alpha m and the gradient of the sum of the terms of each edge, for the
  // gradients of linear edge features; or null
  Acc<T>* edge_factors = nullptr;
};

// <g, c (v + e)> + c r of a few edges, where g or v belongs to the row and c is the factor of the
// weights that dropout keeps: see Note [summation order].
template <class T, int C, bool RowIsDst>
struct WeightGrads {
  using A = Acc<T>;
  static constexpr int n = kEdges<T, C>;
  Fragment<T, C> own, gathered[n];
  A grad[n];

  __device__ __forceinline__ static const T* own_rows(const BackwardArgs<T>& args) {
    return RowIsDst ? args.to.grad_out : args.attention.in.value;
  }

  __device__ __forceinline__ void begin_row(const BackwardArgs<T>& args, const Task& task) {
    const Attention<T>& a = args.attention;
    own = load_own<T, C>(own_rows(args), a.value, task, own_block(task, a.value_blocks));
  }

  __device__ __forceinline__ void compute(const BackwardArgs<T>& args, const Walk& walk,
                                          const Task& task, const EdgeBatch<n>& batch) {
    const Attention<T>& a = args.attention;
#pragma unroll
    for (int u = 0; u < n; ++u) grad[u] = A(0);
    const A keep = a.in.dropout.active() ? static_cast<A>(a.in.dropout.keep_scale) : A(1);
    const auto add_block = [&](int block) {
#pragma unroll
      for (int u = 0; u < n; ++u) {
#pragma unroll
        for (int c = 0; c < C; ++c) add_pack(a, walk, task, batch, block, u, c, keep);
      }
    };
    for_each_block(a.value, a.value_blocks, task, batch, own_rows(args),
                   RowIsDst ? a.in.value : args.to.grad_out, own, gathered, add_block);
    task.team.sum(grad);
#pragma unroll
    for (int u = 0; u < n; ++u) {
      if (args.to.grad_weights && batch.valid(u)) {
        const A r = widen(args.to.grad_weights[a.at(walk.csr.id(batch.first + u), task.head)]);
        grad[u] += keep * r;
      }
    }
  }

  __device__ __forceinline__ void add_pack(const Attention<T>& a, const Walk& walk,
                                           const Task& task, const EdgeBatch<n>& batch, int block,
                                           int u, int c, A keep) {
    const EdgeRow<T, C> e(a, walk.csr, task, a.value, batch.first + u,
                          a.in.edge_in_value && batch.valid(u), block, c);
#pragma unroll
    for (int i = 0; i < kPack<T>; ++i) {
      const A g = RowIsDst ? own(c, i) : gathered[u](c, i);
      A v = RowIsDst ? gathered[u](c, i) : own(c, i);
      if (kGeneral<C>) v += e[i];
      grad[u] += g * (v * keep);
    }
  }
};

// Stores the gradients of edge k: of its bias, and of its term, which is added to b.
template <class T>
__device__ __forceinline__ void store_edge(const BackwardArgs<T>& args, const Walk& walk,
                                           const Task& task, std::int64_t k, Acc<T> ds,
                                           Acc<T> grad_edge_term) {
  const EdgeAttentionBackward<T>& to = args.to;
  if ((!to.grad_bias && !to.grad_edge_term) || task.block != 0 || task.team.lane != 0) return;
  const std::int64_t at = args.attention.at(walk.csr.id(k), task.head);
  if (to.grad_bias) to.grad_bias[at] = narrow<T>(ds);
  if (to.grad_edge_term) to.grad_edge_term[at] = narrow<T>(grad_edge_term);
}

// ---- destination pass, for scores with a term: gradients of x, a and w, and of the tensors of
// edges

template <class T, int C>
struct DestinationSink {
  using A = Acc<T>;
  static constexpr int kChannels = C * kPack<T>;
  struct State {
    static constexpr int kWords = 1 + kChannels;
    A term, query[kChannels];

    template <class F>
    __device__ __forceinline__ void each(F&& f) {
      f(term);
#pragma unroll
      for (int i = 0; i < kChannels; ++i) f(query[i]);
    }
  };

  T* grad_query = nullptr;     // [N_dst, H, D]
  T* grad_dst_term = nullptr;  // [N_dst, H]
  std::int64_t num_heads = 1;
  Channels score;

  __device__ __forceinline__ void init(State& state) const {
    state.each([](A& word) { word = A(0); });
  }
  __device__ __forceinline__ void merge(State& state, const State& other) const {
    state.term += other.term;
#pragma unroll
    for (int i = 0; i < kChannels; ++i) state.query[i] += other.query[i];
  }
  __device__ __forceinline__ void finish(std::int64_t row, int head, int block, const Team& team,
                                         const State& state) const {
    const std::int64_t r = row * num_heads + head;
    if (grad_query) store_fragment<T, C>(grad_query, r, score, team, block, state.query);
    if (grad_dst_term && block == 0 && team.lane == 0) grad_dst_term[r] = narrow<T>(state.term);
  }
};

template <class Score, class T, int C>
struct DestinationPass {
  using A = Acc<T>;
  using Sink = DestinationSink<T, C>;
  using State = typename Sink::State;
  using Scores = EdgeScores<Score, T, C, true>;
  using Grads = WeightGrads<T, C, true>;
  static constexpr int kUnroll = kEdges<T, C>, kMinBlocks = kBackwardBlocksAtOnce<Score, T, C>;
  struct Shared {
    A att[Score::has_weight ? Sink::kChannels : 1] = {};
  };

  BackwardArgs<T> args;
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State& state, Shared& shared) const {
    const Attention<T>& a = args.attention;
    const Walk walk{a.in.csr, {}};
    Scores scores;
    Grads grads;
    scores.begin_row(a, task);
    grads.begin_row(args, task);
    const RowSoftmax<A> softmax = args.to.softmax[a.at(task.row, task.head)];
    const A delta = args.to.delta[a.at(task.row, task.head)];
    for_each_batch<kUnroll>(a.in.csr, task, [&](const EdgeBatch<kUnroll>& batch) {
      scores.compute(a, walk, task, batch);
      grads.compute(args, walk, task, batch);
      A multiplier[kUnroll];
      dropout_multipliers(a.in.dropout, a.in.csr, task, batch, multiplier);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (!batch.valid(u)) continue;
        const A alpha = std::exp(scores.score[u] - softmax.shift) * softmax.scale;
        const A ds = alpha * ((multiplier[u] != A(0) ? grads.grad[u] : A(0)) - delta);
        const FinishGrad<A> grad = scores.finish_grad(a, walk, task, batch, u, ds);
        state.term += grad.a;
        store_edge(args, walk, task, batch.first + u, ds, grad.b);
        store_factors(task, batch.first + u, alpha * multiplier[u], grad.acc);
        add_term_gradients(walk, task, batch, u, grad.acc, alpha * multiplier[u], scores, grads.own,
                           state, shared);
      }
    });
  }

  __device__ __forceinline__ void store_factors(const Task& task, std::int64_t k, A weight,
                                                A grad) const {
    if (!args.edge_factors || task.block != 0 || task.team.lane != 0) return;
    A* const to = args.edge_factors + k * 2 * sink.num_heads + task.head;
    to[0] = weight, to[sink.num_heads] = grad;
  }

  __device__ __forceinline__ void add_term_gradients(const Walk& walk, const Task& task,
                                                     const EdgeBatch<kUnroll>& batch, int u, A grad,
                                                     A weight, const Scores& scores,
                                                     const Fragment<T, C>& g, State& state,
                                                     Shared& shared) const {
    const Attention<T>& a = args.attention;
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const EdgeRow<T, C> e(a, walk.csr, task, a.score, batch.first + u, true, task.block, c);
      Pack<T> w, grad_edge;
      if constexpr (Score::has_weight)
        w = load_pack<T, C>(a.in.att, task.head, a.score, task.team, task.block, c);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) {
        A y = scores.y(u, c, i);
        if (kGeneral<C>) y += e[i];
        const TermGrad<A> t = Score::term_vjp(grad, scores.x(u, c, i), y, w[i], a.in.params);
        state.query[c * kPack<T> + i] += t.x;
        if constexpr (Score::has_weight) shared.att[c * kPack<T> + i] += t.w;
        if (kGeneral<C>) grad_edge.set(i, a.in.edge_in_value ? t.y + g(c, i) * weight : t.y);
      }
      if (kGeneral<C> && args.to.grad_edge_feat) {
        store_pack<T, C>(args.to.grad_edge_feat, a.at(walk.csr.id(batch.first + u), task.head),
                         a.score, task.team, task.block, c, grad_edge);
      }
    }
  }

  __device__ __forceinline__ void store_shared(const Task& task, bool valid, Shared& shared) const {
    if constexpr (Score::has_weight) {
      if (!args.att_parts) return;
      for (int distance = task.team.lanes; distance < task.team.lanes * task.team.parts;
           distance *= 2) {
#pragma unroll
        for (int i = 0; i < Sink::kChannels; ++i)
          shared.att[i] += shuffle_xor(shared.att[i], distance);
      }
      if (!valid || task.team.part != 0) return;
      const Channels& score = args.attention.score;
      A* const part = args.att_parts + args.attention.at(task.slot, task.head) * score.count;
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const int first = first_channel<T, C>(task.team, task.block, c);
#pragma unroll
        for (int i = 0; i < kPack<T>; ++i) {
          if (first + i < score.count) part[first + i] = shared.att[c * kPack<T> + i];
        }
      }
    }
  }
};

// ---- source pass: gradients of y, b and v; without a term also of the tensors of edges

template <class T, int C, bool has_term>
struct SourceSink {
  using A = Acc<T>;
  static constexpr int kChannels = C * kPack<T>;
  static constexpr int kKeyChannels = has_term ? kChannels : 0;
  struct State {
    static constexpr int kWords = 1 + kChannels + kKeyChannels;
    A term, value[kChannels], key[has_term ? kChannels : 1];

    template <class F>
    __device__ __forceinline__ void each(F&& f) {
      f(term);
#pragma unroll
      for (int i = 0; i < kChannels; ++i) f(value[i]);
#pragma unroll
      for (int i = 0; i < kKeyChannels; ++i) f(key[i]);
    }
  };

  T* grad_key = nullptr;       // [N_src, H, D]
  T* grad_value = nullptr;     // [N_src, H, F]
  T* grad_src_term = nullptr;  // [N_src, H]
  std::int64_t num_heads = 1;
  Channels score, value;

  __device__ __forceinline__ void init(State& state) const {
    state.each([](A& word) { word = A(0); });
  }
  __device__ __forceinline__ void merge(State& state, const State& other) const {
    state.term += other.term;
#pragma unroll
    for (int i = 0; i < kChannels; ++i) state.value[i] += other.value[i];
#pragma unroll
    for (int i = 0; i < kKeyChannels; ++i) state.key[i] += other.key[i];
  }
  __device__ __forceinline__ void finish(std::int64_t row, int head, int block, const Team& team,
                                         const State& state) const {
    const std::int64_t r = row * num_heads + head;
    if (grad_value) store_fragment<T, C>(grad_value, r, value, team, block, state.value);
    if constexpr (has_term) {
      if (grad_key) store_fragment<T, C>(grad_key, r, score, team, block, state.key);
    }
    if (grad_src_term && block == 0 && team.lane == 0) grad_src_term[r] = narrow<T>(state.term);
  }
};

template <class Score, class T, int C>
struct SourcePass : NothingShared {
  using A = Acc<T>;
  using Sink = SourceSink<T, C, Score::has_term>;
  using State = typename Sink::State;
  using Scores = EdgeScores<Score, T, C, false>;
  using Grads = WeightGrads<T, C, false>;
  static constexpr int kUnroll = kEdges<T, C>, kMinBlocks = kBackwardBlocksAtOnce<Score, T, C>;

  BackwardArgs<T> args;
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State& state, Nothing&) const {
    const Attention<T>& a = args.attention;
    const Walk walk{args.to.transpose, args.to.position};
    Scores scores;
    Grads grads;
    scores.begin_row(a, task);
    grads.begin_row(args, task);
    for_each_batch<kUnroll>(walk.csr, task, [&](const EdgeBatch<kUnroll>& batch) {
      scores.compute(a, walk, task, batch);
      grads.compute(args, walk, task, batch);
      A multiplier[kUnroll];
      dropout_multipliers(a.in.dropout, walk.csr, task, batch, multiplier);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (!batch.valid(u)) continue;
        const std::int64_t dst = a.at(batch.neighbor[u], task.head);
        const RowSoftmax<A> softmax = args.to.softmax[dst];
        const A alpha = std::exp(scores.score[u] - softmax.shift) * softmax.scale,
                weight = alpha * multiplier[u];
        const A ds = alpha * ((multiplier[u] != A(0) ? grads.grad[u] : A(0)) - args.to.delta[dst]);
        const FinishGrad<A> grad = scores.finish_grad(a, walk, task, batch, u, ds);
        state.term += grad.b;
        add_gradients(walk, task, batch, u, grad.acc, weight, scores, grads, state);
        if constexpr (!Score::has_term) {
          store_edge(args, walk, task, batch.first + u, ds, grad.b);
          store_dst_term(walk, task, batch.first + u, grad.a);
        }
      }
    });
  }

  __device__ __forceinline__ void add_gradients(const Walk& walk, const Task& task,
                                                const EdgeBatch<kUnroll>& batch, int u, A grad,
                                                A weight, const Scores& scores, const Grads& grads,
                                                State& state) const {
    const Attention<T>& a = args.attention;
#pragma unroll
    for (int c = 0; c < C; ++c) {
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i)
        state.value[c * kPack<T> + i] += weight * grads.gathered[u](c, i);
      if constexpr (Score::has_term) {
        const EdgeRow<T, C> e(a, walk.csr, task, a.score, batch.first + u, true, task.block, c);
        Pack<T> w;
        if constexpr (Score::has_weight)
          w = load_pack<T, C>(a.in.att, task.head, a.score, task.team, task.block, c);
#pragma unroll
        for (int i = 0; i < kPack<T>; ++i) {
          A y = scores.y(u, c, i);
          if (kGeneral<C>) y += e[i];
          state.key[c * kPack<T> + i] +=
              Score::term_vjp(grad, scores.x(u, c, i), y, w[i], a.in.params).y;
        }
      }
    }
  }

  // Stores the gradient of a_i through edge k, for the sums over destinations.
  __device__ __forceinline__ void store_dst_term(const Walk& walk, const Task& task, std::int64_t k,
                                                 A grad) const {
    if (!args.to.edge_grad || task.block != 0 || task.team.lane != 0) return;
    args.to.edge_grad[args.attention.at(walk.position_of(k), task.head)] = grad;
  }
};

}  // namespace gat::cuda
