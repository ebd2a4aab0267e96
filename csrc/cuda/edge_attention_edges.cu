// Scores, weights and the selection of the top k on the GPU, and delta of the backward.
#include "edge_attention_edges.cuh"
#include "top_k.cuh"

namespace gat::cuda {
namespace {

template <class T>
void run_edges(Context& context, int score, const EdgeAttentionSizes& sizes,
               const EdgeAttentionInputs<T>& in, const EdgeOutputs<T>& to) {
  // Longer rows are processed in blocks of channels, within one task. With a softmax, the scores
  // must be summed in the order of the forward, so the shape depends on the values too.
  const AttentionLayout<T> layout = lay_out(in, sizes, {}, {}, /*scores_only=*/!to.softmax);
  const RowShape& shape = layout.shape;
  with_variant(shape, [&](auto variant) {
    with_score(Scores{}, score, [&](auto type) {
      using Pass = EdgePass<decltype(type), T, decltype(variant)>;
      Pass pass;
      pass.attention = layout.attention;
      pass.to = to;
      run_pass(context, pass,
               plan_rows(in.csr.rowptr, in.csr.num_rows, sizes.num_edges, in.num_heads, 1,
                         shape.lanes, Pass::kUnroll));
    });
  });
}

}  // namespace

template <class T>
void edge_attention_select(Context& context, int score, const EdgeAttentionSizes& sizes,
                           const EdgeAttentionInputs<T>& in, std::int64_t top_k,
                           std::uint8_t* selected) {
  using A = Acc<T>;
  EdgeOutputs<T> to;
  to.scores = static_cast<A*>(
      context.allocate(static_cast<std::size_t>(sizes.num_edges * in.num_heads) * sizeof(A)));
  run_edges(context, score, sizes, in, to);
  launch(context, ceil_div(in.csr.num_rows * in.num_heads * kWarp, kBlock), &select_kernel<A>,
         in.csr.rowptr, in.csr.num_rows, in.num_heads, static_cast<const A*>(to.scores), top_k,
         selected);
}

template <class T>
void edge_attention_weights(Context& context, int score, const EdgeAttentionSizes& sizes,
                            const EdgeAttentionInputs<T>& in, const RowSoftmax<Acc<T>>* softmax,
                            T* weights) {
  EdgeOutputs<T> to;
  to.softmax = softmax, to.weights = weights;
  run_edges(context, score, sizes, in, to);
}

template <class T>
void edge_attention_delta(Context& context, const EdgeAttentionSizes& sizes,
                          const EdgeAttentionBackward<T>& args, const Acc<T>* out, const T* weights,
                          const Acc<T>* grad_lse, Acc<T>* stats) {
  const std::int64_t rows = args.in.csr.num_rows * args.in.num_heads;
  RowShape shape = lay_out(args.in, sizes, {}, {args.grad_out}).shape;
  shape.blocks = shape.blocks_of<T>(args.in.value_channels);
  launch(context, ceil_div(rows * shape.lanes, kBlock), &delta_kernel<T>, args, rows, shape, out,
         weights, grad_lse, reinterpret_cast<NodeStats<Acc<T>>*>(stats));
}

template void edge_attention_select(Context&, int, const EdgeAttentionSizes&,
                                    const EdgeAttentionInputs<float>&, std::int64_t, std::uint8_t*);
template void edge_attention_select(Context&, int, const EdgeAttentionSizes&,
                                    const EdgeAttentionInputs<double>&, std::int64_t,
                                    std::uint8_t*);
template void edge_attention_select(Context&, int, const EdgeAttentionSizes&,
                                    const EdgeAttentionInputs<bf16>&, std::int64_t, std::uint8_t*);
template void edge_attention_select(Context&, int, const EdgeAttentionSizes&,
                                    const EdgeAttentionInputs<fp16>&, std::int64_t, std::uint8_t*);
template void edge_attention_weights(Context&, int, const EdgeAttentionSizes&,
                                     const EdgeAttentionInputs<float>&, const RowSoftmax<float>*,
                                     float*);
template void edge_attention_weights(Context&, int, const EdgeAttentionSizes&,
                                     const EdgeAttentionInputs<double>&, const RowSoftmax<double>*,
                                     double*);
template void edge_attention_weights(Context&, int, const EdgeAttentionSizes&,
                                     const EdgeAttentionInputs<bf16>&, const RowSoftmax<float>*,
                                     bf16*);
template void edge_attention_weights(Context&, int, const EdgeAttentionSizes&,
                                     const EdgeAttentionInputs<fp16>&, const RowSoftmax<float>*,
                                     fp16*);
template void edge_attention_delta(Context&, const EdgeAttentionSizes&,
                                   const EdgeAttentionBackward<float>&, const float*, const float*,
                                   const float*, float*);
template void edge_attention_delta(Context&, const EdgeAttentionSizes&,
                                   const EdgeAttentionBackward<double>&, const double*,
                                   const double*, const double*, double*);
template void edge_attention_delta(Context&, const EdgeAttentionSizes&,
                                   const EdgeAttentionBackward<bf16>&, const float*, const bf16*,
                                   const float*, float*);
template void edge_attention_delta(Context&, const EdgeAttentionSizes&,
                                   const EdgeAttentionBackward<fp16>&, const float*, const fp16*,
                                   const float*, float*);

}  // namespace gat::cuda
