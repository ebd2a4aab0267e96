// Edge softmax and SDDMM on the GPU, and the dropout mask.
#include "sparse.h"

#include "edge_softmax.cuh"
#include "spmm.cuh"

namespace gat::cuda {
namespace {

template <class A>
A* allocate(Context& context, std::int64_t count) {
  return static_cast<A*>(context.allocate(static_cast<std::size_t>(count) * sizeof(A)));
}

// A plan for passes that read numbers instead of feature rows: one lane per edge.
RowPlan plan_edges(const SparseGraph& graph, int unroll) {
  return plan_rows(rows_of(graph), graph.num_heads, 1, 1, unroll);
}

template <class T, class Value>
void map_edges(Context& context, const SparseGraph& graph, const Value& value, T* out) {
  using Pass = EdgeMapPass<Value, T>;
  Pass pass;
  pass.ids = graph.csr.edge_id, pass.num_heads = graph.num_heads;
  pass.value = value, pass.out = out;
  run_pass(context, pass, plan_edges(graph, Pass::kUnroll));
}

// The values of the row that an edge has won, for a head. The edges of a row read the same numbers.
template <class T>
struct WonSum {
  const T* values;
  IndexArray arg;
  std::int64_t num_heads, channels;

  __device__ __forceinline__ Acc<T> operator()(std::int64_t row, std::int64_t id, int head) const {
    const std::int64_t first = (row * num_heads + head) * channels;
    Acc<T> sum{};
    for (std::int64_t d = first; d < first + channels; ++d) {
      if (arg[d] == id) sum += widen(values[d]);
    }
    return sum;
  }
};

// <query_ih, e_ij> of an edge and head.
template <class T>
struct EdgeDot {
  const T *query, *edge_attr;
  std::int64_t num_heads, channels;

  __device__ __forceinline__ Acc<T> operator()(std::int64_t row, std::int64_t id, int head) const {
    const T* const q = query + (row * num_heads + head) * channels;
    const T* const from = edge_attr + id * channels;
    Acc<T> sum{};
    for (std::int64_t c = 0; c < channels; ++c) sum += widen(q[c]) * widen(from[c]);
    return sum;
  }
};

// weight_e e_ij of an edge, and a head and channel.
template <class T>
struct EdgeProduct {
  const T *weight, *edge_attr;
  std::int64_t num_heads;
  int channels;

  __device__ __forceinline__ Acc<T> operator()(std::int64_t id, int column) const {
    const int head = column / channels, channel = column - head * channels;
    return widen(weight[id * num_heads + head]) * widen(edge_attr[id * channels + channel]);
  }
};

// One thread per edge and group of four heads, which share a draw.
__global__ void __launch_bounds__(kBlock)
    dropout_mask_kernel(const Dropout dropout, std::int64_t num_edges, std::int64_t num_heads,
                        bool* kept) {
  const std::int64_t groups = (num_heads + 3) / 4, t = thread_id();
  if (t >= num_edges * groups) return;
  const std::int64_t edge = t / groups, group = t - edge * groups;
  const Philox4 numbers = dropout.draw(edge, group);
  for (std::int64_t h = 4 * group; h < 4 * group + 4 && h < num_heads; ++h) {
    kept[edge * num_heads + h] = dropout.kept(numbers, h);
  }
}

}  // namespace

template <class T>
void edge_softmax(Context& context, const SparseGraph& graph, const T* scores, T* alpha) {
  using A = Acc<T>;
  using Pass = SoftmaxPass<T>;
  const std::int64_t rows = graph.csr.num_rows * graph.num_heads;
  Pass pass;
  pass.ids = graph.csr.edge_id, pass.scores = scores;
  pass.sink.shift = allocate<A>(context, rows), pass.sink.scale = allocate<A>(context, rows);
  pass.sink.num_heads = graph.num_heads;
  run_pass(context, pass, plan_edges(graph, Pass::kUnroll));
  map_edges(context, graph, SoftmaxOf<T>{graph.num_heads, scores, pass.sink.shift, pass.sink.scale},
            alpha);
}

template <class T>
void edge_softmax_backward(Context& context, const SparseGraph& graph, const T* grad,
                           const T* alpha, T* grad_scores) {
  using A = Acc<T>;
  A* const sum = allocate<A>(context, graph.csr.num_rows * graph.num_heads);
  run_row_sums(context, rows_of(graph), graph.num_heads, AlphaGrad<T>{graph.num_heads, grad, alpha},
               sum, graph.csr.edge_id);
  map_edges(context, graph, SoftmaxGrad<T>{graph.num_heads, grad, alpha, sum}, grad_scores);
}

template <class T>
void sddmm(Context& context, const SparseGraph& graph, std::int64_t channels, const T* x,
           const T* y, T* out) {
  // Longer rows are processed in blocks of channels, within one task.
  checked_int(graph.num_cols, kNodes);
  const Channels rows = row_channels<T>(graph.num_heads, channels, x, y);
  const RowShape shape = RowShape::of<T>(rows);
  with_variant(shape, [&](auto variant) {
    using Pass = SddmmPass<T, decltype(variant)>;
    Pass pass;
    pass.graph = graph, pass.x = x, pass.y = y, pass.out = out;
    pass.channels = rows, pass.blocks = shape.blocks;
    run_pass(context, pass,
             plan_rows(rows_of(graph), graph.num_heads, 1, shape.lanes, Pass::kUnroll));
  });
}

template <class T>
void winner_sum(Context& context, const SparseGraph& graph, std::int64_t channels, const T* values,
                IndexArray arg, Acc<T>* out) {
  map_edges(context, graph, WonSum<T>{values, arg, graph.num_heads, channels}, out);
}

template <class T>
void edge_dot(Context& context, const SparseGraph& graph, std::int64_t channels, const T* query,
              const T* edge_attr, T* out) {
  map_edges(context, graph, EdgeDot<T>{query, edge_attr, graph.num_heads, channels}, out);
}

template <class T>
void edge_sum(Context& context, const SparseGraph& graph, std::int64_t channels, const T* weight,
              const T* edge_attr, T* out) {
  const int columns = checked_int(channels, "edge channels");
  run_row_sums(context, rows_of(graph), graph.num_heads * channels,
               EdgeProduct<T>{weight, edge_attr, graph.num_heads, columns}, out, graph.csr.edge_id);
}

void edge_dropout_mask(Context& context, const Dropout& dropout, std::int64_t num_edges,
                       std::int64_t num_heads, bool* kept) {
  launch(context, ceil_div(num_edges * ceil_div(num_heads, 4), kBlock), &dropout_mask_kernel,
         dropout, num_edges, num_heads, kept);
}

template void edge_softmax(Context&, const SparseGraph&, const float*, float*);
template void edge_softmax(Context&, const SparseGraph&, const double*, double*);
template void edge_softmax(Context&, const SparseGraph&, const bf16*, bf16*);
template void edge_softmax(Context&, const SparseGraph&, const fp16*, fp16*);
template void edge_softmax_backward(Context&, const SparseGraph&, const float*, const float*,
                                    float*);
template void edge_softmax_backward(Context&, const SparseGraph&, const double*, const double*,
                                    double*);
template void edge_softmax_backward(Context&, const SparseGraph&, const bf16*, const bf16*, bf16*);
template void edge_softmax_backward(Context&, const SparseGraph&, const fp16*, const fp16*, fp16*);
template void winner_sum(Context&, const SparseGraph&, std::int64_t, const float*, IndexArray,
                         float*);
template void winner_sum(Context&, const SparseGraph&, std::int64_t, const double*, IndexArray,
                         double*);
template void winner_sum(Context&, const SparseGraph&, std::int64_t, const bf16*, IndexArray,
                         float*);
template void winner_sum(Context&, const SparseGraph&, std::int64_t, const fp16*, IndexArray,
                         float*);
template void edge_dot(Context&, const SparseGraph&, std::int64_t, const float*, const float*,
                       float*);
template void edge_dot(Context&, const SparseGraph&, std::int64_t, const double*, const double*,
                       double*);
template void edge_dot(Context&, const SparseGraph&, std::int64_t, const bf16*, const bf16*, bf16*);
template void edge_dot(Context&, const SparseGraph&, std::int64_t, const fp16*, const fp16*, fp16*);
template void edge_sum(Context&, const SparseGraph&, std::int64_t, const float*, const float*,
                       float*);
template void edge_sum(Context&, const SparseGraph&, std::int64_t, const double*, const double*,
                       double*);
template void edge_sum(Context&, const SparseGraph&, std::int64_t, const bf16*, const bf16*, bf16*);
template void edge_sum(Context&, const SparseGraph&, std::int64_t, const fp16*, const fp16*, fp16*);
template void sddmm(Context&, const SparseGraph&, std::int64_t, const float*, const float*, float*);
template void sddmm(Context&, const SparseGraph&, std::int64_t, const double*, const double*,
                    double*);
template void sddmm(Context&, const SparseGraph&, std::int64_t, const bf16*, const bf16*, bf16*);
template void sddmm(Context&, const SparseGraph&, std::int64_t, const fp16*, const fp16*, fp16*);

}  // namespace gat::cuda
