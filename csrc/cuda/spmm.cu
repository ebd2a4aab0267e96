// SpMM on the GPU: sums and extrema.
#include "extremum.cuh"

namespace gat::cuda {
namespace {

// Runs the pass make(variant), which gathers rows of x, after setting the members that all such
// passes have.
template <class T, class Make>
void run_gather(Context& context, const SparseGraph& graph, std::int64_t channels, const T* weight,
                const T* x, T* out, const Make& make) {
  checked_int(graph.num_cols, kNodes);
  const Channels rows = row_channels<T>(graph.num_heads, channels, x, out);
  const RowShape shape = RowShape::of<T>(rows);
  with_variant(shape, [&](auto variant) {
    auto pass = make(variant);
    pass.graph = graph, pass.weight = weight, pass.x = x, pass.channels = rows;
    pass.sink.out = out, pass.sink.num_heads = graph.num_heads, pass.sink.channels = rows;
    run_pass(context, pass,
             plan_rows(graph.csr.rowptr, graph.csr.num_rows, graph.num_edges, graph.num_heads,
                       shape.blocks, shape.lanes, decltype(pass)::kUnroll));
  });
}

}  // namespace

template <class T>
void spmm(Context& context, const SparseGraph& graph, std::int64_t channels, const T* weight,
          const T* x, T* out) {
  run_gather(context, graph, channels, weight, x, out, [&](auto variant) {
    SpmmPass<T, decltype(variant)> pass;
    return pass;
  });
}

template <class T>
void spmm_extremum(Context& context, const SparseGraph& graph, std::int64_t channels, int sign,
                   const T* weight, const T* x, T* out, MutableIndexArray arg) {
  run_gather(context, graph, channels, weight, x, out, [&](auto variant) {
    ExtremumPass<T, decltype(variant)> pass;
    pass.sink.csr = graph.csr, pass.sink.sign = sign, pass.sink.arg = arg;
    return pass;
  });
}

template <class T>
void spmm_extremum_backward(Context& context, const SparseGraph& graph, std::int64_t channels,
                            const T* weight, const T* grad, IndexArray arg, T* grad_x) {
  run_gather(context, graph, channels, weight, grad, grad_x, [&](auto variant) {
    ExtremumGradPass<T, decltype(variant)> pass;
    pass.winners = arg;
    pass.winners_access = row_channels<float>(graph.num_heads, channels, arg.data).access;
    return pass;
  });
}

template void spmm(Context&, const SparseGraph&, std::int64_t, const float*, const float*, float*);
template void spmm(Context&, const SparseGraph&, std::int64_t, const double*, const double*,
                   double*);
template void spmm(Context&, const SparseGraph&, std::int64_t, const bf16*, const bf16*, bf16*);
template void spmm(Context&, const SparseGraph&, std::int64_t, const fp16*, const fp16*, fp16*);
template void spmm_extremum(Context&, const SparseGraph&, std::int64_t, int, const float*,
                            const float*, float*, MutableIndexArray);
template void spmm_extremum(Context&, const SparseGraph&, std::int64_t, int, const double*,
                            const double*, double*, MutableIndexArray);
template void spmm_extremum(Context&, const SparseGraph&, std::int64_t, int, const bf16*,
                            const bf16*, bf16*, MutableIndexArray);
template void spmm_extremum(Context&, const SparseGraph&, std::int64_t, int, const fp16*,
                            const fp16*, fp16*, MutableIndexArray);
template void spmm_extremum_backward(Context&, const SparseGraph&, std::int64_t, const float*,
                                     const float*, IndexArray, float*);
template void spmm_extremum_backward(Context&, const SparseGraph&, std::int64_t, const double*,
                                     const double*, IndexArray, double*);
template void spmm_extremum_backward(Context&, const SparseGraph&, std::int64_t, const bf16*,
                                     const bf16*, IndexArray, bf16*);
template void spmm_extremum_backward(Context&, const SparseGraph&, std::int64_t, const fp16*,
                                     const fp16*, IndexArray, fp16*);

}  // namespace gat::cuda
