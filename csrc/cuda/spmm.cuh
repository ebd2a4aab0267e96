// SpMM and SDDMM: sums, extrema and inner products of gathered rows.
//
// Bytes: for each edge a row of x and a column, and a weight where there is one; for each row, the
// row of the output.
#pragma once

#include "attention.cuh"
#include "sparse.h"

namespace gat::cuda {

// The gathered rows x_col of n edges, and their weights.
template <class T, int C, int n>
struct WeightedRows {
  using A = Acc<T>;
  Fragment<T, C> row[n];
  A weight[n];

  __device__ __forceinline__ void load(const SparseGraph& graph, const T* weights, const T* x,
                                       const Channels& channels, const Task& task,
                                       const EdgeBatch<n>& batch) {
#pragma unroll
    for (int u = 0; u < n; ++u) {
      weight[u] = A(1);
      if (weights && batch.valid(u))
        weight[u] = widen(weights[graph.csr.id(batch.first + u) * graph.num_heads + task.head]);
    }
    gather(x, batch, channels, task, task.block, row);
  }
};

template <class T, int C>
struct SpmmSink {
  using A = Acc<T>;
  static constexpr int kChannels = C * kPack<T>;
  struct State {
    static constexpr int kWords = kChannels;
    A sum[kChannels];

    template <class F>
    __device__ __forceinline__ void each(F&& f) {
#pragma unroll
      for (int i = 0; i < kChannels; ++i) f(sum[i]);
    }
  };

  T* out = nullptr;  // [rows, H, F]
  std::int64_t num_heads = 1;
  Channels channels;

  __device__ __forceinline__ void init(State& state) const {
    state.each([](A& word) { word = A(0); });
  }
  __device__ __forceinline__ void merge(State& state, const State& other) const {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) state.sum[i] += other.sum[i];
  }
  __device__ __forceinline__ void finish(std::int64_t row, int head, int block, const Team& team,
                                         const State& state) const {
    store_fragment<T, C>(out, row * num_heads + head, channels, team, block, state.sum);
  }
};

template <class T, int C>
struct SpmmPass : NothingShared {
  using A = Acc<T>;
  using Sink = SpmmSink<T, C>;
  using State = typename Sink::State;
  static constexpr int kUnroll = kEdges<T, C>, kMinBlocks = kBlocksAtOnce<C>;

  SparseGraph graph;
  const T *weight = nullptr, *x = nullptr;
  Channels channels;
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State& state, Nothing&) const {
    for_each_batch<kUnroll>(graph.csr, task, [&](const EdgeBatch<kUnroll>& batch) {
      WeightedRows<T, C, kUnroll> rows;
      rows.load(graph, weight, x, channels, task, batch);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (!batch.valid(u)) continue;
#pragma unroll
        for (int i = 0; i < Sink::kChannels; ++i) {
          state.sum[i] += rows.weight[u] * rows.row[u](i / kPack<T>, i % kPack<T>);
        }
      }
    });
  }
};

// ---- extrema: the best value of each channel, and the offset of its edge in the row

template <class T, int C>
struct ExtremumSink {
  using A = Acc<T>;
  static constexpr int kChannels = C * kPack<T>;
  static constexpr unsigned kNone = ~0u;
  struct State {
    static constexpr int kWords = 2 * kChannels;
    A best[kChannels];
    unsigned offset[kChannels];  // from the start of the row; kNone where there is no edge yet

    template <class F>
    __device__ __forceinline__ void each(F&& f) {
#pragma unroll
      for (int i = 0; i < kChannels; ++i) {
        f(best[i]);
        f(offset[i]);
      }
    }
  };

  CsrView csr;
  int sign = 1;
  T* out = nullptr;             // [rows, H, F]
  std::int64_t* arg = nullptr;  // [rows, H, F]
  std::int64_t num_heads = 1;
  Channels channels;

  __device__ __forceinline__ void init(State& state) const {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) state.best[i] = A(0), state.offset[i] = kNone;
  }

  // Keeps the better of the state and a candidate: NaN before numbers, then the better number, then
  // the earlier edge.
  __device__ __forceinline__ void take(State& state, int i, A value, unsigned offset) const {
    if (offset == kNone) return;
    const A best = state.best[i];
    const bool nan = value != value, had_nan = best != best;
    const bool better = sign > 0 ? value > best : value < best;
    const bool earlier = offset < state.offset[i] && (value == best || (nan && had_nan));
    if (state.offset[i] == kNone || better || (nan && !had_nan) || earlier)
      state.best[i] = value, state.offset[i] = offset;
  }
  __device__ __forceinline__ void merge(State& state, const State& other) const {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) take(state, i, other.best[i], other.offset[i]);
  }
  __device__ __forceinline__ void finish(std::int64_t row, int head, int block, const Team& team,
                                         const State& state) const {
    const std::int64_t r = row * num_heads + head, begin = csr.rowptr[row];
    store_fragment<T, C>(out, r, channels, team, block, state.best);
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const int first = first_channel<T, C>(team, block, c);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) {
        const unsigned offset = state.offset[c * kPack<T> + i];
        if (first + i < channels.count)
          arg[r * channels.count + first + i] = offset == kNone ? -1 : csr.id(begin + offset);
      }
    }
  }
};

template <class T, int C>
struct ExtremumPass : NothingShared {
  using A = Acc<T>;
  using Sink = ExtremumSink<T, C>;
  using State = typename Sink::State;
  static constexpr int kUnroll = kEdges<T, C>, kMinBlocks = kBlocksAtOnce<C>;

  SparseGraph graph;
  const T *weight = nullptr, *x = nullptr;
  Channels channels;
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State& state, Nothing&) const {
    const std::int64_t row_begin = graph.csr.rowptr[task.row];
    for_each_batch<kUnroll>(graph.csr, task, [&](const EdgeBatch<kUnroll>& batch) {
      WeightedRows<T, C, kUnroll> rows;
      rows.load(graph, weight, x, channels, task, batch);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (!batch.valid(u)) continue;
        const auto offset = static_cast<unsigned>(batch.first + u - row_begin);
#pragma unroll
        for (int i = 0; i < Sink::kChannels; ++i) {
          sink.take(state, i, rows.weight[u] * rows.row[u](i / kPack<T>, i % kPack<T>), offset);
        }
      }
    });
  }
};

// Gradient of x: each source sums, over its edges, the gradient of the channels whose extremum the
// edge is.
template <class T, int C>
struct ExtremumGradPass : NothingShared {
  using A = Acc<T>;
  using Sink = SpmmSink<T, C>;
  using State = typename Sink::State;
  static constexpr int kUnroll = 2, kMinBlocks = kBlocksAtOnce<C>;

  SparseGraph graph;  // the transpose
  const T *weight = nullptr, *grad = nullptr;
  const std::int64_t* arg = nullptr;
  Channels channels;
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State& state, Nothing&) const {
    for_each_batch<kUnroll>(graph.csr, task, [&](const EdgeBatch<kUnroll>& batch) {
      WeightedRows<T, C, kUnroll> rows;
      rows.load(graph, weight, grad, channels, task, batch);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (!batch.valid(u)) continue;
        const std::int64_t id = graph.csr.id(batch.first + u);
        const std::int64_t* const winners =
            arg + static_cast<std::int64_t>(batch.neighbor[u]) * channels.stride +
            task.head * channels.count;
#pragma unroll
        for (int i = 0; i < Sink::kChannels; ++i) {
          const int channel =
              first_channel<T, C>(task.team, task.block, i / kPack<T>) + i % kPack<T>;
          if (channel < channels.count && winners[channel] == id) {
            state.sum[i] += rows.weight[u] * rows.row[u](i / kPack<T>, i % kPack<T>);
          }
        }
      }
    });
  }
};

// ---- SDDMM

template <class T, int C>
struct SddmmPass : NothingShared {
  using A = Acc<T>;
  using Sink = NoSink;
  using State = NoState;
  static constexpr int kUnroll = kEdges<T, C>, kMinBlocks = kBlocksAtOnce<C>;

  SparseGraph graph;
  const T *x = nullptr, *y = nullptr;
  T* out = nullptr;  // [E, H]
  Channels channels;
  int blocks = 1;
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State&, Nothing&) const {
    Fragment<T, C> own = load_own<T, C>(x, channels, task, own_block(task, blocks));
    for_each_batch<kUnroll>(graph.csr, task, [&](const EdgeBatch<kUnroll>& batch) {
      A product[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        product[u] = A(0);
      }
      Fragment<T, C> other[kUnroll];
      for_each_block(channels, blocks, task, batch, x, y, own, other, [&](int) {
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
          for (int i = 0; i < C * kPack<T>; ++i) {
            product[u] += own(i / kPack<T>, i % kPack<T>) * other[u](i / kPack<T>, i % kPack<T>);
          }
        }
      });
      task.team.sum(product);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (!batch.valid(u) || task.team.lane != 0) continue;
        out[graph.csr.id(batch.first + u) * graph.num_heads + task.head] = narrow<T>(product[u]);
      }
    });
  }
};

}  // namespace gat::cuda
