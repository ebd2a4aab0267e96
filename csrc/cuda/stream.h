// The part of the CUDA runtime that the declarations of the CUDA kernels need.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace gat::cuda {

// The stream on which kernels run, and the allocator of their scratch memory. Nothing here
// synchronises with the device.
struct Context {
  cudaStream_t stream = nullptr;

  virtual ~Context() = default;
  // Device memory, aligned to 16 bytes, that lives as long as the context; ordered on the stream.
  virtual void* allocate(std::size_t bytes) = 0;
};

}  // namespace gat::cuda
