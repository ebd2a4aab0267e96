// SpMM on the GPU: sums and extrema.
#include "spmm.cuh"

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
                   const T* weight, const T* x, T* out, std::int64_t* arg) {
  run_gather(context, graph, channels, weight, x, out, [&](auto variant) {
    ExtremumPass<T, decltype(variant)> pass;
    pass.sink.csr = graph.csr, pass.sink.sign = sign, pass.sink.arg = arg;
    return pass;
  });
}

template <class T>
void spmm_extremum_backward(Context& context, const SparseGraph& graph, std::int64_t channels,
                            const T* weight, const T* grad, const std::int64_t* arg, T* grad_x) {
  run_gather(context, graph, channels, weight, grad, grad_x, [&](auto variant) {
    ExtremumGradPass<T, decltype(variant)> pass;
    pass.arg = arg;
    return pass;
  });
}

template void spmm(Context&, const SparseGraph&, std::int64_t, const float*, const float*, float*);
template void spmm(Context&, const SparseGraph&, std::int64_t, const double*, const double*,
                   double*);
template void spmm(Context&, const SparseGraph&, std::int64_t, const bf16*, const bf16*, bf16*);
template void spmm(Context&, const SparseGraph&, std::int64_t, const fp16*, const fp16*, fp16*);
template void spmm_extremum(Context&, const SparseGraph&, std::int64_t, int, const float*,
                            const float*, float*, std::int64_t*);
template void spmm_extremum(Context&, const SparseGraph&, std::int64_t, int, const double*,
                            const double*, double*, std::int64_t*);
template void spmm_extremum(Context&, const SparseGraph&, std::int64_t, int, const bf16*,
                            const bf16*, bf16*, std::int64_t*);
template void spmm_extremum(Context&, const SparseGraph&, std::int64_t, int, const fp16*,
                            const fp16*, fp16*, std::int64_t*);
template void spmm_extremum_backward(Context&, const SparseGraph&, std::int64_t, const float*,
                                     const float*, const std::int64_t*, float*);
template void spmm_extremum_backward(Context&, const SparseGraph&, std::int64_t, const double*,
                                     const double*, const std::int64_t*, double*);
template void spmm_extremum_backward(Context&, const SparseGraph&, std::int64_t, const bf16*,
                                     const bf16*, const std::int64_t*, bf16*);
template void spmm_extremum_backward(Context&, const SparseGraph&, std::int64_t, const fp16*,
                                     const fp16*, const std::int64_t*, fp16*);

}  // namespace gat::cuda
