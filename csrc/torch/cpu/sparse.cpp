// edge_softmax, sddmm, spmm and the dropout mask on the CPU.
#include "../../cpu/sparse.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <tuple>

#include "../../core/philox.h"
#include "../../cpu/isa.h"
#include "../checks.h"
#include "../dispatch.h"

namespace gat::binding {
namespace {

// Calls f with the kernels and the storage type of dtype.
template <class F>
void with_kernels(at::ScalarType dtype, F&& f) {
  with_storage_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    f(cpu::with_isa([](auto isa) { return cpu::sparse_kernels<decltype(isa), T>(); }), type);
  });
}

// The CSR of an operator on edge values alone: columns are not read.
CsrView rows_view(const at::Tensor& rowptr, const OptionalTensor& edge_id, std::int64_t num_edges) {
  CsrView view = csr_view(rowptr, edge_id.has_value() ? *edge_id : at::empty({num_edges}, rowptr.options()), edge_id);
  view.col = {};
  return view;
}

at::Tensor edge_softmax(const at::Tensor& rowptr, const OptionalTensor& edge_id, const at::Tensor& scores) {
  TORCH_CHECK_VALUE(scores.dim() == 2, "scores must be [E, H]; they have shape ", scores.sizes());
  const at::Tensor s = scores.contiguous(), alpha = at::empty_like(s);
  const CsrView csr = rows_view(rowptr, edge_id, s.size(0));
  with_kernels(s.scalar_type(), [&](const auto& kernels, auto type) {
    using T = typename decltype(type)::type;
    kernels.edge_softmax(csr, s.size(1), data<T>(s), mutable_data<T>(alpha), at::get_num_threads());
  });
  return alpha;
}

at::Tensor edge_softmax_backward(const at::Tensor& rowptr, const OptionalTensor& edge_id, const at::Tensor& grad,
                                 const at::Tensor& alpha) {
  TORCH_CHECK_VALUE(alpha.dim() == 2, "alpha must be [E, H]; it has shape ", alpha.sizes());
  const at::Tensor a = alpha.contiguous(), g = prepare(grad, a.sizes(), a, "grad"), grad_scores = at::empty_like(a);
  const CsrView csr = rows_view(rowptr, edge_id, a.size(0));
  with_kernels(a.scalar_type(), [&](const auto& kernels, auto type) {
    using T = typename decltype(type)::type;
    kernels.edge_softmax_backward(csr, a.size(1), data<T>(g), data<T>(a), mutable_data<T>(grad_scores), at::get_num_threads());
  });
  return grad_scores;
}

at::Tensor sddmm(const at::Tensor& rowptr, const at::Tensor& col, const OptionalTensor& edge_id, const OptionalTensor&,
                 const OptionalTensor&, const OptionalTensor&, const at::Tensor& x, const at::Tensor& y) {
  TORCH_CHECK_VALUE(x.dim() == 3 && y.dim() == 3, "x and y must be [N, H, F]; they have shapes ", x.sizes(), " and ", y.sizes());
  const CsrView csr = csr_view(rowptr, col, edge_id);
  const std::int64_t H = x.size(1), F = x.size(2);
  const at::Tensor xs = prepare(x, {csr.num_rows, H, F}, x, "x"), ys = prepare(y, {y.size(0), H, F}, x, "y");
  const at::Tensor out = at::empty({col.numel(), H}, x.options());
  with_kernels(x.scalar_type(), [&](const auto& kernels, auto type) {
    using T = typename decltype(type)::type;
    kernels.sddmm(csr, H, F, data<T>(xs), data<T>(ys), mutable_data<T>(out), at::get_num_threads());
  });
  return out;
}

at::Tensor spmm(const at::Tensor& rowptr, const at::Tensor& col, const OptionalTensor& edge_id, const OptionalTensor&,
                const OptionalTensor&, const OptionalTensor&, const OptionalTensor& weight, const at::Tensor& x) {
  TORCH_CHECK_VALUE(x.dim() == 3, "x must be [N_src, H, F]; it has shape ", x.sizes());
  const CsrView csr = csr_view(rowptr, col, edge_id);
  const std::int64_t H = x.size(1), F = x.size(2);
  const at::Tensor xs = x.contiguous(), w = prepare(weight, {col.numel(), H}, x, "weight");
  const at::Tensor out = at::empty({csr.num_rows, H, F}, x.options());
  with_kernels(x.scalar_type(), [&](const auto& kernels, auto type) {
    using T = typename decltype(type)::type;
    kernels.spmm(csr, H, F, data<T>(w), data<T>(xs), mutable_data<T>(out), at::get_num_threads());
  });
  return out;
}

std::tuple<at::Tensor, at::Tensor> spmm_extremum(const at::Tensor& rowptr, const at::Tensor& col, const OptionalTensor& edge_id,
                                                 const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
                                                 const OptionalTensor& weight, const at::Tensor& x, bool largest) {
  TORCH_CHECK_VALUE(x.dim() == 3, "x must be [N_src, H, F]; it has shape ", x.sizes());
  const CsrView csr = csr_view(rowptr, col, edge_id);
  const std::int64_t H = x.size(1), F = x.size(2);
  const at::Tensor xs = x.contiguous(), w = prepare(weight, {col.numel(), H}, x, "weight");
  const at::Tensor out = at::empty({csr.num_rows, H, F}, x.options());
  const at::Tensor arg = at::empty(out.sizes(), x.options().dtype(at::kLong));
  with_kernels(x.scalar_type(), [&](const auto& kernels, auto type) {
    using T = typename decltype(type)::type;
    kernels.spmm_extremum(csr, H, F, largest ? 1 : -1, data<T>(w), data<T>(xs), mutable_data<T>(out),
                          mutable_data<std::int64_t>(arg), at::get_num_threads());
  });
  return {out, arg};
}

at::Tensor spmm_extremum_backward(const at::Tensor& t_rowptr, const at::Tensor& t_col, const at::Tensor& t_edge_id,
                                  const OptionalTensor& weight, const at::Tensor& grad, const at::Tensor& arg) {
  TORCH_CHECK_VALUE(grad.dim() == 3, "grad must be [N_dst, H, F]; it has shape ", grad.sizes());
  check_shape(arg, grad.sizes(), "arg");
  const CsrView csr = csr_view(t_rowptr, t_col, t_edge_id);
  const std::int64_t H = grad.size(1), F = grad.size(2);
  const at::Tensor g = grad.contiguous(), a = arg.contiguous(), w = prepare(weight, {t_col.numel(), H}, grad, "weight");
  const at::Tensor grad_x = at::empty({csr.num_rows, H, F}, grad.options());
  with_kernels(grad.scalar_type(), [&](const auto& kernels, auto type) {
    using T = typename decltype(type)::type;
    kernels.spmm_extremum_backward(csr, H, F, data<T>(w), data<T>(g), data<std::int64_t>(a), mutable_data<T>(grad_x),
                                   at::get_num_threads());
  });
  return grad_x;
}

at::Tensor edge_dropout_mask(const at::Tensor& seed, std::int64_t num_edges, std::int64_t num_heads, double dropout_p) {
  TORCH_CHECK_VALUE(seed.numel() == 1 && seed.scalar_type() == at::kLong, "seed must be an int64 tensor of one element");
  const Dropout dropout = Dropout::make(dropout_p, static_cast<std::uint64_t>(seed.item<std::int64_t>()));
  const at::Tensor mask = at::empty({num_edges, num_heads}, seed.options().dtype(at::kBool));
  bool* const kept = mutable_data<bool>(mask);
  for (std::int64_t e = 0; e < num_edges; ++e) {
    for (std::int64_t h = 0; h < num_heads; ++h) kept[e * num_heads + h] = dropout.kept(dropout.draw(e, h / 4), h);
  }
  return mask;
}

}  // namespace

TORCH_LIBRARY_IMPL(gat_ext, CPU, m) {
  m.impl("edge_softmax", &edge_softmax);
  m.impl("edge_softmax_backward", &edge_softmax_backward);
  m.impl("sddmm", &sddmm);
  m.impl("spmm", &spmm);
  m.impl("spmm_extremum", &spmm_extremum);
  m.impl("spmm_extremum_backward", &spmm_extremum_backward);
  m.impl("edge_dropout_mask", &edge_dropout_mask);
}

}  // namespace gat::binding
