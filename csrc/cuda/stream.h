// What the plain C++ faces of the CUDA kernels need of the CUDA runtime.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace gat::cuda {

// Where kernels run, and where their scratch memory comes from. Nothing here waits for the device.
struct Context {
  cudaStream_t stream = nullptr;

  virtual ~Context() = default;
  // Memory of the device that lives until the context ends, aligned to 16 bytes; ordered on the
  // stream.
  virtual void* allocate(std::size_t bytes) = 0;
};

}  // namespace gat::cuda
