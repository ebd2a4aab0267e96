// The destination pass of the backward of fused edge attention, for scores with a term:
// gradients of x, a and w, and of the tensors of edges.
#pragma once

#include "edge_attention_backward.cuh"

namespace gat::cuda {

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

template <class Score, class T, class V>
struct DestinationPass {
  using A = Acc<T>;
  static constexpr int C = V::C;
  using Sink = DestinationSink<T, C>;
  using State = typename Sink::State;
  using Layout = StagingOf<T, V>;
  using Scores = EdgeScores<Score, T, V, true>;
  using Grads = WeightGrads<T, V, true>;
  using Terms = typename Scores::Terms;
  static constexpr int n = Layout::n;
  static constexpr bool kBlocks = V::kGeneral, kRounds = Score::has_weight;
  static constexpr int kUnroll = n, kMinWarps = kBackwardWarps<Score, T, V>;
  template <class X>
  using Each = typename Layout::template Each<X>;
  struct Shared {
    A att[Score::has_weight ? Sink::kChannels : 1] = {};
  };

  BackwardArgs<T> args;
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State& state, Shared& shared) const {
    const Attention<T>& a = args.attention;
    const Team& team = task.team;
    const Walk walk{a.in.csr, {}};
    Scores scores;
    Grads grads;
    scores.begin_row(a, task);
    grads.begin_row(args, task);
    const NodeStats<A> stats = load_stats(a.stats + a.at(task.row, task.head));
    for_each_stage<Layout>(a.in.csr, task, [&](const Stage<Layout>& stage, int groups) {
      const Terms terms(a, walk, task, stage);
      for (int g = 0; g < groups; ++g) {
        const EdgeBatch<n> batch = stage.group(task, g);
        Fragment<T, C> key[n];
        Each<A> raw, score, product, weight, grad_sum;
        A sums[n] = {}, products[n] = {};
        if constexpr (V::kGeneral) {
          Fragment<T, C> value[n];
          scores.gather_terms(a, walk, task, batch, key, sums);
          grads.gather_products(args, walk, task, batch, value, products);
        } else {
          gather(a.in.key, batch, a.score, task, 0, key);
          if (a.key_is_value) {
            grads.add_products(args, walk, task, batch, 0, key, products);
          } else {
            Fragment<T, C> value[n];
            grads.gather_products(args, walk, task, batch, value, products);
          }
          forget_widened(key);
          scores.add_terms(a, walk, task, batch, 0, key, sums);
        }
        forget_widened(key), scores.own.forget_widened(), grads.own.forget_widened();
        Layout::collect(team, sums, raw);
        Layout::collect(team, products, product);
        scores.finish(a, terms, raw, score);
#pragma unroll
        for (int e = 0; e < Layout::kPerLane; ++e) {
          const std::int64_t k = stage.position(task, e);
          const bool mine = Layout::owns(team, g) && stage.valid(task, e);
          if (mine) product[e] += of_weights(args, walk, task, k);
          const EdgeGradient<A> of(score[e], stats.shift, stats.scale, terms.multiplier[e],
                                   product[e], stats.delta);
          const FinishGrad<A> grad = scores.finish_grad(a, terms, e, raw[e], of.score);
          weight[e] = of.weight, grad_sum[e] = grad.acc;
          if (!mine) continue;
          state.term += grad.a;
          store_edge(args, walk, task, k, of.score, grad.b);
          store_factors(task, k, of.weight, grad.acc);
        }
        const T* const att = opaque(a.in.att);
#pragma unroll
        for (int u = 0; u < n; ++u) {
          const A grad = Layout::broadcast(team, grad_sum, g, u);
          A w{};
          if constexpr (V::kGeneral) w = Layout::broadcast(team, weight, g, u);
          if (!V::kGeneral || batch.valid(u))
            add_term_gradients(walk, task, batch.first + u, grad, w, scores, att, key[u], grads.own,
                               state, shared);
        }
      }
    });
    A sum[1] = {state.term};
    team.sum(sum);
    state.term = sum[0];
  }

  __device__ __forceinline__ void store_factors(const Task& task, std::int64_t k, A weight,
                                                A grad) const {
    if (!args.edge_factors || task.block != 0) return;
    A* const to = args.edge_factors + k * 2 * sink.num_heads + task.head;
    to[0] = weight, to[sink.num_heads] = grad;
  }

  __device__ __forceinline__ void add_term_gradients(const Walk& walk, const Task& task,
                                                     std::int64_t k, A grad, A weight,
                                                     const Scores& scores, const T* att,
                                                     const Fragment<T, C>& key,
                                                     const Fragment<T, C>& g, State& state,
                                                     Shared& shared) const {
    const Attention<T>& a = args.attention;
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const EdgeRow<T, C> e(a, walk.csr, task, a.score, k, true, task.block, c);
      Pack<T> w, grad_edge;
      if constexpr (Score::has_weight)
        w = load_pack<T, C>(att, task.head, a.score, task.team, task.block, c);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) {
        A y = scores.y(key, c, i);
        if (V::kGeneral) y += e[i];
        const TermGrad<A> t = Score::term_vjp(grad, scores.x(key, c, i), y, w[i], a.in.params);
        state.query[c * kPack<T> + i] += t.x;
        if constexpr (Score::has_weight) shared.att[c * kPack<T> + i] += t.w;
        if (V::kGeneral) grad_edge.set(i, a.in.edge_in_value ? t.y + g(c, i) * weight : t.y);
      }
      if (V::kGeneral && args.to.grad_edge_feat) {
        store_pack<T, C>(args.to.grad_edge_feat, a.at(walk.csr.id(k), task.head), a.score,
                         task.team, task.block, c, grad_edge);
      }
    }
  }

  __device__ __forceinline__ void store_shared(const Task& task, std::int64_t slot, bool valid,
                                               Shared& shared) const {
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
      A* const part = args.att_parts + args.attention.at(slot, task.head) * score.count;
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

}  // namespace gat::cuda
