// adjacency_csr in torch's operators, for devices without a kernel for it: no size depends on the
// edges, and nothing waits for the device.
#pragma once

#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "adjacency.h"

namespace gat::binding::by_torch {

using at::Tensor;

inline Tensor row_pointers(const Tensor& ascending, std::int64_t num_rows) {
  return at::searchsorted(ascending, at::arange(num_rows + 1, ascending.options()));
}

// The row of each position; the last one for those behind it.
inline Tensor expand_rows(const Tensor& rowptr, std::int64_t num_edges) {
  // Not repeat_interleave, which starts all threads even for a few edges.
  const Tensor starts = at::zeros({num_edges + 1}, rowptr.options()),
               inner = rowptr.slice(0, 1, -1);
  starts.index_add_(0, inner, at::ones_like(inner));
  return starts.cumsum_(0).narrow(0, 0, num_edges);
}

// int64 [2, E], in the caller's order.
inline Tensor edge_index_of(const Edges& e) {
  if (!e.col.has_value()) return e.edges.to(at::kLong);
  const Tensor by_position =
      at::stack({e.col->to(at::kLong), expand_rows(e.edges, e.col->numel())});
  if (!e.edge_id.has_value()) return by_position;
  return at::empty_like(by_position).index_copy_(1, e.edge_id->to(at::kLong), by_position);
}

// int64 [4]: the lowest source and destination, then the highest; of at least one edge.
inline Tensor bounds_of(const Tensor& edge_index) {
  // One row at a time: a reduction over a dimension starts all threads, even for a few edges.
  const auto [low_src, high_src] = at::aminmax(edge_index[0]);
  const auto [low_dst, high_dst] = at::aminmax(edge_index[1]);
  return at::stack({low_src, low_dst, high_src, high_dst});
}

// Edges out of range are sorted behind the last row, with the replaced self-loops: the kernels of
// edge_attention never read them.
inline AdjacencyCsr sorted(const Edges& e, const Sorting& sorting, const Tensor& edge_index) {
  const auto narrowed = [&](const Tensor& indices) { return indices.to(sorting.dtype()); };
  Tensor ends = edge_index;
  if (e.self_loops) {
    ends = at::cat({ends, at::arange(e.num_loops(), ends.options()).expand({2, -1})}, 1);
  }
  const Tensor src = ends[0], dst = ends[1];
  const Tensor is_none = src.lt(0)
                             .logical_or_(src.ge(e.num_src))
                             .logical_or_(dst.lt(0))
                             .logical_or_(dst.ge(e.num_dst));
  if (e.self_loops)
    is_none.narrow(0, 0, e.num_given()).logical_or_(edge_index[0].eq(edge_index[1]));
  const auto [rows, order] =
      at::sort(narrowed(dst.masked_fill(is_none, e.num_dst)), /*stable=*/true, 0, false);
  const Tensor rowptr = row_pointers(rows, e.num_dst), edge_id = narrowed(order),
               col = narrowed(src.masked_fill(is_none, 0)).index_select(0, order);
  if (!sorting.transpose) {
    const auto none = [](const Tensor& like) { return at::empty({0}, like.options()); };
    return {rowptr, col, edge_id, none(rowptr), none(col), none(col), none(col)};
  }
  const Tensor behind = rows.ge(e.num_dst);
  const auto [columns, pos] =
      at::sort(col.masked_fill(behind, e.num_src), /*stable=*/true, 0, false);
  return {rowptr,
          col,
          edge_id,
          row_pointers(columns, e.num_src),
          rows.masked_fill(behind, 0).index_select(0, pos),
          narrowed(pos),
          edge_id.index_select(0, pos)};
}

}  // namespace gat::binding::by_torch
