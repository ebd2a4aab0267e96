// The dense steps of a layer: torch's operators with results from the block cache, and dropout.
#include <ATen/ops/add.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/le.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/masked_fill.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/threshold_backward.h>
#include <torch/library.h>

#include <array>
#include <tuple>

#include "../../cpu/isa.h"
#include "../../cpu/sparse.h"
#include "../allocate.h"
#include "../checks.h"
#include "../dispatch.h"
#include "../threads.h"

namespace gat::binding {
namespace {

// x [N, C], weight [K, C], bias [K]: x weight^T + bias.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const OptionalTensor& bias) {
  TORCH_CHECK_VALUE(x.dim() == 2 && weight.dim() == 2 && x.size(1) == weight.size(1),
                    "x has shape ", x.sizes(), ", weight ", weight.sizes(),
                    "; expected [N, C] and [K, C]");
  at::Tensor out = allocate({x.size(0), weight.size(0)}, x.options());
  return bias.has_value() ? at::addmm_out(out, *bias, x, weight.t())
                          : at::mm_out(out, x, weight.t());
}

// The gradients of x, weight and bias that are needed.
std::tuple<at::Tensor, at::Tensor, at::Tensor> linear_backward(const at::Tensor& grad,
                                                               const at::Tensor& x,
                                                               const at::Tensor& weight,
                                                               std::array<bool, 3> needs_grad) {
  check_shape(grad, {x.size(0), weight.size(0)}, "grad");
  // A separate tensor each: results of an operator must not share memory.
  const auto none = [&] { return at::empty({0}, x.options()); };
  at::Tensor grad_x = none();
  if (needs_grad[0]) {
    grad_x = allocate(x.sizes(), x.options());
    at::mm_out(grad_x, grad, weight);
  }
  return {grad_x, needs_grad[1] ? at::mm(grad.t(), x) : none(),
          needs_grad[2] ? at::sum(grad, 0) : none()};
}

// x + other, broadcast to the shape of x.
at::Tensor add(const at::Tensor& x, const at::Tensor& other) {
  at::Tensor out = allocate_like(x);
  return at::add_out(out, x, other);
}

// x [..., D] times factor [..., 1].
at::Tensor scale(const at::Tensor& x, const at::Tensor& factor) {
  at::Tensor out = allocate_like(x);
  return at::mul_out(out, x, factor);
}

// 1 / |x| over the last dimension; 0 where the norm is at most eps.
at::Tensor inverse_norm(const at::Tensor& x, double eps) {
  const at::Tensor norm = at::linalg_vector_norm(x, 2, at::IntArrayRef{-1});
  return at::reciprocal(norm).masked_fill_(norm.le(eps), 0);
}

at::Tensor relu(const at::Tensor& x) {
  at::Tensor out = allocate_like(x);
  return at::clamp_min_out(out, x, 0);
}

// grad where out, the result of relu, is positive.
at::Tensor relu_backward(const at::Tensor& grad, const at::Tensor& out) {
  at::Tensor grad_x = allocate_like(out);
  return at::threshold_backward_out(grad_x, grad, out, 0);
}

// x times 0 with probability p, otherwise times 1 / (1 - p). row_number [N] numbers the rows of x
// [N, ...] in the draws; without it they have their positions.
at::Tensor dropout(const at::Tensor& x, const at::Tensor& seed, double p,
                   const OptionalTensor& row_number) {
  TORCH_CHECK_VALUE(p > 0 && p <= 1, "p is ", p, "; expected a probability above 0");
  TORCH_CHECK_VALUE(!row_number.has_value() || x.dim() > 0, "x has no rows to number");
  const std::int64_t rows = row_number.has_value() ? x.size(0) : 1,
                     channels = rows == 0 ? 0 : x.numel() / rows;
  const Dropout dropout = make_dropout(seed, p, x.device(), row_number, rows);
  const at::Tensor in = x.contiguous(), out = allocate_like(in);
  with_storage_type(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto kernels =
        cpu::with_isa([](auto isa) { return cpu::sparse_kernels<decltype(isa), T>(); });
    kernels.dropout(dropout, rows, channels, data<T>(in), mutable_data<T>(out), num_threads());
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(gat_ext, CPU, m) {
  m.impl("linear", &linear);
  m.impl("linear_backward", &linear_backward);
  m.impl("add", &add);
  m.impl("scale", &scale);
  m.impl("inverse_norm", &inverse_norm);
  m.impl("relu", &relu);
  m.impl("relu_backward", &relu_backward);
  m.impl("dropout", &dropout);
}

}  // namespace gat::binding
