// Passes over one number per edge and head, and its sums over the edges of each row. Adjacent lanes
// read adjacent edges.
#pragma once

#include "../core/csr.h"
#include "pack.cuh"
#include "rows.cuh"

namespace gat::cuda {

// Edges of a row that a lane processes together: all their ids are loaded before the first number,
// and all numbers before the first is used.
template <int n>
struct EdgeIds {
  int left;            // positions up to the end of the row
  int stride;          // positions from one edge to the next
  std::int64_t id[n];  // 0 beyond the end of the row: its numbers can be read, and are not used

  __device__ __forceinline__ bool valid(int u) const { return u * stride < left; }

  // The ids from position `first` on; without ids, the id of an edge is its position.
  __device__ __forceinline__ void load(const IndexArray& ids, std::int64_t first) {
    if (!ids) {
#pragma unroll
      for (int u = 0; u < n; ++u) id[u] = valid(u) ? first + u * stride : 0;
    } else if (ids.wide) {
      load(static_cast<const long long*>(ids.data) + first);
    } else {
      load(static_cast<const int*>(ids.data) + first);
    }
  }

 private:
  template <class Index>
  __device__ __forceinline__ void load(const Index* ids) {
#pragma unroll
    for (int u = 0; u < n; ++u) id[u] = valid(u) ? __ldg(ids + u * stride) : 0;
  }
};

// Calls step(edges) for the edges of a task, n at a time for each team, and equally often on all
// lanes of the warp. Teams have one lane.
template <int n, class F>
__device__ __forceinline__ void for_each_ids(const IndexArray& ids, const Task& task, F&& step) {
  const int stride = n * task.team.parts;  // a power of two
  const int steps = warp_max((task.length + stride - 1) >> __popc(stride - 1));
  std::int64_t first = task.begin + task.team.part;
  EdgeIds<n> edges;
  edges.left = task.length - task.team.part, edges.stride = task.team.parts;
  for (int s = 0; s < steps; ++s) {
    edges.load(ids, first);
    step(edges);
    first += stride, edges.left -= stride;
  }
}

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

// value(id, head) is the summand of an edge.
template <class Value, class T>
struct RowSumPass : NothingShared {
  using A = Acc<T>;
  using Sink = RowSumSink<T>;
  using State = typename Sink::State;
  static constexpr bool kBlocks = false;
  static constexpr int kUnroll = 4, kMinWarps = 128 / sizeof(A);

  IndexArray ids;
  Value value;
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State& state, Nothing&) const {
    for_each_ids<kUnroll>(ids, task, [&](const EdgeIds<kUnroll>& edges) {
      A summand[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) summand[u] = value(edges.id[u], task.head);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) state.sum += edges.valid(u) ? summand[u] : A(0);
    });
  }
};

// out [rows, heads] = the sums of value(id, head) over the edges of each row; without ids, the id
// of an edge is its position.
template <class T, class Value>
void run_row_sums(Context& context, const std::int64_t* rowptr, std::int64_t num_rows,
                  std::int64_t num_edges, std::int64_t heads, const Value& value, T* out,
                  const IndexArray& ids = {}) {
  using Pass = RowSumPass<Value, T>;
  Pass pass;
  pass.ids = ids, pass.value = value, pass.sink.out = out, pass.sink.num_heads = heads;
  run_pass(context, pass, plan_rows(rowptr, num_rows, num_edges, heads, 1, 1, Pass::kUnroll));
}

}  // namespace gat::cuda
