// Fingerprints of the contents of tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace gat::binding {

// The fingerprint of the elements of an int32 or int64 tensor in the order of their indices, for
// any strides; of the bits of any other dtype. The same on every device; synchronises with devices
// other than the CPU. Exported because the Python module is a separate library.
__attribute__((visibility("default"))) std::uint64_t fingerprint(const at::Tensor& tensor);

// The same formula in torch's operators, for devices that have no kernel for it.
__attribute__((visibility("default"))) std::uint64_t fingerprint_by_torch(const at::Tensor& tensor);

}  // namespace gat::binding
