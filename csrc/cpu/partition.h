// Partition of rows into work items by their number of edges.
//
// The rows of a CSR are divided into work items of about equal cost. The partition depends on the
// graph only, never on the number of threads, and every sum is either within one item or over items
// in their order: results are bitwise identical for any number of threads. A row longer than
// kLongRow edges is split into pieces whose states are merged in order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace gat::cpu {

inline constexpr std::int64_t kLongRow = 8192;  // edges per piece of a row
inline constexpr std::int64_t kRowCost = 4;     // cost of an empty row, in edges

// The rows [row_begin, row_end), or where piece >= 0, the edges [edge_begin, edge_end) of row
// row_begin.
struct WorkItem {
  std::int64_t row_begin, row_end;
  std::int64_t edge_begin, edge_end;
  std::int64_t piece;
};

struct LongRow {
  std::int64_t row, first_piece, num_pieces;
};

struct RowPartition {
  std::vector<WorkItem> items;
  std::vector<LongRow> long_rows;
  std::int64_t num_pieces = 0, num_edges = 0;
};

inline void add_row_pieces(RowPartition& partition, std::int64_t row, std::int64_t begin,
                           std::int64_t end) {
  const std::int64_t count = (end - begin + kLongRow - 1) / kLongRow;
  partition.long_rows.push_back({row, partition.num_pieces, count});
  for (std::int64_t k = begin; k < end; k += kLongRow) {
    partition.items.push_back(
        {row, row + 1, k, std::min(end, k + kLongRow), partition.num_pieces++});
  }
}

// O(items · log rows). split_long_rows = false keeps every row whole, for operators whose states
// cannot be merged.
inline RowPartition partition_rows(const std::int64_t* rowptr, std::int64_t num_rows,
                                   bool split_long_rows = true) {
  RowPartition partition;
  if (num_rows == 0) return partition;
  partition.num_edges = rowptr[num_rows];
  const auto cost_before = [&](std::int64_t row) { return rowptr[row] + kRowCost * row; };
  const std::int64_t total = cost_before(num_rows);
  const std::int64_t item_cost = std::clamp<std::int64_t>(total / 512, 512, kLongRow);
  std::int64_t row = 0;
  for (std::int64_t target = item_cost; row < num_rows; target += item_cost) {
    std::int64_t low = row, high = num_rows;  // the first row whose end reaches the target
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      if (cost_before(middle + 1) < target) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    const std::int64_t end = std::min(low + 1, num_rows);
    // Each row before the last one lies within a target, so only the last one can be long.
    const bool last_is_long = split_long_rows && rowptr[end] - rowptr[end - 1] > kLongRow;
    const std::int64_t whole_end = last_is_long ? end - 1 : end;
    if (whole_end > row)
      partition.items.push_back({row, whole_end, rowptr[row], rowptr[whole_end], -1});
    if (last_is_long) add_row_pieces(partition, end - 1, rowptr[end - 1], rowptr[end]);
    row = end;
    target = std::max(target, cost_before(row) / item_cost * item_cost);
  }
  return partition;
}

}  // namespace gat::cpu
