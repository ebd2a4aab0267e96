// Allocation of results and scratch memory.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstddef>

namespace gat::binding {

// Keeps freed blocks of CPU memory for the next results of their sizes. Faulting in the pages of
// new memory from the system takes about as long as the kernel that fills a result.
c10::Allocator& block_allocator();

// Returns the kept blocks to the system. Exported because the Python module is a separate library.
__attribute__((visibility("default"))) void empty_block_cache();

inline constexpr std::size_t kSmallestBlock = std::size_t{1} << 20;

// As at::empty, except that large CPU tensors come from the block allocator.
inline at::Tensor allocate(at::IntArrayRef shape, const at::TensorOptions& options) {
  const auto bytes =
      static_cast<std::size_t>(c10::multiply_integers(shape)) * options.dtype().itemsize();
  if (!options.device().is_cpu() || bytes < kSmallestBlock) return at::empty(shape, options);
  return at::detail::empty_generic(shape, &block_allocator(),
                                   c10::DispatchKeySet(c10::DispatchKey::CPU),
                                   c10::typeMetaToScalarType(options.dtype()), std::nullopt);
}

inline at::Tensor allocate_like(const at::Tensor& t) { return allocate(t.sizes(), t.options()); }

}  // namespace gat::binding
