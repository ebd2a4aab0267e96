// The destination pass of the backward of fused edge attention on the GPU.
#include "edge_attention_backward.cuh"

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

}  // namespace

template <class T>
std::int64_t att_part_rows(const EdgeAttentionSizes& sizes, const EdgeAttentionInputs<T>& in) {
  const RowPlan plan = destination_plan(sizes, in, RowShape{1, 1, 1}, 1, true);
  return plan.num_chunks + plan.row_slots;
}

template <class T>
void edge_attention_destination(Context& context, int score, const EdgeAttentionSizes& sizes,
                                const EdgeAttentionBackward<T>& args, Acc<T>* att_parts) {
  const EdgeAttentionInputs<T>& in = args.in;
  const AttentionLayout<T> layout =
      lay_out(in, sizes, {args.grad_query, args.grad_edge_feat}, {args.grad_out});
  const RowShape& shape = layout.shape;
  with_packs(shape.packs, [&](auto packs) {
    with_score(Scores{}, score, [&](auto type) {
      using Score = decltype(type);
      if constexpr (Score::has_term) {
        using Pass = DestinationPass<Score, T, decltype(packs)::value>;
        Pass pass;
        pass.args.attention = layout.attention;
        pass.args.to = args, pass.args.att_parts = att_parts;
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
                                         const EdgeAttentionBackward<float>&, float*);
template void edge_attention_destination(Context&, int, const EdgeAttentionSizes&,
                                         const EdgeAttentionBackward<double>&, double*);
template void edge_attention_destination(Context&, int, const EdgeAttentionSizes&,
                                         const EdgeAttentionBackward<bf16>&, float*);
template void edge_attention_destination(Context&, int, const EdgeAttentionSizes&,
                                         const EdgeAttentionBackward<fp16>&, float*);

}  // namespace gat::cuda
