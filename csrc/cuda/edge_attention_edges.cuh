// Passes of edge attention that write one number per edge and head, its score or its weight; the
// selection of the top k; and delta, one number per destination and head.
#pragma once

#include "edge_scores.cuh"

namespace gat::cuda {

template <class T>
struct EdgeOutputs {
  Acc<T>* scores = nullptr;                     // [E, H] in CSR order
  const RowSoftmax<Acc<T>>* softmax = nullptr;  // [N_dst, H]
  T* weights = nullptr;                         // [E, H] in the caller's order: alpha m
};

template <class Score, class T, class V>
struct EdgePass : NothingShared {
  using A = Acc<T>;
  static constexpr int C = V::C;
  using Sink = NoSink;
  using State = NoState;
  using Layout = StagingOf<T, V>;
  using Scores = EdgeScores<Score, T, V, true>;
  using Terms = typename Scores::Terms;
  static constexpr int n = Layout::n;
  static constexpr bool kBlocks = V::kGeneral;
  static constexpr int kUnroll = n, kMinWarps = kForwardWarps<Score, T, V>;
  template <class X>
  using Each = typename Layout::template Each<X>;

  Attention<T> attention;
  EdgeOutputs<T> to;
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State&, Nothing&) const {
    const EdgeAttentionInputs<T>& in = attention.in;
    const Team& team = task.team;
    const Walk walk{in.csr, {}};
    Scores scores;
    scores.begin_row(attention, task);
    RowSoftmax<A> softmax{};
    if (to.weights) softmax = to.softmax[attention.at(task.row, task.head)];
    for_each_stage<Layout>(in.csr, task, [&](const Stage<Layout>& stage, int groups) {
      const Terms terms(attention, walk, task, stage);
      Each<A> raw = {}, score;
      if constexpr (Score::has_term) {
        for (int g = 0; g < groups; ++g) {
          Fragment<T, C> key[n];
          A sums[n] = {};
          scores.gather_terms(attention, walk, task, stage.group(task, g), key, sums);
          Layout::collect_into(team, sums, g, raw);
        }
      }
      scores.finish(attention, terms, raw, score);
#pragma unroll
      for (int e = 0; e < Layout::kPerLane; ++e) {
        if (!stage.valid(task, e)) continue;
        const std::int64_t k = stage.position(task, e);
        if (to.scores) to.scores[attention.at(k, task.head)] = score[e];
        if (to.weights) {
          const A alpha = std::exp(score[e] - softmax.shift) * softmax.scale;
          to.weights[attention.at(in.csr.id(k), task.head)] =
              narrow<T>(alpha * terms.multiplier[e]);
        }
      }
    });
  }
};

// Unsigned keys in the order of the scores: NaN above any number, so that it is selected and stays
// visible; the two zeros equal.
__device__ __forceinline__ unsigned order_key(float score) {
  if (score != score) return ~0u;
  const unsigned bits = __float_as_uint(score + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ unsigned long long order_key(double score) {
  if (score != score) return ~0ull;
  const auto bits = static_cast<unsigned long long>(__double_as_longlong(score + 0.0));
  return bits >> 63 ? ~bits : bits | 0x8000000000000000ull;
}

// The number of edges in [begin, end) whose keys fulfil a condition, returned to all lanes.
template <class A, class F>
__device__ __forceinline__ std::int64_t count_edges(const A* scores, std::int64_t heads,
                                                    std::int64_t begin, std::int64_t end,
                                                    F&& condition) {
  std::int64_t count = 0;
  for (std::int64_t base = begin; base < end; base += kWarp) {
    const std::int64_t k = base + lane_id();
    const bool holds = k < end && condition(order_key(scores[k * heads]));
    count += __popc(__ballot_sync(kFullWarp, holds));
  }
  return count;
}

// One warp per row and head finds the key of the k-th largest score bit by bit, and then selects
// the edges above it, and the first of those equal to it until there are k.
template <class A>
__global__ void __launch_bounds__(kBlock)
    select_kernel(const std::int64_t* rowptr, std::int64_t num_rows, std::int64_t heads,
                  const A* all_scores, std::int64_t top_k, std::uint8_t* selected) {
  const std::int64_t warp = thread_id() / kWarp;
  if (warp >= num_rows * heads) return;
  const std::int64_t row = divide(warp, heads), head = warp - row * heads;
  const std::int64_t begin = rowptr[row], end = rowptr[row + 1];
  const A* const scores = all_scores + head;
  using Key = decltype(order_key(A()));
  Key threshold = 0;
  std::int64_t at_threshold = end - begin;  // edges at the threshold that are selected
  if (end - begin > top_k) {
    for (Key bit = Key(1) << (8 * sizeof(Key) - 1); bit != 0; bit >>= 1) {
      const Key candidate = threshold | bit;
      if (count_edges(scores, heads, begin, end, [&](Key key) { return key >= candidate; }) >=
          top_k)
        threshold = candidate;
    }
    at_threshold =
        top_k - count_edges(scores, heads, begin, end, [&](Key key) { return key > threshold; });
  }
  for (std::int64_t base = begin; base < end; base += kWarp) {
    const std::int64_t k = base + lane_id();
    const Key key = k < end ? order_key(scores[k * heads]) : Key(0);
    const bool equal = k < end && key == threshold && end - begin > top_k;
    const unsigned equals = __ballot_sync(kFullWarp, equal);
    const bool taken = equal ? __popc(equals & ((1u << lane_id()) - 1)) < at_threshold
                             : end - begin <= top_k || key > threshold;
    if (k < end) selected[k * heads + head] = taken ? 1 : 0;
    at_threshold -= __popc(equals);
  }
}

// Writes the statistics of each row and head, with delta = <g, out> + sum over the edges of
// r alpha m - q. The channels are distributed as in the passes that compute <g, v>: see
// Note [summation order].
template <class T>
__global__ void __launch_bounds__(kBlock)
    delta_kernel(const EdgeAttentionBackward<T> args, std::int64_t rows, RowShape shape,
                 const Acc<T>* out, const T* weights, const Acc<T>* grad_lse,
                 NodeStats<Acc<T>>* stats) {
  using A = Acc<T>;
  const EdgeAttentionInputs<T>& in = args.in;
  const std::int64_t r = thread_id() / shape.lanes;
  const Team team(shape.lanes, 1);
  const std::int64_t F = in.value_channels, H = in.num_heads;
  A of_out[1] = {A(0)}, of_weights[1] = {A(0)};
  if (r < rows) {
    for (int pack = 0; pack < shape.blocks * shape.packs; ++pack) {
      const std::int64_t first =
          (static_cast<std::int64_t>(pack) * shape.lanes + team.lane) * kPack<T>;
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) {
        if (first + i < F)
          of_out[0] += widen(args.grad_out[r * F + first + i]) * out[r * F + first + i];
      }
    }
    if (args.grad_weights) {
      const std::int64_t row = divide(r, H), head = r - row * H;
      for (std::int64_t k = in.csr.rowptr[row] + team.lane; k < in.csr.rowptr[row + 1];
           k += shape.lanes) {
        const std::int64_t e = in.csr.id(k) * H + head;
        of_weights[0] += widen(args.grad_weights[e]) * widen(weights[e]);
      }
    }
  }
  team.sum(of_out);
  team.sum(of_weights);
  if (r >= rows || team.lane != 0) return;
  const A term = in.dst_term ? widen(in.dst_term[r]) : A(0);
  const A delta = (grad_lse ? of_out[0] - grad_lse[r] : of_out[0]) + of_weights[0];
  stats[r] = {term, args.softmax[r].shift, args.softmax[r].scale, delta};
}

}  // namespace gat::cuda
