// head_terms and its gradient on every device. A device has
//   Device(tensor)                        makes the device of the tensor current
//   head_terms(shape, x, vectors, out)
//   head_terms_backward(shape, x, vectors, grad, grad_x, grad_vectors)
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>

#include "allocate.h"
#include "checks.h"
#include "dispatch.h"

namespace gat::binding {

struct HeadTermsShape {
  std::int64_t rows, num_heads, channels, num_vectors;
};

inline HeadTermsShape head_terms_shape(const at::Tensor& x, const at::Tensor& vectors) {
  TORCH_CHECK_VALUE(x.dim() == 3 && vectors.dim() == 3, "x has shape ", x.sizes(), ", vectors ",
                    vectors.sizes(), "; expected [N, H, C] and [K, H, C]");
  return {x.size(0), x.size(1), x.size(2), vectors.size(0)};
}

// x [N, H, C], vectors [K, H, C]: out [K, N, H], the dot products head by head.
template <class Device>
at::Tensor head_terms(const at::Tensor& x, const at::Tensor& vectors) {
  const HeadTermsShape shape = head_terms_shape(x, vectors);
  const auto [N, H, C, K] = shape;
  const at::Tensor v = prepare(vectors, {K, H, C}, x, "vectors");
  Device device(x);
  const at::Tensor rows = x.contiguous();
  const at::Tensor out = allocate({K, N, H}, x.options());
  with_storage_type(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    device.template head_terms<T>(shape, data<T>(rows), data<T>(v), mutable_data<T>(out));
  });
  return out;
}

// The gradients of x and vectors, or empty tensors; grad is [K, N, H].
template <class Device>
std::tuple<at::Tensor, at::Tensor> head_terms_backward(const at::Tensor& grad, const at::Tensor& x,
                                                       const at::Tensor& vectors, bool needs_x,
                                                       bool needs_vectors) {
  const HeadTermsShape shape = head_terms_shape(x, vectors);
  const auto [N, H, C, K] = shape;
  const at::Tensor v = prepare(vectors, {K, H, C}, x, "vectors"),
                   g = prepare(grad, {K, N, H}, x, "grad");
  Device device(x);
  const at::Tensor rows = x.contiguous();
  at::Tensor grad_x, grad_vectors;
  if (needs_x) grad_x = allocate({N, H, C}, x.options());
  if (needs_vectors) grad_vectors = allocate({K, H, C}, x.options());
  with_storage_type(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    device.template head_terms_backward<T>(shape, data<T>(rows), data<T>(v), data<T>(g),
                                           mutable_data<T>(grad_x), grad_vectors);
  });
  const auto or_empty = [&](const at::Tensor& t) {
    return t.defined() ? t : at::empty({0}, x.options());
  };
  return {or_empty(grad_x), or_empty(grad_vectors)};
}

// Registers the operators under the dispatch key of m.
template <class Device>
void register_head_terms(torch::Library& m) {
  m.impl("head_terms", &head_terms<Device>);
  m.impl("head_terms_backward", &head_terms_backward<Device>);
}

}  // namespace gat::binding
