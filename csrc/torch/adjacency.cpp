// Graph building in torch's operators, for devices without kernels for it.
//
// Note [slots]. Replacing self-loops, sorting and transposing depend on the data, so Python, which
// does them before the operator of an eager layer, cannot do them in a trace: there the CSR is the
// value of adjacency_csr, an operator whose results have sizes that the shapes determine. Edge
// tensors have a row for each slot: first the given edges in their order, then, where self-loops
// are replaced, one loop for each node that is both source and destination. The slot of a replaced
// loop is no edge: it is sorted behind the last row, so that no kernel reads it, and its results
// are 0. gat_ext/ops/slots.py has the same slots.
//
// Because the operator is pure, a program sorts once for all of its layers, keeps the CSR for their
// gradients, and may be captured in a CUDA graph.
#include "adjacency.h"

#include <torch/library.h>

#include "adjacency_sort.h"

namespace gat::binding {
namespace {

using Csr = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

Csr csr_of_edges(const at::Tensor& src, const at::Tensor& dst, std::int64_t num_dst) {
  const auto [ascending, order] = at::sort(dst, /*stable=*/true, 0, false);
  return {by_torch::row_pointers(ascending, num_dst), src.index_select(0, order),
          order.to(src.scalar_type())};
}

Csr csr_transpose(const at::Tensor& rowptr, const at::Tensor& col, std::int64_t num_src) {
  const auto [ascending, order] = at::sort(col, /*stable=*/true, 0, false);
  const at::Tensor rows = by_torch::expand_rows(rowptr, col.numel()).index_select(0, order);
  return {by_torch::row_pointers(ascending, num_src), rows.to(col.scalar_type()),
          order.to(col.scalar_type())};
}

// CUDA does not wait for the bounds: see cuda/adjacency.cpp.
AdjacencyCsr adjacency_csr(const Edges& e, const Sorting& sorting) {
  check_form(e, sorting);
  const at::Tensor edge_index = by_torch::edge_index_of(e);
  if (!e.col.has_value() && e.num_given() > 0) {
    const at::Tensor bounds = by_torch::bounds_of(edge_index).to(at::kCPU);
    check_bounds(*static_cast<const EdgeBounds*>(bounds.const_data_ptr()), e.num_src, e.num_dst);
  }
  return by_torch::sorted(e, sorting, edge_index);
}

}  // namespace

TORCH_LIBRARY_IMPL(gat_ext, CompositeExplicitAutograd, m) {
  m.impl("csr_of_edges", &csr_of_edges);
  m.impl("csr_transpose", &csr_transpose);
  m.impl("adjacency_csr", &ops::AdjacencyCsr::flat<&adjacency_csr>);
}

}  // namespace gat::binding
