// Memory for results and scratch.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstddef>

namespace gat::binding {

// Keeps freed blocks of CPU memory for the next result of their size. Memory that comes from the
// system is new: to fault in the pages of a result takes about as long as the kernel that fills it.
c10::Allocator& block_allocator();

// Gives the blocks that are kept back to the system. The Python module is another library than this
// function's.
__attribute__((visibility("default"))) void empty_block_cache();

inline constexpr std::size_t kSmallestBlock = std::size_t{1} << 20;

// As at::empty; large CPU tensors are from the block allocator.
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
