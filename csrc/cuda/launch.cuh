// Launches: one-dimensional grids; every launch is checked.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include "stream.h"

namespace gat::cuda {

inline constexpr int kBlock = 128;

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

template <int threads = kBlock, class... Ps, class... Args>
void launch(const Context& context, std::int64_t blocks, void (*kernel)(Ps...),
            const Args&... args) {
  if (blocks == 0) return;
  if (blocks > std::numeric_limits<std::int32_t>::max()) {
    throw std::length_error("gat_ext: a kernel needs " + std::to_string(blocks) +
                            " blocks; CUDA allows less than 2^31");
  }
  std::tuple<std::remove_const_t<Ps>...> values(args...);
  std::apply(
      [&](auto&... value) {
        void* pointers[] = {static_cast<void*>(&value)...};
        cudaError_t status = cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)),
                                              dim3(threads), pointers, 0, context.stream);
        // Also after a failed launch: the error would stay, and the next check of any library would
        // report it as its own.
        const cudaError_t last = cudaGetLastError();
        if (status == cudaSuccess) status = last;
        if (status != cudaSuccess)
          throw std::runtime_error(std::string("gat_ext: CUDA: ") + cudaGetErrorString(status));
      },
      values);
}

}  // namespace gat::cuda
