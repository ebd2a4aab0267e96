// head_terms and its gradient on every device. A device has
//   Device(tensor)                        makes the device of the tensor current
//   head_terms(shape, x, att, out)
//   head_terms_backward(shape, x, att, grad, grad_x, grad_att)
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

inline HeadTermsShape head_terms_shape(const at::Tensor& x, const at::Tensor& att) {
  TORCH_CHECK_VALUE(x.dim() == 3 && att.dim() == 3, "x has shape ", x.sizes(), ", att ",
                    att.sizes(), "; expected [N, H, C] and [K, H, C]");
  return {x.size(0), x.size(1), x.size(2), att.size(0)};
}

// x [N, H, C], att [K, H, C]: out [K, N, H], the dot products head by head.
template <class Device>
at::Tensor head_terms(const at::Tensor& x, const at::Tensor& att) {
  const HeadTermsShape shape = head_terms_shape(x, att);
  const auto [N, H, C, K] = shape;
  const at::Tensor vectors = prepare(att, {K, H, C}, x, "att");
  Device device(x);
  const at::Tensor rows = x.contiguous();
  const at::Tensor out = allocate({K, N, H}, x.options());
  with_storage_type(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    device.template head_terms<T>(shape, data<T>(rows), data<T>(vectors), mutable_data<T>(out));
  });
  return out;
}

// The gradients of x and att, or empty tensors; grad is [K, N, H].
template <class Device>
std::tuple<at::Tensor, at::Tensor> head_terms_backward(const at::Tensor& grad, const at::Tensor& x,
                                                       const at::Tensor& att, bool needs_x,
                                                       bool needs_att) {
  const HeadTermsShape shape = head_terms_shape(x, att);
  const auto [N, H, C, K] = shape;
  const at::Tensor vectors = prepare(att, {K, H, C}, x, "att"),
                   g = prepare(grad, {K, N, H}, x, "grad");
  Device device(x);
  const at::Tensor rows = x.contiguous();
  at::Tensor grad_x, grad_att;
  if (needs_x) grad_x = allocate({N, H, C}, x.options());
  if (needs_att) grad_att = allocate({K, H, C}, x.options());
  with_storage_type(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    device.template head_terms_backward<T>(shape, data<T>(rows), data<T>(vectors), data<T>(g),
                                           mutable_data<T>(grad_x), grad_att);
  });
  const auto or_empty = [&](const at::Tensor& t) {
    return t.defined() ? t : at::empty({0}, x.options());
  };
  return {or_empty(grad_x), or_empty(grad_att)};
}

// Registers the operators under the dispatch key of m.
template <class Device>
void register_head_terms(torch::Library& m) {
  m.impl("head_terms", &head_terms<Device>);
  m.impl("head_terms_backward", &head_terms_backward<Device>);
}

}  // namespace gat::binding
