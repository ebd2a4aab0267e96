// Whether the backward of edge attention takes one pass: see edge_attention.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "../core/edge_attention.h"
#include "threads.h"

namespace gat::cpu {

// True if a row has the same neighbours in the same order in both graphs, apart from the places of
// its self-loops: those that a layer adds are last in the rows of the graph only.
template <class Index>
bool are_equal_rows(const std::int64_t row, const Index* a, const Index* b, std::int64_t size) {
  if (size == 0 || std::memcmp(a, b, static_cast<std::size_t>(size) * sizeof(Index)) == 0)
    return true;
  std::int64_t i = 0, j = 0;
  const auto skip_loops = [&](const Index* col, std::int64_t& k) {
    while (k < size && col[k] == row) ++k;
  };
  for (;; ++i, ++j) {
    skip_loops(a, i), skip_loops(b, j);
    if (i == size || j == size) return i == j;
    if (a[i] != b[j]) return false;
  }
}

// True if every edge of the graph has one in the other direction. False is possible for a symmetric
// graph, if the edges of a node are not in the same order in both directions.
template <class Index>
bool is_symmetric(const CsrView& csr, const CsrView& transpose, int num_threads) {
  const std::int64_t rows = csr.num_rows;
  const auto* const a = static_cast<const Index*>(csr.col.data);
  const auto* const b = static_cast<const Index*>(transpose.col.data);
  const int threads = threads_for(2 * csr.num_edges(), rows, num_threads);
  bool symmetric = true;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(&& : symmetric)
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t begin = csr.rowptr[row], end = csr.rowptr[row + 1];
    symmetric = symmetric && begin == transpose.rowptr[row] && end == transpose.rowptr[row + 1] &&
                are_equal_rows(row, a + begin, b + begin, end - begin);
  }
  return symmetric;
}

// True if x, y and v are one tensor whose gradient is needed, no input belongs to single edges, and
// the graph is symmetric, which takes some hundredths of a pass to find out.
template <class T>
bool takes_one_pass(const EdgeAttentionBackward<T>& args) {
  const auto& in = args.in;
  const bool one_tensor = in.value == in.query && in.value == in.key && args.grad_value &&
                          args.grad_query == args.grad_value && args.grad_key == args.grad_value;
  const bool of_edges = args.grad_weights || in.dropout.active() || in.selected || in.bias ||
                        in.edge_term || in.edge_feat || in.edge_attr;
  if (!one_tensor || of_edges || in.csr.num_rows != args.transpose.num_rows ||
      in.csr.col.wide != args.transpose.col.wide) {
    return false;
  }
  return in.csr.col.wide ? is_symmetric<std::int64_t>(in.csr, args.transpose, in.num_threads)
                         : is_symmetric<std::int32_t>(in.csr, args.transpose, in.num_threads);
}

}  // namespace gat::cpu
