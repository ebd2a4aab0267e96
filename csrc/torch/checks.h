// Checks of the arguments of the operators, and the views of tensors that kernels take. The public
// functions of gat_ext.functional check their arguments before, with messages in the caller's
// terms; these checks are for code that calls the operators directly.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include "../core/csr.h"
#include "../core/philox.h"
#include "../core/types.h"
#include "schema.h"

namespace gat::binding {

inline void check_shape(const at::Tensor& t, at::IntArrayRef shape, const char* name) {
  TORCH_CHECK_VALUE(t.sizes() == shape, name, " has shape ", t.sizes(), "; expected ", shape);
}

inline void check_device(const at::Tensor& t, at::Device device, const char* name) {
  TORCH_CHECK_VALUE(t.device() == device, name, " is on ", t.device(), "; expected ", device);
}

// The argument as a contiguous tensor, after a check of its shape, dtype and device; undefined
// where it is absent.
inline at::Tensor prepare(const OptionalTensor& t, at::IntArrayRef shape, const at::Tensor& like,
                          const char* name) {
  if (!t.has_value()) return {};
  TORCH_CHECK_TYPE(t->scalar_type() == like.scalar_type(), name, " has dtype ", t->scalar_type(),
                   "; expected ", like.scalar_type());
  check_device(*t, like.device(), name);
  check_shape(*t, shape, name);
  return t->contiguous();
}

inline IndexArray index_array(const at::Tensor& t, const char* name) {
  if (!t.defined()) return {};
  TORCH_CHECK_TYPE(t.scalar_type() == at::kInt || t.scalar_type() == at::kLong, name, " has dtype ",
                   t.scalar_type(), "; expected int32 or int64");
  TORCH_CHECK_VALUE(t.is_contiguous() && t.dim() == 1, name, " has shape ", t.sizes(),
                    " and strides ", t.strides(), "; expected a contiguous vector");
  return {t.const_data_ptr(), t.scalar_type() == at::kLong};
}

// The CSR of num_edges edges; col is undefined where columns are not read. The tensors must outlive
// the view. Indices are not checked, because the Graph has checked them.
inline CsrView csr_view(const at::Tensor& rowptr, const at::Tensor& col,
                        const OptionalTensor& edge_id, std::int64_t num_edges, at::Device device) {
  TORCH_CHECK_TYPE(rowptr.scalar_type() == at::kLong, "rowptr has dtype ", rowptr.scalar_type(),
                   "; expected int64");
  TORCH_CHECK_VALUE(rowptr.dim() == 1 && rowptr.numel() >= 1 && rowptr.is_contiguous(),
                    "rowptr has shape ", rowptr.sizes(), " and strides ", rowptr.strides(),
                    "; expected a contiguous vector of at least one element");
  check_device(rowptr, device, "rowptr");
  CsrView view{
      rowptr.const_data_ptr<std::int64_t>(), index_array(col, "col"), {}, rowptr.numel() - 1};
  if (col.defined()) check_device(col, device, "col");
  if (edge_id.has_value()) {
    check_shape(*edge_id, {num_edges}, "edge_id");
    check_device(*edge_id, device, "edge_id");
    view.edge_id = index_array(*edge_id, "edge_id");
  }
  return view;
}

// number [count] takes the place of the positions of `count` edges, or rows, in the draws.
inline Dropout make_dropout(const OptionalTensor& seed, double p, at::Device device,
                            const OptionalTensor& number = {}, std::int64_t count = 0) {
  if (p <= 0) return {};
  TORCH_CHECK_VALUE(seed.has_value() && seed->numel() == 1 && seed->scalar_type() == at::kLong,
                    "dropout needs a seed: an int64 tensor of one element");
  check_device(*seed, device, "seed");
  if (!number.has_value()) return Dropout::make(p, seed->const_data_ptr<std::int64_t>());
  TORCH_CHECK_TYPE(number->scalar_type() == at::kLong, "the numbers for dropout have dtype ",
                   number->scalar_type(), "; expected int64");
  check_shape(*number, {count}, "the numbers for dropout");
  check_device(*number, device, "the numbers for dropout");
  TORCH_CHECK_VALUE(number->is_contiguous(), "the numbers for dropout are not contiguous");
  return Dropout::make(p, seed->const_data_ptr<std::int64_t>(),
                       number->const_data_ptr<std::int64_t>());
}

}  // namespace gat::binding
