// Passes of edge attention that write one number per edge and head, its score or its weight; and
// delta, one number per destination and head.
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
