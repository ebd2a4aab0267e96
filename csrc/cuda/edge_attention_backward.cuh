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

// <g, c (v + e)> of the edges of a row, where g or v belongs to the row and c is the factor of the
// weights that dropout keeps: see Note [summation order].
template <class T, class V, bool RowIsDst>
struct WeightGrads {
  using A = Acc<T>;
  using Layout = StagingOf<T, V>;
  static constexpr int n = Layout::n, C = V::C;
  template <class X>
  using Each = typename Layout::template Each<X>;
  Fragment<T, C> own;

  __device__ __forceinline__ static const T* own_rows(const BackwardArgs<T>& args) {
    return RowIsDst ? args.to.grad_out : args.attention.in.value;
  }
  __device__ __forceinline__ static const T* other_rows(const BackwardArgs<T>& args) {
    return RowIsDst ? args.attention.in.value : args.to.grad_out;
  }

  __device__ __forceinline__ void begin_row(const BackwardArgs<T>& args, const Task& task) {
    const Attention<T>& a = args.attention;
    own = load_own<T, C>(own_rows(args), a.value, task, own_block(task, a.value_blocks));
  }

  // Gathers the rows of the other ends of a group, and adds up the products of this lane.
  __device__ __forceinline__ void gather_products(const BackwardArgs<T>& args, const Walk& walk,
                                                  const Task& task, const EdgeBatch<n>& batch,
                                                  Fragment<T, C> (&other)[n], A (&sums)[n]) {
    const Attention<T>& a = args.attention;
    for_each_block(a.value, a.value_blocks, task, batch, own_rows(args), other_rows(args), own,
                   other,
                   [&](int block) { add_products(args, walk, task, batch, block, other, sums); });
  }

  __device__ __forceinline__ void add_products(const BackwardArgs<T>& args, const Walk& walk,
                                               const Task& task, const EdgeBatch<n>& batch,
                                               int block, const Fragment<T, C> (&other)[n],
                                               A (&sums)[n]) const {
    const Attention<T>& a = args.attention;
#pragma unroll
    for (int u = 0; u < n; ++u) {
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const EdgeRow<T, C> e(a, walk.csr, task, a.value, batch.first + u,
                              a.in.edge_in_value && batch.valid(u), block, c);
#pragma unroll
        for (int i = 0; i < kPack<T>; ++i) {
          const A g = RowIsDst ? own(c, i) : other[u](c, i);
          A v = RowIsDst ? other[u](c, i) : own(c, i);
          if (V::kGeneral) v += e[i];
          sums[u] += g * (v * a.keep);
        }
      }
    }
  }
};

// What both passes compute of an edge that a lane stages: its weight alpha m, and the gradient of
// its score. product is <g, c v>.
template <class A>
struct EdgeGradient {
  A weight, score;

  __device__ __forceinline__ EdgeGradient(A s, A shift, A scale, A multiplier, A product, A delta) {
    const A alpha = std::exp(s - shift) * scale;
    weight = alpha * multiplier;
    score = alpha * ((multiplier != A(0) ? product : A(0)) - delta);
  }
};

// c r of the edge at position k, the part of the gradient of its weight that comes from r.
template <class T>
__device__ __forceinline__ Acc<T> of_weights(const BackwardArgs<T>& args, const Walk& walk,
                                             const Task& task, std::int64_t k) {
  if (!args.to.grad_weights) return Acc<T>(0);
  const Attention<T>& a = args.attention;
  return a.keep * widen(args.to.grad_weights[a.at(walk.csr.id(k), task.head)]);
}

// Stores the gradients of edge k: of its bias, and of its term, which is added to b.
template <class T>
__device__ __forceinline__ void store_edge(const BackwardArgs<T>& args, const Walk& walk,
                                           const Task& task, std::int64_t k, Acc<T> ds,
                                           Acc<T> grad_edge_term) {
  const EdgeAttentionBackward<T>& to = args.to;
  if ((!to.grad_bias && !to.grad_edge_term) || task.block != 0) return;
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
