// The destination pass of the backward of fused edge attention on the GPU.
#include "edge_attention_destination.cuh"

namespace gat::cuda {
namespace {

// Row slots where the gradient of w is needed: each stores a part of it, so there are fewer slots
// than destinations.
constexpr std::int64_t kAttSlots = 16384;

template <class T>
RowPlan destination_plan(const EdgeAttentionSizes& sizes, const EdgeAttentionInputs<T>& in,
                         const RowShape& shape, int unroll, bool att) {
  return plan_rows(in.csr.rowptr, in.csr.num_rows, sizes.num_edges, in.num_heads, shape.blocks,
                   shape.lanes, unroll, att ? kAttSlots : 0);
}

// The row of position k of a CSR: the last one that begins at or before k.
__device__ __forceinline__ std::int64_t row_of(const CsrView& csr, std::int64_t k) {
  std::int64_t low = 0, high = csr.num_rows;
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (csr.rowptr[middle] <= k ? low : high) = middle;
  }
  return low;
}

// One warp per edge, whose lanes take its channels in turn.
template <class Score, class T>
__global__ void __launch_bounds__(kBlock)
    features_kernel(const EdgeAttentionBackward<T> args, const Acc<T>* edge_factors,
                    std::int64_t first, std::int64_t count, Acc<T>* grads, Acc<T>* attrs) {
  using A = Acc<T>;
  const std::int64_t edge = thread_id() / kWarp, k = first + edge;
  if (edge >= count) return;
  const EdgeAttentionInputs<T>& in = args.in;
  const std::int64_t H = in.num_heads, D = in.score_channels, K = in.edge_channels;
  const std::int64_t dst = row_of(in.csr, k), src = in.csr.col[k];
  const T* const attr = in.edge_attr + in.csr.id(k) * K;
  const A* const factors = edge_factors + k * 2 * H;
  for (std::int64_t i = lane_id(); i < H * D; i += kWarp) {
    const std::int64_t h = i / D;
    A of_edge = A(0), w = A(0);
    for (std::int64_t term = 0; term < K; ++term)
      of_edge += in.edge_map[term * H * D + i] * widen(attr[term]);
    if constexpr (Score::has_weight) w = widen(in.att[i]);
    A grad = Score::term_vjp(factors[H + h], widen(in.query[dst * H * D + i]),
                             widen(in.key[src * H * D + i]) + of_edge, w, in.params)
                 .y;
    if (in.edge_in_value) grad += factors[h] * widen(args.grad_out[dst * H * D + i]);
    grads[edge * H * D + i] = grad;
  }
  for (std::int64_t term = lane_id(); term < K; term += kWarp)
    attrs[edge * K + term] = widen(attr[term]);
}

}  // namespace

template <class T>
void edge_attention_features(Context& context, int score, const EdgeAttentionBackward<T>& args,
                             const Acc<T>* edge_factors, std::int64_t first, std::int64_t count,
                             Acc<T>* grad, Acc<T>* attr) {
  with_score(Scores{}, score, [&](auto type) {
    using Score = decltype(type);
    if constexpr (Score::has_term) {
      launch(context, ceil_div(count * kWarp, kBlock), &features_kernel<Score, T>, args,
             edge_factors, first, count, grad, attr);
    }
  });
}

template <class T>
std::int64_t att_part_rows(const EdgeAttentionSizes& sizes, const EdgeAttentionInputs<T>& in) {
  const RowPlan plan = destination_plan(sizes, in, RowShape{1, 1, 1}, 1, true);
  return 2 * plan.num_chunks + plan.row_slots;
}

template <class T>
void edge_attention_destination(Context& context, int score, const EdgeAttentionSizes& sizes,
                                const EdgeAttentionBackward<T>& args, Acc<T>* att_parts,
                                Acc<T>* edge_factors) {
  const EdgeAttentionInputs<T>& in = args.in;
  const AttentionLayout<T> layout =
      lay_out(in, sizes, {args.grad_query, args.grad_edge_feat}, {args.grad_out});
  const RowShape& shape = layout.shape;
  with_variant(shape, [&](auto variant) {
    with_score(Scores{}, score, [&](auto type) {
      using Score = decltype(type);
      if constexpr (Score::has_term) {
        using Pass = DestinationPass<Score, T, decltype(variant)>;
        Pass pass;
        pass.args.attention = layout.attention;
        pass.args.attention.stats = reinterpret_cast<const NodeStats<Acc<T>>*>(args.delta);
        pass.args.to = args, pass.args.att_parts = att_parts;
        pass.args.edge_factors = edge_factors;
        pass.sink.grad_query = args.grad_query, pass.sink.grad_dst_term = args.grad_dst_term;
        pass.sink.num_heads = in.num_heads, pass.sink.score = pass.args.attention.score;
        run_pass(context, pass,
                 destination_plan(sizes, in, shape, Pass::kUnroll, att_parts != nullptr));
      }
    });
  });
}

template std::int64_t att_part_rows(const EdgeAttentionSizes&, const EdgeAttentionInputs<float>&);
template std::int64_t att_part_rows(const EdgeAttentionSizes&, const EdgeAttentionInputs<double>&);
template std::int64_t att_part_rows(const EdgeAttentionSizes&, const EdgeAttentionInputs<bf16>&);
template std::int64_t att_part_rows(const EdgeAttentionSizes&, const EdgeAttentionInputs<fp16>&);
template void edge_attention_destination(Context&, int, const EdgeAttentionSizes&,
                                         const EdgeAttentionBackward<float>&, float*, float*);
template void edge_attention_destination(Context&, int, const EdgeAttentionSizes&,
                                         const EdgeAttentionBackward<double>&, double*, double*);
template void edge_attention_destination(Context&, int, const EdgeAttentionSizes&,
                                         const EdgeAttentionBackward<bf16>&, float*, float*);
template void edge_attention_destination(Context&, int, const EdgeAttentionSizes&,
                                         const EdgeAttentionBackward<fp16>&, float*, float*);
template void edge_attention_features(Context&, int, const EdgeAttentionBackward<float>&,
                                      const float*, std::int64_t, std::int64_t, float*, float*);
template void edge_attention_features(Context&, int, const EdgeAttentionBackward<double>&,
                                      const double*, std::int64_t, std::int64_t, double*, double*);
template void edge_attention_features(Context&, int, const EdgeAttentionBackward<bf16>&,
                                      const float*, std::int64_t, std::int64_t, float*, float*);
template void edge_attention_features(Context&, int, const EdgeAttentionBackward<fp16>&,
                                      const float*, std::int64_t, std::int64_t, float*, float*);

}  // namespace gat::cuda
