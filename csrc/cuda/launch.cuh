// Launches: one-dimensional grids; every launch is checked.
#pragma once

#include <cuda_runtime.h>
#include <cxxabi.h>

#include <cstdint>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>
#include <typeinfo>
#include <utility>

#include "stream.h"

namespace gat::cuda {

inline constexpr int kBlock = 128;

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Throws for a failed launch. A kernel is named by its type, whose parameters say pass, score and
// dtype; the runtime knows no name of a kernel that it could not load.
[[noreturn]] inline void launch_failed(cudaError_t status, const std::type_info& kernel) {
  std::string text = std::string("gat_ext: CUDA: ") + cudaGetErrorString(status);
  char* const name = abi::__cxa_demangle(kernel.name(), nullptr, nullptr, nullptr);
  text += std::string("; the kernel is a ") + (name ? name : kernel.name());
  std::free(name);
#ifdef __CUDA_ARCH_LIST__
  if (status == cudaErrorNoKernelImageForDevice) {
    text += "; the kernels are built for";
    for (const int arch : {__CUDA_ARCH_LIST__}) text += " sm_" + std::to_string(arch / 10);
    text += ": build gat_ext with TORCH_CUDA_ARCH_LIST for this GPU";
  }
#endif
  throw std::runtime_error(text);
}

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
        if (status != cudaSuccess) launch_failed(status, typeid(void(Ps...)));
      },
      values);
}

}  // namespace gat::cuda
