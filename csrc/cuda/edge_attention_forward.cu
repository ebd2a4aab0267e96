// Forward of fused edge attention on the GPU.
#include "edge_attention_forward.cuh"

namespace gat::cuda {

template <class T>
void edge_attention_forward(Context& context, int score, const EdgeAttentionSizes& sizes,
                            const EdgeAttentionForward<T>& args) {
  const EdgeAttentionInputs<T>& in = args.in;
  const AttentionLayout<T> layout = lay_out(in, sizes, {}, {args.out});
  const RowShape& shape = layout.shape;
  with_variant(shape, [&](auto variant) {
    with_score(Scores{}, score, [&](auto type) {
      using Pass = ForwardPass<decltype(type), T, decltype(variant)>;
      Pass pass;
      pass.attention = layout.attention;
      pass.sink.out = args.out, pass.sink.out_acc = args.out_acc;
      pass.sink.softmax = args.softmax, pass.sink.lse = args.lse;
      pass.sink.num_heads = in.num_heads, pass.sink.value = pass.attention.value;
      pass.sink.value_acc = row_channels<Acc<T>>(in.num_heads, in.value_channels, args.out_acc);
      run_pass(context, pass,
               plan_rows(in.csr.rowptr, in.csr.num_rows, sizes.num_edges, in.num_heads,
                         shape.blocks, shape.lanes, Pass::kUnroll));
    });
  });
}

template void edge_attention_forward(Context&, int, const EdgeAttentionSizes&,
                                     const EdgeAttentionForward<float>&);
template void edge_attention_forward(Context&, int, const EdgeAttentionSizes&,
                                     const EdgeAttentionForward<double>&);
template void edge_attention_forward(Context&, int, const EdgeAttentionSizes&,
                                     const EdgeAttentionForward<bf16>&);
template void edge_attention_forward(Context&, int, const EdgeAttentionSizes&,
                                     const EdgeAttentionForward<fp16>&);

}  // namespace gat::cuda
