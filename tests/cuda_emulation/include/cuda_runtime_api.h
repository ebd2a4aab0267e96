// The CUDA runtime API as far as gat_ext uses it, for a device that the CPU emulates; see
// cuda_runtime.h.
#pragma once

#include <cstddef>

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;

  constexpr dim3(unsigned vx = 1, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz) {}
};

using cudaStream_t = struct CUstream_st*;

enum cudaError_t { cudaSuccess = 0, cudaErrorNoKernelImageForDevice = 209 };

// An emulated launch has ended when it returns, and says what went wrong by an exception. A test
// may set the error of the next one, which then does not run.
namespace gat_emulation {
inline thread_local cudaError_t next_error = cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error"
                              : "no kernel image is available for execution on the device";
}
