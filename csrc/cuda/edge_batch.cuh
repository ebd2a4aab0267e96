// Batches of edges of a row, whose loads are in flight together.
#pragma once

#include "../core/csr.h"
#include "pack.cuh"
#include "rows.cuh"

namespace gat::cuda {

// Node numbers and the bytes of a row have 32 bits: one multiplication then gives their product.
// The host checks that they fit.
template <int n>
struct EdgeBatch {
  std::int64_t first;  // position of the first edge
  int count;           // edges up to the end of the row, possibly negative
  int neighbor[n];     // column; 0 beyond the end of the row

  __device__ __forceinline__ bool valid(int u) const { return u < count; }
};

// base + row * bytes, with one multiplication of 32-bit factors: ptxas hoists the extension of one
// of them out of loops, and then multiplies numbers of 64 bits. It still adds the base separately.
template <class T>
__device__ __forceinline__ const T* row_at(const T* base, int row, int bytes) {
#if defined(__CUDA_ARCH__)
  const T* p;
  asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(p) : "r"(row), "r"(bytes), "l"(base));
  return p;
#else
  return reinterpret_cast<const T*>(reinterpret_cast<const char*>(base) +
                                    static_cast<std::int64_t>(row) * bytes);
#endif
}

// Loads block `block` of the rows of the neighbours; zeros beyond the end of the row.
template <int n, class T, int C>
__device__ __forceinline__ void gather(const T* base, const EdgeBatch<n>& batch,
                                       const Channels& channels, const Task& task, int block,
                                       Fragment<T, C> (&out)[n]) {
  const int bytes = channels.stride * static_cast<int>(sizeof(T));
  const T* const head = base + static_cast<std::int64_t>(task.head) * channels.count;
  if constexpr (C == 1) {
    // Most groups are whole, and all lanes have channels: then nothing needs to be tested or set to
    // zero for each edge.
    const int first = first_channel<T, C>(task.team, block, 0);
    const bool whole = batch.count >= n && first < channels.count && channels.access == 16;
    if (__all_sync(kFullWarp, whole)) {
      const T* const own = opaque(head + first);
#pragma unroll
      for (int u = 0; u < n; ++u)
        load_units<16>(row_at(own, batch.neighbor[u], bytes), kPack<T>, out[u].pack[0]);
      return;
    }
  }
  with_access<T, C>(channels.access, [&](auto width) {
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const int first = first_channel<T, C>(task.team, block, c);
      const T* const own = opaque(head + first);
#pragma unroll
      for (int u = 0; u < n; ++u) {
        out[u].pack[c] = {};
        load_units<decltype(width)::value>(row_at(own, batch.neighbor[u], bytes),
                                           batch.valid(u) ? channels.count - first : 0,
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
