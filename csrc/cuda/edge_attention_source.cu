// The source pass of the backward of fused edge attention on the GPU.
#include "edge_attention_source.cuh"
#include "row_sums.cuh"

namespace gat::cuda {
namespace {

template <class A>
struct EdgeGrad {
  const A* edge_grad = nullptr;  // [E, H] in CSR order
  std::int64_t num_heads = 1;

  __device__ __forceinline__ A operator()(std::int64_t position, std::int64_t head) const {
    return edge_grad[position * num_heads + head];
  }
};

}  // namespace

template <class T>
void edge_attention_source(Context& context, int score, const EdgeAttentionSizes& sizes,
                           const EdgeAttentionBackward<T>& args) {
  const EdgeAttentionInputs<T>& in = args.in;
  const AttentionLayout<T> layout =
      lay_out(in, sizes, {args.grad_key}, {args.grad_out, args.grad_value});
  const RowShape& shape = layout.shape;
  with_variant(shape, [&](auto variant) {
    with_score(Scores{}, score, [&](auto type) {
      using Pass = SourcePass<decltype(type), T, decltype(variant)>;
      Pass pass;
      pass.args.attention = layout.attention;
      pass.args.attention.stats = reinterpret_cast<const NodeStats<Acc<T>>*>(args.delta);
      pass.args.to = args;
      pass.sink.grad_key = args.grad_key, pass.sink.grad_value = args.grad_value,
      pass.sink.grad_src_term = args.grad_src_term;
      pass.sink.num_heads = in.num_heads;
      pass.sink.score = pass.args.attention.score, pass.sink.value = pass.args.attention.value;
      run_pass(context, pass,
               plan_rows(args.transpose.rowptr, sizes.num_src, sizes.num_edges, in.num_heads,
                         shape.blocks, shape.lanes, Pass::kUnroll));
    });
  });
}

template <class T>
void edge_attention_sum_edge_grad(Context& context, const EdgeAttentionSizes& sizes,
                                  const EdgeAttentionBackward<T>& args) {
  const EdgeAttentionInputs<T>& in = args.in;
  run_row_sums(context, in.csr.rowptr, in.csr.num_rows, sizes.num_edges, in.num_heads,
               EdgeGrad<Acc<T>>{args.edge_grad, in.num_heads}, args.grad_dst_term);
}

template void edge_attention_source(Context&, int, const EdgeAttentionSizes&,
                                    const EdgeAttentionBackward<float>&);
template void edge_attention_source(Context&, int, const EdgeAttentionSizes&,
                                    const EdgeAttentionBackward<double>&);
template void edge_attention_source(Context&, int, const EdgeAttentionSizes&,
                                    const EdgeAttentionBackward<bf16>&);
template void edge_attention_source(Context&, int, const EdgeAttentionSizes&,
                                    const EdgeAttentionBackward<fp16>&);
template void edge_attention_sum_edge_grad(Context&, const EdgeAttentionSizes&,
                                           const EdgeAttentionBackward<float>&);
template void edge_attention_sum_edge_grad(Context&, const EdgeAttentionSizes&,
                                           const EdgeAttentionBackward<double>&);
template void edge_attention_sum_edge_grad(Context&, const EdgeAttentionSizes&,
                                           const EdgeAttentionBackward<bf16>&);
template void edge_attention_sum_edge_grad(Context&, const EdgeAttentionSizes&,
                                           const EdgeAttentionBackward<fp16>&);

}  // namespace gat::cuda
