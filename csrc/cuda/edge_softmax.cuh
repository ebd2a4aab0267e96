// Softmax over the edges of each row, and its gradient: one pass computes the statistics of the
// rows, a second one the results of the edges.
//
// Bytes: the scores are read twice and alpha is written once; the second time short rows are in the
// cache.
#pragma once

#include "../core/online_softmax.h"
#include "row_sums.cuh"
#include "sparse.h"

namespace gat::cuda {

// State of a row: max and sum of exp(s - max). Its result turns a score into its weight:
// exp(s - shift) * scale.
template <class T>
struct SoftmaxSink {
  using A = Acc<T>;
  struct State {
    static constexpr int kWords = 2;
    A max, sum;

    template <class F>
    __device__ __forceinline__ void each(F&& f) {
      f(max);
      f(sum);
    }
  };

  A* shift = nullptr;  // [rows, H]
  A* scale = nullptr;  // [rows, H]
  std::int64_t num_heads = 1;

  __device__ __forceinline__ void init(State& state) const {
    state.max = negative_infinity<A>();
    state.sum = A(0);
  }
  __device__ __forceinline__ void merge(State& state, const State& other) const {
    const auto f = merge_factors(state.max, other.max);
    state.max = f.max;
    state.sum = state.sum * f.left + other.sum * f.right;
  }
  __device__ __forceinline__ void finish(std::int64_t row, int head, int, const Team&,
                                         const State& state) const {
    shift[row * num_heads + head] = safe_max(state.max);
    scale[row * num_heads + head] = normalizer(state.sum);
  }
};

template <class T>
struct SoftmaxPass : NothingShared {
  using A = Acc<T>;
  using Sink = SoftmaxSink<T>;
  using State = typename Sink::State;
  static constexpr bool kBlocks = false;
  static constexpr int kUnroll = 4, kMinWarps = 128 / sizeof(A);

  IndexArray ids;
  const T* scores = nullptr;  // [E, H]
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State& state, Nothing&) const {
    for_each_ids<kUnroll>(ids, task, [&](const EdgeIds<kUnroll>& edges) {
      A s[kUnroll], top = state.max;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
        s[u] = widen(scores[edges.id[u] * sink.num_heads + task.head]);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (!edges.valid(u)) s[u] = negative_infinity<A>();
        top = s[u] > top ? s[u] : top;
      }
      const A shift = safe_max(top);
      state.sum *= std::exp(state.max - shift);
      state.max = top;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) state.sum += std::exp(s[u] - shift);
    });
  }
};

// Writes out[id, h] = value(row, id, head) for every edge.
template <class Value, class T>
struct EdgeMapPass : NothingShared {
  using A = Acc<T>;
  using Sink = NoSink;
  using State = NoState;
  static constexpr bool kBlocks = false;
  static constexpr int kUnroll = 4, kMinWarps = 128 / sizeof(A);

  IndexArray ids;
  std::int64_t num_heads = 1;
  Value value;
  T* out = nullptr;  // [E, H]
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State&, Nothing&) const {
    for_each_ids<kUnroll>(ids, task, [&](const EdgeIds<kUnroll>& edges) {
      A of_edge[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) of_edge[u] = value(task.row, edges.id[u], task.head);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (edges.valid(u)) out[edges.id[u] * num_heads + task.head] = narrow<T>(of_edge[u]);
      }
    });
  }
};

template <class T>
struct SoftmaxOf {
  using A = Acc<T>;
  std::int64_t num_heads;
  const T* scores;
  const A *shift, *scale;

  __device__ __forceinline__ A operator()(std::int64_t row, std::int64_t id, int head) const {
    const std::int64_t r = row * num_heads + head;
    return std::exp(widen(scores[id * num_heads + head]) - shift[r]) * scale[r];
  }
};

template <class T>
struct SoftmaxGrad {
  using A = Acc<T>;
  std::int64_t num_heads;
  const T *grad, *alpha;
  const A* sum;  // of alpha grad over the row

  __device__ __forceinline__ A operator()(std::int64_t row, std::int64_t id, int head) const {
    const std::int64_t e = id * num_heads + head;
    return widen(alpha[e]) * (widen(grad[e]) - sum[row * num_heads + head]);
  }
};

// alpha grad of an edge, which run_row_sums sums.
template <class T>
struct AlphaGrad {
  std::int64_t num_heads;
  const T *grad, *alpha;

  __device__ __forceinline__ Acc<T> operator()(std::int64_t id, int head) const {
    const std::int64_t e = id * num_heads + head;
    return widen(alpha[e]) * widen(grad[e]);
  }
};

}  // namespace gat::cuda
