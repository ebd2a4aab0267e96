// From torch's run-time dtypes to the storage types of the kernels.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include "../core/types.h"

namespace gat::binding {

template <class T>
struct Type {
  using type = T;
};

// Calls f with Type<T>, where T is the storage type of dtype.
template <class F>
decltype(auto) with_storage_type(at::ScalarType dtype, F&& f) {
  switch (dtype) {
    case at::kFloat:
      return f(Type<float>{});
    case at::kDouble:
      return f(Type<double>{});
    case at::kBFloat16:
      return f(Type<bf16>{});
    case at::kHalf:
      return f(Type<fp16>{});
    default:
      TORCH_CHECK_TYPE(false, "dtype ", dtype,
                       " is not supported; expected float32, float64, bfloat16 or float16");
  }
}

// The dtype of sums over values of dtype.
inline at::ScalarType accumulate_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

template <class T>
const T* data(const at::Tensor& t) {
  return t.defined() ? static_cast<const T*>(t.const_data_ptr()) : nullptr;
}
template <class T>
T* mutable_data(const at::Tensor& t) {
  return t.defined() ? static_cast<T*>(t.mutable_data_ptr()) : nullptr;
}

}  // namespace gat::binding
