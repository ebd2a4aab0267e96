// A compressed sparse row view of a graph. It owns no memory. Indices were checked when the graph
// was built.
#pragma once

#include <cstdint>

#include "macros.h"

namespace gat {

// A read-only array of int32 or int64, whose width is known at run time. The width is no template
// parameter because a tile of indices is widened once and then used for whole feature rows.
struct IndexArray {
  const void* data = nullptr;
  bool wide = false;

  GAT_HD explicit operator bool() const { return data != nullptr; }
  GAT_HD std::int64_t operator[](std::int64_t k) const {
    return wide ? static_cast<const std::int64_t*>(data)[k]
                : static_cast<std::int64_t>(static_cast<const std::int32_t*>(data)[k]);
  }
};

// Row r owns the edges rowptr[r] .. rowptr[r + 1]; edge k joins it to col[k].
struct CsrView {
  const std::int64_t* rowptr = nullptr;  // [num_rows + 1]
  IndexArray col;                        // [num_edges]
  IndexArray edge_id;                    // [num_edges] position in the caller's order; null: k
  std::int64_t num_rows = 0;

  GAT_HD std::int64_t num_edges() const { return num_rows == 0 ? 0 : rowptr[num_rows]; }
  GAT_HD std::int64_t id(std::int64_t k) const { return edge_id ? edge_id[k] : k; }
};

}  // namespace gat
