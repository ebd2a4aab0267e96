// Warps and teams of lanes. Collectives always include the whole warp: control flow around them is
// uniform.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace gat::cuda {

inline constexpr int kWarp = 32, kWarpBits = 5;
inline constexpr unsigned kFullWarp = 0xffffffffu;

__device__ __forceinline__ int lane_id() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ __forceinline__ std::int64_t thread_id() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Returns p, of which the compiler then knows nothing: it neither keeps what was loaded from there
// nor computes the address in parts.
template <class T>
__device__ __forceinline__ const T* opaque(const T* p) {
#if defined(__CUDA_ARCH__)
  asm("" : "+l"(p));
#endif
  return p;
}

template <class V>
__device__ __forceinline__ V shuffle_xor(V value, int distance) {
  return __shfl_xor_sync(kFullWarp, value, distance);
}

template <class V>
__device__ __forceinline__ V warp_max(V value) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const V other = shuffle_xor(value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// The lanes that process one row and head. A team of `lanes` lanes shares the channels of an edge;
// `parts` adjacent teams process different edges of the row, and their states are merged at its
// end. Both are powers of two; lanes * parts <= kWarp.
struct Team {
  int lanes, parts;
  int lane, part;

  __device__ __forceinline__ Team(int num_lanes, int num_parts)
      : lanes(num_lanes),
        parts(num_parts),
        lane(lane_id() & (num_lanes - 1)),
        part((lane_id() / num_lanes) & (num_parts - 1)) {}

  // Sums each of n values over the lanes of a team and returns the sums to all of them.
  template <class A, int n>
  __device__ __forceinline__ void sum(A (&values)[n]) const {
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
#pragma unroll
      for (int i = 0; i < n; ++i) values[i] += shuffle_xor(values[i], distance);
    }
  }
};

}  // namespace gat::cuda
