// Forward of fused edge attention: out = sum_j alpha_ij m_ij v_j with an online softmax; also
// writes the RowSoftmax of each row, and lse if requested.
//
// Bytes: for each edge one row of values (and of keys, where the score has a term and they are not
// the values), a column, and the node terms; for each destination a row of out and its softmax. No
// array has the size E x H x F.
#pragma once

#include "edge_scores.cuh"

namespace gat::cuda {

// State of a row: max and sum of exp(s - max), the weighted sum of this lane's channels.
template <class T, int C>
struct ForwardSink {
  using A = Acc<T>;
  static constexpr int kChannels = C * kPack<T>;
  struct State {
    static constexpr int kWords = 2 + kChannels;
    A max, sum, acc[kChannels];

    template <class F>
    __device__ __forceinline__ void each(F&& f) {
      f(max);
      f(sum);
#pragma unroll
      for (int i = 0; i < kChannels; ++i) f(acc[i]);
    }
  };

  T* out = nullptr;                  // [N_dst, H, F]
  A* out_acc = nullptr;              // [N_dst, H, F] or null
  RowSoftmax<A>* softmax = nullptr;  // [N_dst, H]
  A* lse = nullptr;                  // [N_dst, H] or null
  std::int64_t num_heads = 1;
  Channels value, value_acc;

  __device__ __forceinline__ void init(State& state) const {
    state.max = negative_infinity<A>();
    state.sum = A(0);
#pragma unroll
    for (int i = 0; i < kChannels; ++i) state.acc[i] = A(0);
  }

  __device__ __forceinline__ void merge(State& state, const State& other) const {
    const auto f = merge_factors(state.max, other.max);
    state.max = f.max;
    state.sum = state.sum * f.left + other.sum * f.right;
#pragma unroll
    for (int i = 0; i < kChannels; ++i)
      state.acc[i] = state.acc[i] * f.left + other.acc[i] * f.right;
  }

  __device__ __forceinline__ void finish(std::int64_t row, int head, int block, const Team& team,
                                         const State& state) const {
    const std::int64_t r = row * num_heads + head;
    const A scale = normalizer(state.sum);
    store_fragment<T, C>(out, r, value, team, block, state.acc, scale);
    if (out_acc) store_acc(r, block, team, state, scale);
    if (block != 0 || team.lane != 0) return;
    softmax[r] = RowSoftmax<A>::of(state.max, state.sum);
    if (lse) lse[r] = log_sum_exp(state.max, state.sum);
  }

  // The sums before rounding: a pack of T is one or more packs of A.
  __device__ __forceinline__ void store_acc(std::int64_t r, int block, const Team& team,
                                            const State& state, A scale) const {
    with_access<A, C>(value_acc.access, [&](auto bytes) {
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const int first = first_channel<T, C>(team, block, c);
#pragma unroll
        for (int j = 0; j < kPack<T>; j += kPack<A>) {
          Pack<A> pack;
#pragma unroll
          for (int i = 0; i < kPack<A>; ++i) pack.set(i, state.acc[c * kPack<T> + j + i] * scale);
          store_units<decltype(bytes)::value>(out_acc + r * value.count + first + j,
                                              value.count - first - j, pack);
        }
      }
    });
  }
};

template <class Score, class T, class V>
struct ForwardPass : NothingShared {
  using A = Acc<T>;
  static constexpr int C = V::C;
  using Sink = ForwardSink<T, C>;
  using State = typename Sink::State;
  using Layout = StagingOf<T, V>;
  using Scores = EdgeScores<Score, T, V, true>;
  using Terms = typename Scores::Terms;
  static constexpr int n = Layout::n;
  static constexpr bool kBlocks = V::kGeneral;
  static constexpr int kUnroll = n, kMinWarps = kForwardWarps<Score, T, V>;
  template <class X>
  using Each = typename Layout::template Each<X>;
  Attention<T> attention;
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State& state, Nothing&) const {
    const EdgeAttentionInputs<T>& in = attention.in;
    const Team& team = task.team;
    const Walk walk{in.csr, {}};
    Scores scores;
    scores.begin_row(attention, task);
    for_each_stage<Layout>(in.csr, task, [&](const Stage<Layout>& stage, int groups) {
      const Terms terms(attention, walk, task, stage);
      Each<A> raw = {}, score, weight;
      if constexpr (!Score::has_term) {
        scores.finish(attention, terms, raw, score);
        raise(Layout::stage_max(team, score), state);
        add_weights(score, terms, true, state, weight);
      }
      for (int g = 0; g < groups; ++g) {
        const EdgeBatch<n> batch = stage.group(task, g);
        Fragment<T, C> value[n];
        if constexpr (Score::has_term) {
          // The keys often are the values; otherwise the values take their registers.
          A sums[n] = {};
          scores.gather_terms(attention, walk, task, batch, value, sums);
          Layout::collect(team, sums, raw);
          forget_widened(value), scores.own.forget_widened();
          scores.finish(attention, terms, raw, score);
          raise(Layout::group_max(team, score, g), state);
          add_weights(score, terms, Layout::owns(team, g), state, weight);
        }
        if (!Score::has_term || !attention.key_is_value)
          gather(in.value, stage.group(task, g), attention.value, task, task.block, value);
#pragma unroll
        for (int u = 0; u < n; ++u) {
          const A w = Layout::broadcast(team, weight, g, u);
          if (!V::kGeneral || batch.valid(u))
            add_value(walk, task, batch.first + u, w, value[u], state);
        }
      }
    });
    A sum[1] = {state.sum};
    team.sum(sum);
    state.sum = sum[0];
  }

  // Raises the running maximum to at least `top`.
  __device__ __forceinline__ static void raise(A top, State& state) {
    if (!(top > state.max)) return;
    const A factor = std::exp(state.max - safe_max(top));
    state.sum *= factor;
#pragma unroll
    for (int i = 0; i < Sink::kChannels; ++i) state.acc[i] *= factor;
    state.max = top;
  }

  // The weights of the edges that a lane stages, before the division by their sum, which each lane
  // has of its own edges until the end of the row.
  __device__ __forceinline__ static void add_weights(const Each<A>& score, const Terms& terms,
                                                     bool mine, State& state, Each<A>& weight) {
    const A shift = safe_max(state.max);
#pragma unroll
    for (int e = 0; e < Layout::kPerLane; ++e) {
      const A p = std::exp(score[e] - shift);
      state.sum += mine ? p : A(0);
      weight[e] = p * terms.multiplier[e];
    }
  }

  __device__ __forceinline__ void add_value(const Walk& walk, const Task& task, std::int64_t k,
                                            A weight, const Fragment<T, C>& value,
                                            State& state) const {
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const EdgeRow<T, C> e(attention, walk.csr, task, attention.value, k,
                            attention.in.edge_in_value, task.block, c);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) {
        const A v = V::kGeneral ? value(c, i) + e[i] : value(c, i);
        state.acc[c * kPack<T> + i] += weight * v;
      }
    }
  }
};

}  // namespace gat::cuda
