// The slots of edges whose self-loops may be replaced, see Note [slots] in ../torch/adjacency.cpp:
// the source of each, and the row that it is sorted into.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "../core/csr.h"
#include "threads.h"

namespace gat::cpu {

// The lowest and highest node number of a row of an edge_index; low > high without edges.
struct Bounds {
  std::int64_t low = std::numeric_limits<std::int64_t>::max(),
               high = std::numeric_limits<std::int64_t>::min();
};

// The numbers of nodes, and what becomes of self-loops.
struct SlotSizes {
  std::int64_t num_given, num_loops, num_dst;  // num_loops is 0 unless self_loops
  bool self_loops;
};

// [num_given + num_loops] each; row is num_dst, behind the last, for a slot that is no edge.
template <class Index>
struct Slots {
  Index* source;
  Index* row;

  void set(std::int64_t slot, std::int64_t src, std::int64_t dst, const SlotSizes& sizes) const {
    const bool replaced = sizes.self_loops && src == dst;
    source[slot] = static_cast<Index>(replaced ? 0 : src);
    row[slot] = static_cast<Index>(replaced ? sizes.num_dst : dst);
  }
  void add_loops(const SlotSizes& sizes) const {
    for (std::int64_t i = 0; i < sizes.num_loops; ++i) {
      source[sizes.num_given + i] = static_cast<Index>(i);
      row[sizes.num_given + i] = static_cast<Index>(i);
    }
  }
};

// Reads edge_index [2, num_given] with any strides. The bounds of both rows are returned, and the
// slots are to be used only if these are those of nodes.
template <class Given, class Index>
void read_edges(const Given* edges, std::int64_t row_stride, std::int64_t stride,
                const SlotSizes& sizes, int num_threads, const Slots<Index>& to, Bounds bounds[2]) {
  const int threads = threads_for(8 * sizes.num_given, sizes.num_given, num_threads);
  std::int64_t low_src = bounds[0].low, high_src = bounds[0].high, low_dst = bounds[1].low,
               high_dst = bounds[1].high;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static) \
    reduction(min : low_src, low_dst) reduction(max : high_src, high_dst)
  for (std::int64_t k = 0; k < sizes.num_given; ++k) {
    const std::int64_t src = edges[k * stride], dst = edges[row_stride + k * stride];
    low_src = std::min(low_src, src), high_src = std::max(high_src, src);
    low_dst = std::min(low_dst, dst), high_dst = std::max(high_dst, dst);
    to.set(k, src, dst, sizes);
  }
  bounds[0] = {low_src, high_src}, bounds[1] = {low_dst, high_dst};
  to.add_loops(sizes);
}

// Reads the edges of a CSR, whose slots are by edge id.
template <class Index>
void read_csr(const CsrView& csr, const SlotSizes& sizes, const Slots<Index>& to) {
  for (std::int64_t row = 0; row < csr.num_rows; ++row) {
    for (std::int64_t k = csr.rowptr[row]; k < csr.rowptr[row + 1]; ++k)
      to.set(csr.id(k), csr.col[k], row, sizes);
  }
  to.add_loops(sizes);
}

}  // namespace gat::cpu
