// Graph building on the CPU: a stable counting sort of edges by row, which converts an edge list to
// CSR and computes the transpose of a CSR.
//
// The edges are split into one contiguous stretch per thread. The prefix sum over the counts of
// every row and stretch gives the first position of each stretch in each row, so threads never
// write to the same position, and the result is the same for any number of threads: a stable sort
// has only one result.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "threads.h"

namespace gat::cpu {

// Fills rowptr [num_rows + 1] and calls `place` once for each edge; row r owns the positions
// rowptr[r] .. rowptr[r + 1].
//
//   row_of(k)                 the row of edge k
//   place(position, k)        puts edge k where it belongs
template <class RowOf, class Place>
void counting_sort(std::int64_t num_edges, std::int64_t num_rows, int num_threads,
                   std::int64_t* rowptr, const RowOf& row_of, const Place& place) {
  // A stretch costs one counter per row, so it must hold more edges than there are rows.
  const std::int64_t stretches =
      threads_for(8 * num_edges, num_edges / std::max<std::int64_t>(num_rows, 1), num_threads);
  // [stretches, num_rows]
  std::vector<std::int64_t> next(static_cast<std::size_t>(stretches * num_rows));
  const auto begin_of = [&](std::int64_t s) { return num_edges * s / stretches; };

#pragma omp parallel for num_threads(static_cast<int>(stretches)) schedule(static, 1)
  for (std::int64_t s = 0; s < stretches; ++s) {
    std::int64_t* const count = next.data() + s * num_rows;
    for (std::int64_t k = begin_of(s); k < begin_of(s + 1); ++k) ++count[row_of(k)];
  }
  std::int64_t total = 0;
  for (std::int64_t row = 0; row < num_rows; ++row) {
    rowptr[row] = total;
    for (std::int64_t s = 0; s < stretches; ++s) {
      std::int64_t& slot = next[static_cast<std::size_t>(s * num_rows + row)];
      const std::int64_t count = slot;
      slot = total;
      total += count;
    }
  }
  rowptr[num_rows] = total;
#pragma omp parallel for num_threads(static_cast<int>(stretches)) schedule(static, 1)
  for (std::int64_t s = 0; s < stretches; ++s) {
    std::int64_t* const position = next.data() + s * num_rows;
    for (std::int64_t k = begin_of(s); k < begin_of(s + 1); ++k) place(position[row_of(k)]++, k);
  }
}

}  // namespace gat::cpu
