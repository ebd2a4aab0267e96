// edge_softmax, sddmm, spmm, edge_dot, edge_sum and the dropout mask, and what the gradients of
// spmm with an extremum are made of, written once for every device: checks, outputs, and the
// arguments of the kernels.
//
// A device is a type with Device(tensor), which makes the device current during its lifetime, and
// one member function per operator.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <cstdint>
#include <limits>
#include <tuple>

#include "../core/mutable_index.h"
#include "../core/philox.h"
#include "allocate.h"
#include "checks.h"
#include "dispatch.h"

namespace gat::binding {

// A graph and the sizes of the tensors over it.
struct SparseShape {
  CsrView csr;
  std::int64_t num_cols, num_edges, num_heads, channels;
};

template <class Device>
at::Tensor edge_softmax(const at::Tensor& rowptr, const OptionalTensor& edge_id,
                        const at::Tensor& scores) {
  TORCH_CHECK_VALUE(scores.dim() == 2, "scores has shape ", scores.sizes(), "; expected [E, H]");
  const at::Tensor s = scores.contiguous(), alpha = allocate_like(s);
  const CsrView csr = csr_view(rowptr, {}, edge_id, s.size(0), s.device());
  Device device(scores);
  with_storage_type(s.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    device.template edge_softmax<T>({csr, 0, s.size(0), s.size(1), 0}, data<T>(s),
                                    mutable_data<T>(alpha));
  });
  return alpha;
}

template <class Device>
at::Tensor edge_softmax_backward(const at::Tensor& rowptr, const OptionalTensor& edge_id,
                                 const at::Tensor& grad, const at::Tensor& alpha) {
  TORCH_CHECK_VALUE(alpha.dim() == 2, "alpha has shape ", alpha.sizes(), "; expected [E, H]");
  const at::Tensor a = alpha.contiguous(), g = prepare(grad, a.sizes(), a, "grad"),
                   grad_scores = allocate_like(a);
  const CsrView csr = csr_view(rowptr, {}, edge_id, a.size(0), a.device());
  Device device(alpha);
  with_storage_type(a.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    device.template edge_softmax_backward<T>({csr, 0, a.size(0), a.size(1), 0}, data<T>(g),
                                             data<T>(a), mutable_data<T>(grad_scores));
  });
  return grad_scores;
}

template <class Device>
at::Tensor sddmm(const at::Tensor& rowptr, const at::Tensor& col, const OptionalTensor& edge_id,
                 const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                 const at::Tensor& x, const at::Tensor& y) {
  TORCH_CHECK_VALUE(x.dim() == 3 && y.dim() == 3, "x has shape ", x.sizes(), ", y ", y.sizes(),
                    "; expected [N, H, F]");
  const CsrView csr = csr_view(rowptr, col, edge_id, col.numel(), x.device());
  Device device(x);
  const std::int64_t H = x.size(1), F = x.size(2);
  const at::Tensor xs = prepare(x, {csr.num_rows, H, F}, x, "x"),
                   ys = prepare(y, {y.size(0), H, F}, x, "y");
  const at::Tensor out = allocate({col.numel(), H}, x.options());
  with_storage_type(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    device.template sddmm<T>({csr, y.size(0), col.numel(), H, F}, data<T>(xs), data<T>(ys),
                             mutable_data<T>(out));
  });
  return out;
}

template <class Device>
at::Tensor spmm(const at::Tensor& rowptr, const at::Tensor& col, const OptionalTensor& edge_id,
                const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                const OptionalTensor& weight, const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() == 3, "x has shape ", x.sizes(), "; expected [N_src, H, F]");
  const CsrView csr = csr_view(rowptr, col, edge_id, col.numel(), x.device());
  Device device(x);
  const std::int64_t H = x.size(1), F = x.size(2);
  const at::Tensor xs = x.contiguous(), w = prepare(weight, {col.numel(), H}, x, "weight");
  const at::Tensor out = allocate({csr.num_rows, H, F}, x.options());
  with_storage_type(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    device.template spmm<T>({csr, x.size(0), col.numel(), H, F}, data<T>(w), data<T>(xs),
                            mutable_data<T>(out));
  });
  return out;
}

template <class Device>
std::tuple<at::Tensor, at::Tensor> spmm_extremum(const at::Tensor& rowptr, const at::Tensor& col,
                                                 const OptionalTensor& edge_id,
                                                 const OptionalTensor&, const OptionalTensor&,
                                                 const OptionalTensor&,
                                                 const OptionalTensor& weight, const at::Tensor& x,
                                                 bool largest) {
  TORCH_CHECK_VALUE(x.dim() == 3, "x has shape ", x.sizes(), "; expected [N_src, H, F]");
  const CsrView csr = csr_view(rowptr, col, edge_id, col.numel(), x.device());
  TORCH_CHECK_VALUE(csr.col.wide || col.numel() <= std::numeric_limits<std::int32_t>::max(),
                    "col has ", col.numel(),
                    " edges in int32; expected less than 2^31: pass int64");
  Device device(x);
  const std::int64_t H = x.size(1), F = x.size(2);
  const at::Tensor xs = x.contiguous(), w = prepare(weight, {col.numel(), H}, x, "weight");
  const at::Tensor out = allocate({csr.num_rows, H, F}, x.options());
  const at::Tensor arg = allocate(out.sizes(), x.options().dtype(col.scalar_type()));
  with_storage_type(x.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    device.template spmm_extremum<T>({csr, x.size(0), col.numel(), H, F}, largest ? 1 : -1,
                                     data<T>(w), data<T>(xs), mutable_data<T>(out),
                                     {arg.mutable_data_ptr(), csr.col.wide});
  });
  return {out, arg};
}

template <class Device>
at::Tensor spmm_extremum_backward(const at::Tensor&, const at::Tensor&, const OptionalTensor&,
                                  const OptionalTensor& t_rowptr, const OptionalTensor& t_col,
                                  const OptionalTensor& t_edge_id, const OptionalTensor& weight,
                                  const at::Tensor& grad, const at::Tensor& arg) {
  TORCH_CHECK_VALUE(t_rowptr && t_col && t_edge_id, "the transpose of the graph is missing");
  TORCH_CHECK_VALUE(grad.dim() == 3, "grad has shape ", grad.sizes(), "; expected [N_dst, H, F]");
  check_shape(arg, grad.sizes(), "arg");
  check_device(arg, grad.device(), "arg");
  const CsrView csr = csr_view(*t_rowptr, *t_col, t_edge_id, t_col->numel(), grad.device());
  Device device(grad);
  const std::int64_t H = grad.size(1), F = grad.size(2);
  const at::Tensor g = grad.contiguous(), a = arg.contiguous(),
                   w = prepare(weight, {t_col->numel(), H}, grad, "weight");
  const IndexArray winners = index_array(a.view(-1), "arg");
  const at::Tensor grad_x = allocate({csr.num_rows, H, F}, grad.options());
  with_storage_type(grad.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    device.template spmm_extremum_backward<T>({csr, grad.size(0), t_col->numel(), H, F}, data<T>(w),
                                              data<T>(g), winners, mutable_data<T>(grad_x));
  });
  return grad_x;
}

// Sums of 16-bit values are rounded once, at the end.
template <class Device>
at::Tensor winner_sum(const at::Tensor& rowptr, const OptionalTensor& edge_id,
                      std::int64_t num_edges, const at::Tensor& values, const at::Tensor& arg) {
  TORCH_CHECK_VALUE(values.dim() == 3, "values has shape ", values.sizes(),
                    "; expected [N_dst, H, F]");
  check_shape(arg, values.sizes(), "arg");
  check_device(arg, values.device(), "arg");
  const CsrView csr = csr_view(rowptr, {}, edge_id, num_edges, values.device());
  check_shape(values, {csr.num_rows, values.size(1), values.size(2)}, "values");
  Device device(values);
  const std::int64_t H = values.size(1);
  const at::Tensor v = values.contiguous(), a = arg.contiguous();
  const IndexArray winners = index_array(a.view(-1), "arg");
  at::Tensor out;
  with_storage_type(values.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    const auto dtype = c10::CppTypeToScalarType<Acc<T>>::value;
    out = allocate({num_edges, H}, values.options().dtype(dtype));
    device.template winner_sum<T>({csr, 0, num_edges, H, values.size(2)}, data<T>(v), winners,
                                  mutable_data<Acc<T>>(out));
  });
  return out.to(values.scalar_type());
}

template <class Device>
at::Tensor edge_dot(const at::Tensor& rowptr, const OptionalTensor& edge_id,
                    const at::Tensor& query, const at::Tensor& edge_attr) {
  TORCH_CHECK_VALUE(query.dim() == 3 && edge_attr.dim() == 2, "query has shape ", query.sizes(),
                    ", edge_attr ", edge_attr.sizes(), "; expected [N_dst, H, K] and [E, K]");
  const std::int64_t E = edge_attr.size(0), H = query.size(1), K = query.size(2);
  const CsrView csr = csr_view(rowptr, {}, edge_id, E, query.device());
  Device device(query);
  const at::Tensor q = prepare(query, {csr.num_rows, H, K}, query, "query"),
                   e = prepare(edge_attr, {E, K}, query, "edge_attr");
  const at::Tensor out = allocate({E, H}, query.options());
  with_storage_type(query.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    device.template edge_dot<T>({csr, 0, E, H, K}, data<T>(q), data<T>(e), mutable_data<T>(out));
  });
  return out;
}

template <class Device>
at::Tensor edge_sum(const at::Tensor& rowptr, const OptionalTensor& edge_id,
                    const at::Tensor& weight, const at::Tensor& edge_attr) {
  TORCH_CHECK_VALUE(weight.dim() == 2 && edge_attr.dim() == 2, "weight has shape ", weight.sizes(),
                    ", edge_attr ", edge_attr.sizes(), "; expected [E, H] and [E, K]");
  const std::int64_t E = weight.size(0), H = weight.size(1), K = edge_attr.size(1);
  const CsrView csr = csr_view(rowptr, {}, edge_id, E, weight.device());
  Device device(weight);
  const at::Tensor w = weight.contiguous(), e = prepare(edge_attr, {E, K}, weight, "edge_attr");
  const at::Tensor out = allocate({csr.num_rows, H, K}, weight.options());
  with_storage_type(weight.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    device.template edge_sum<T>({csr, 0, E, H, K}, data<T>(w), data<T>(e), mutable_data<T>(out));
  });
  return out;
}

template <class Device>
at::Tensor edge_dropout_mask(const at::Tensor& seed, std::int64_t num_edges, std::int64_t num_heads,
                             double dropout_p, const OptionalTensor& edge_number) {
  Device device(seed);
  const at::Tensor mask = allocate({num_edges, num_heads}, seed.options().dtype(at::kBool));
  device.dropout_mask(make_dropout(seed, dropout_p, seed.device(), edge_number, num_edges),
                      num_edges, num_heads, mutable_data<bool>(mask));
  return mask;
}

// Registers the operators under the dispatch key of m.
template <class Device>
void register_sparse(torch::Library& m) {
  m.impl("edge_softmax", &edge_softmax<Device>);
  m.impl("edge_softmax_backward", &edge_softmax_backward<Device>);
  m.impl("sddmm", &sddmm<Device>);
  m.impl("spmm", &spmm<Device>);
  m.impl("spmm_extremum", &spmm_extremum<Device>);
  m.impl("spmm_extremum_backward", &spmm_extremum_backward<Device>);
  m.impl("winner_sum", &winner_sum<Device>);
  m.impl("edge_dot", &edge_dot<Device>);
  m.impl("edge_sum", &edge_sum<Device>);
  m.impl("edge_dropout_mask", &edge_dropout_mask<Device>);
}

}  // namespace gat::binding
