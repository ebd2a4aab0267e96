// What tells the contents of tensors from others.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace gat::binding {

// Of the elements of a tensor, int32 or int64, in the order of its indices, wherever they lie; of
// any other dtype, of its bits. The same on every device. Another device than the CPU is waited
// for. The Python module is another library than this function's.
__attribute__((visibility("default"))) std::uint64_t fingerprint(const at::Tensor& tensor);

// The same formula in torch's operators, for devices that have no kernel for it.
__attribute__((visibility("default"))) std::uint64_t fingerprint_by_torch(const at::Tensor& tensor);

}  // namespace gat::binding
