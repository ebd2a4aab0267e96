// Memory for results and scratch.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gat::binding {

// As at::empty. On the CPU a large tensor asks for huge pages: its memory is new each time, and the first touch of 4 KiB pages, one
// fault each, costs about as much as a kernel that fills them.
inline at::Tensor allocate(at::IntArrayRef shape, const at::TensorOptions& options) {
  at::Tensor t = at::empty(shape, options);
#if defined(MADV_HUGEPAGE)
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  if (t.device().is_cpu() && t.nbytes() >= 2 * kHugePage) {
    const auto begin = reinterpret_cast<std::uintptr_t>(t.mutable_data_ptr());
    const std::uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage, end = begin + t.nbytes();
    madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);  // a wish: where it fails, pages are small
  }
#endif
  return t;
}

inline at::Tensor allocate_like(const at::Tensor& t) { return allocate(t.sizes(), t.options()); }

}  // namespace gat::binding
