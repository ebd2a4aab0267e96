// The CSR of edges as the value of an operator, for programs that cannot read the edges before they
// run: see Note [slots] in adjacency.cpp.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <tuple>

#include "../core/csr.h"
#include "operator.h"
#include "schema.h"

namespace gat::binding {

// An edge_index [2, E], or the rowptr that belongs to col and edge_id. With self_loops, one loop
// for each node that is source and destination replaces the given loops.
struct Edges {
  at::Tensor edges;
  OptionalTensor col, edge_id;
  std::int64_t num_src, num_dst;
  bool self_loops;

  static std::string schema() {
    return "Tensor edges, Tensor? col, Tensor? edge_id, SymInt num_src, SymInt num_dst, "
           "bool self_loops";
  }
  auto members() const { return std::tie(edges, col, edge_id, num_src, num_dst, self_loops); }

  std::int64_t num_given() const { return col.has_value() ? col->numel() : edges.size(1); }
  std::int64_t num_loops() const { return self_loops ? std::min(num_src, num_dst) : 0; }
  std::int64_t num_slots() const { return num_given() + num_loops(); }
};

// Whether the indices have 32 bits, and whether the transpose is needed.
struct Sorting {
  bool narrow, transpose;

  static std::string schema() { return "bool narrow, bool transpose"; }
  auto members() const { return std::tie(narrow, transpose); }

  at::ScalarType dtype() const { return narrow ? at::kInt : at::kLong; }
};

// By destination rowptr, col, edge_id; by source t_rowptr, t_col, t_pos, t_edge_id, of shape [0]
// without a transpose: as in struct SortedGraph, with a row of col and all behind it for each slot.
using AdjacencyCsr =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

inline constexpr std::size_t kByDestination = 3;  // the first of the transpose

// On the CPU, drops all that is cached. Exported because the Python module is a separate library.
__attribute__((visibility("default"))) void empty_graph_cache();

// On the CPU, the number of lists of edges whose CSR is cached, including those freed since the
// last was added.
__attribute__((visibility("default"))) std::size_t graph_cache_size();

namespace ops {

struct AdjacencyCsr : Operator<AdjacencyCsr, binding::AdjacencyCsr, Edges, Sorting> {
  static constexpr const char* kName = "gat_ext::adjacency_csr";
  static std::string results() {
    return "Tensor rowptr, Tensor col, Tensor edge_id, Tensor t_rowptr, Tensor t_col, "
           "Tensor t_pos, Tensor t_edge_id";
  }
};

}  // namespace ops

// ---- checks

inline void check_form(const Edges& e, const Sorting& sorting) {
  const at::Tensor& edges = e.edges;
  if (!e.col.has_value()) {
    TORCH_CHECK_TYPE(edges.scalar_type() == at::kInt || edges.scalar_type() == at::kLong,
                     "edge_index has dtype ", edges.scalar_type(), "; expected int32 or int64");
    TORCH_CHECK_VALUE(edges.dim() == 2 && edges.size(0) == 2, "edge_index has shape ",
                      edges.sizes(), "; expected [2, E]");
  }
  TORCH_CHECK_VALUE(
      !sorting.narrow || std::max({e.num_src, e.num_dst, e.num_slots()}) <
                             std::numeric_limits<std::int32_t>::max(),
      "the graph has more nodes or edges than int32 can count; expected narrow=False");
}

// The lowest source and destination, and the highest, of at least one edge.
struct EdgeBounds {
  std::int64_t low[2], high[2];
};

// Raises unless all sources and destinations are nodes.
inline void check_bounds(const EdgeBounds& bounds, std::int64_t num_src, std::int64_t num_dst) {
  const std::int64_t count[] = {num_src, num_dst};
  for (const int row : {0, 1}) {
    const char* const name = row == 0 ? "num_src" : "num_dst";
    TORCH_CHECK_INDEX(bounds.low[row] >= 0, "edge_index[", row, "] contains ", bounds.low[row],
                      "; expected node numbers of at least 0");
    TORCH_CHECK_INDEX(bounds.high[row] < count[row], "edge_index[", row, "] contains ",
                      bounds.high[row], "; expected node numbers below ", name, "=", count[row],
                      ", counted from 0");
  }
}

}  // namespace gat::binding
