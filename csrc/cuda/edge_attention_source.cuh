// The source pass of the backward of fused edge attention: gradients of y, b and v; without a term
// also of the tensors of edges.
#pragma once

#include "edge_attention_backward.cuh"

namespace gat::cuda {

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

template <class Score, class T, class V>
struct SourcePass : NothingShared {
  using A = Acc<T>;
  static constexpr int C = V::C;
  using Sink = SourceSink<T, C, Score::has_term>;
  using State = typename Sink::State;
  using Layout = StagingOf<T, V>;
  using Scores = EdgeScores<Score, T, V, false>;
  using Grads = WeightGrads<T, V, false>;
  using Terms = typename Scores::Terms;
  static constexpr int n = Layout::n;
  static constexpr bool kBlocks = V::kGeneral;
  static constexpr int kUnroll = n, kMinWarps = kBackwardWarps<Score, T, V>;
  template <class X>
  using Each = typename Layout::template Each<X>;

  BackwardArgs<T> args;
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State& state, Nothing&) const {
    const Attention<T>& a = args.attention;
    const Team& team = task.team;
    const Walk walk{args.to.transpose, args.to.position};
    Scores scores;
    Grads grads;
    scores.begin_row(a, task);
    grads.begin_row(args, task);
    for_each_stage<Layout>(walk.csr, task, [&](const Stage<Layout>& stage, int groups) {
      const Terms terms(a, walk, task, stage);
      Each<A> raw = {}, product = {}, weight = {}, grad_sum = {};
      if constexpr (!Score::has_term) stage_weights(terms, scores, weight);
      for (int g = 0; g < groups; ++g) {
        const EdgeBatch<n> batch = stage.group(task, g);
        Fragment<T, C> grad_out[n], query[n];
        A sums[n] = {}, products[n] = {};
        if constexpr (Score::has_term && !V::kGeneral)
          gather(a.in.query, batch, a.score, task, 0, query);
        grads.gather_products(args, walk, task, batch, grad_out, products);
        forget_widened(grad_out), grads.own.forget_widened();
        if constexpr (!Score::has_term) {
          Layout::collect_into(team, products, g, product);
        } else {
          if constexpr (V::kGeneral) {
            scores.gather_terms(a, walk, task, batch, query, sums);
          } else {
            scores.add_terms(a, walk, task, batch, 0, query, sums);
          }
          forget_widened(query), scores.own.forget_widened();
          Layout::collect(team, sums, raw);
          Layout::collect(team, products, product);
          stage_gradients(walk, task, stage, terms, scores, Layout::owns(team, g), raw, product,
                          weight, grad_sum, state);
        }
        const T* const att = opaque(a.in.att);
#pragma unroll
        for (int u = 0; u < n; ++u) {
          const A w = Layout::broadcast(team, weight, g, u);
#pragma unroll
          for (int i = 0; i < Sink::kChannels; ++i)
            state.value[i] += w * grad_out[u](i / kPack<T>, i % kPack<T>);
          if constexpr (Score::has_term) {
            const A grad = Layout::broadcast(team, grad_sum, g, u);
            if (!V::kGeneral || batch.valid(u))
              add_key_gradients(walk, task, batch.first + u, grad, scores, att, query[u], state);
          }
        }
      }
      if constexpr (!Score::has_term)
        stage_gradients(walk, task, stage, terms, scores, true, raw, product, weight, grad_sum,
                        state);
    });
    A sum[1] = {state.term};
    team.sum(sum);
    state.term = sum[0];
  }

  __device__ __forceinline__ void stage_weights(const Terms& terms, const Scores& scores,
                                                Each<A>& weight) const {
    Each<A> raw = {}, score;
    scores.finish(args.attention, terms, raw, score);
#pragma unroll
    for (int e = 0; e < Layout::kPerLane; ++e)
      weight[e] =
          std::exp(score[e] - terms.ends[e].shift) * terms.ends[e].scale * terms.multiplier[e];
  }

  // The weights and gradients of the edges that a lane stages. Those that are `mine` count.
  __device__ __forceinline__ void stage_gradients(const Walk& walk, const Task& task,
                                                  const Stage<Layout>& stage, const Terms& terms,
                                                  const Scores& scores, bool mine,
                                                  const Each<A>& raw, Each<A>& product,
                                                  Each<A>& weight, Each<A>& grad_sum,
                                                  State& state) const {
    const Attention<T>& a = args.attention;
    Each<A> score;
    scores.finish(a, terms, raw, score);
#pragma unroll
    for (int e = 0; e < Layout::kPerLane; ++e) {
      const std::int64_t k = stage.position(task, e);
      const bool counts = mine && stage.valid(task, e);
      if (counts) product[e] += of_weights(args, walk, task, k);
      const NodeStats<A>& end = terms.ends[e];
      const EdgeGradient<A> of(score[e], end.shift, end.scale, terms.multiplier[e], product[e],
                               end.delta);
      const FinishGrad<A> grad = scores.finish_grad(a, terms, e, raw[e], of.score);
      weight[e] = of.weight, grad_sum[e] = grad.acc;
      if (!counts) continue;
      state.term += grad.b;
      if constexpr (!Score::has_term) {
        store_edge(args, walk, task, k, of.score, grad.b);
        store_dst_term(walk, task, k, grad.a);
      }
    }
  }

  __device__ __forceinline__ void add_key_gradients(const Walk& walk, const Task& task,
                                                    std::int64_t k, A grad, const Scores& scores,
                                                    const T* att, const Fragment<T, C>& query,
                                                    State& state) const {
    const Attention<T>& a = args.attention;
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const EdgeRow<T, C> e(a, walk.csr, task, a.score, k, true, task.block, c);
      Pack<T> w;
      if constexpr (Score::has_weight)
        w = load_pack<T, C>(att, task.head, a.score, task.team, task.block, c);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) {
        A y = scores.y(query, c, i);
        if (V::kGeneral) y += e[i];
        state.key[c * kPack<T> + i] +=
            Score::term_vjp(grad, scores.x(query, c, i), y, w[i], a.in.params).y;
      }
    }
  }

  // Stores the gradient of a_i through edge k, for the sums over destinations.
  __device__ __forceinline__ void store_dst_term(const Walk& walk, const Task& task, std::int64_t k,
                                                 A grad) const {
    if (!args.to.edge_grad || task.block != 0) return;
    args.to.edge_grad[args.attention.at(walk.position_of(k), task.head)] = grad;
  }
};

}  // namespace gat::cuda
