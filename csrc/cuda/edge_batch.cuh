// Batches of edges of a row, whose loads are in flight together.
#pragma once

#include "../core/csr.h"
#include "pack.cuh"
#include "rows.cuh"

namespace gat::cuda {

// Node numbers have 32 bits: one instruction then computes an address from them. The host checks
// that they fit.
template <int n>
struct EdgeBatch {
  std::int64_t first;  // position of the first edge
  int count;           // edges up to the end of the row: at most n, possibly negative
  int neighbor[n];     // column; 0 beyond the end of the row

  __device__ __forceinline__ bool valid(int u) const { return u < count; }
};

template <class Index, int n>
__device__ __forceinline__ void load_neighbors(const void* col, EdgeBatch<n>& batch) {
#pragma unroll
  for (int u = 0; u < n; ++u) {
    batch.neighbor[u] =
        batch.valid(u) ? static_cast<int>(__ldg(static_cast<const Index*>(col) + batch.first + u))
                       : 0;
  }
}

// Calls step(batch) for the edges of a task, n at a time for each team, and equally often on all
// lanes of the warp.
template <int n, class F>
__device__ __forceinline__ void for_each_batch(const CsrView& csr, const Task& task, F&& step) {
  const int stride = n * task.team.parts;
  const std::int64_t steps = warp_max((task.end - task.begin + stride - 1) / stride);
  EdgeBatch<n> batch;
  batch.first = task.begin + task.team.part * n;
  for (std::int64_t s = 0; s < steps; ++s) {
    const std::int64_t left = task.end - batch.first;
    batch.count = left < n ? static_cast<int>(left) : n;
    if (csr.col) {
      if (csr.col.wide) {
        load_neighbors<long long>(csr.col.data, batch);
      } else {
        load_neighbors<int>(csr.col.data, batch);
      }
    }
    step(batch);
    batch.first += stride;
  }
}

// Loads block `block` of the rows of the neighbours; zeros beyond the end of the row.
template <int n, class T, int C>
__device__ __forceinline__ void gather(const T* base, const EdgeBatch<n>& batch,
                                       const Channels& channels, const Task& task, int block,
                                       Fragment<T, C> (&out)[n]) {
  const T* const head = base + static_cast<std::int64_t>(task.head) * channels.count;
  with_access<T, C>(channels.access, [&](auto bytes) {
#pragma unroll
    for (int u = 0; u < n; ++u) {
      const T* const row = head + static_cast<std::int64_t>(batch.neighbor[u]) * channels.stride;
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const int first = first_channel<T, C>(task.team, block, c);
        out[u].pack[c] = {};
        load_units<decltype(bytes)::value>(row + first, batch.valid(u) ? channels.count - first : 0,
                                           out[u].pack[c]);
      }
    }
  });
}

// ---- on the host

inline constexpr const char* kNodes = "the number of nodes";

inline int checked_int(std::int64_t value, const char* what) {
  if (value > std::numeric_limits<std::int32_t>::max()) {
    throw std::length_error(std::string("gat_ext: on CUDA ") + what +
                            " must be less than 2^31; got " + std::to_string(value));
  }
  return static_cast<int>(value);
}

}  // namespace gat::cuda
