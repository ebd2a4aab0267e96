// Sums over the edges of each row of one number per edge and head.
#pragma once

#include "edge_batch.cuh"
#include "pack.cuh"

namespace gat::cuda {

template <class T>
struct RowSumSink {
  using A = Acc<T>;
  struct State {
    static constexpr int kWords = 1;
    A sum;

    template <class F>
    __device__ __forceinline__ void each(F&& f) {
      f(sum);
    }
  };

  T* out = nullptr;  // [rows, H]
  std::int64_t num_heads = 1;

  __device__ __forceinline__ void init(State& state) const { state.sum = A(0); }
  __device__ __forceinline__ void merge(State& state, const State& other) const {
    state.sum += other.sum;
  }
  __device__ __forceinline__ void finish(std::int64_t row, int head, int, const Team&,
                                         const State& state) const {
    out[row * num_heads + head] = narrow<T>(state.sum);
  }
};

// value(position, head) is the summand of edge `position`.
template <class Value, class T>
struct RowSumPass : NothingShared {
  using A = Acc<T>;
  using Sink = RowSumSink<T>;
  using State = typename Sink::State;
  static constexpr bool kBlocks = false;
  static constexpr int kUnroll = 2, kMinWarps = 16;

  Value value;
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State& state, Nothing&) const {
    for_each_batch<kUnroll>(task, [&](const EdgeBatch<kUnroll>& batch) {
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (batch.valid(u)) state.sum += value(batch.first + u, task.head);
      }
    });
  }
};

template <class T, class Value>
void run_row_sums(Context& context, const std::int64_t* rowptr, std::int64_t num_rows,
                  std::int64_t num_edges, std::int64_t heads, const Value& value, T* out) {
  using Pass = RowSumPass<Value, T>;
  Pass pass;
  pass.value = value, pass.sink.out = out, pass.sink.num_heads = heads;
  run_pass(context, pass, plan_rows(rowptr, num_rows, num_edges, heads, 1, 1, Pass::kUnroll));
}

}  // namespace gat::cuda
