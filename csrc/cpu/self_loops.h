// Replaces the self-loops of a CSR by one for each of the first nodes, without a sort: the rows of
// the result are those of the edges without self-loops, each with its new self-loop last.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../core/csr.h"
#include "threads.h"

namespace gat::cpu {

class SelfLoops {
 public:
  // The nodes from 0 to num_loops - 1 get a self-loop.
  SelfLoops(const CsrView& csr, std::int64_t num_loops, int num_threads)
      : csr_(csr),
        num_loops_(num_loops),
        threads_(threads_for(8 * csr.num_edges(), csr.num_rows, num_threads)) {}

  // Writes rowptr [num_rows + 1]; its last element is the number of edges of the result.
  void count(std::int64_t* rowptr) {
    rowptr[0] = 0;
#pragma omp parallel for num_threads(threads_) schedule(static)
    for (std::int64_t row = 0; row < csr_.num_rows; ++row) {
      std::int64_t others = 0;
      for (std::int64_t k = csr_.rowptr[row]; k < csr_.rowptr[row + 1]; ++k)
        others += csr_.col[k] != row;
      rowptr[row + 1] = others + (row < num_loops_);
    }
    for (std::int64_t row = 0; row < csr_.num_rows; ++row) rowptr[row + 1] += rowptr[row];
    num_kept_ = rowptr[csr_.num_rows] - std::min(num_loops_, csr_.num_rows);
  }

  std::int64_t num_kept() const { return num_kept_; }
  bool keeps_all() const { return num_kept_ == csr_.num_edges(); }

  // Writes kept [num_kept], the caller's positions of the edges that are no self-loops, ascending.
  void find_kept(std::int64_t* kept) {
    std::vector<char> removed(static_cast<std::size_t>(csr_.num_edges()));
    for (std::int64_t row = 0; row < csr_.num_rows; ++row) {
      for (std::int64_t k = csr_.rowptr[row]; k < csr_.rowptr[row + 1]; ++k)
        removed[static_cast<std::size_t>(csr_.id(k))] = csr_.col[k] == row;
    }
    rank_.resize(removed.size());
    std::int64_t rank = 0;
    for (std::size_t id = 0; id < removed.size(); ++id) {
      rank_[id] = rank;
      if (!removed[id]) kept[rank++] = static_cast<std::int64_t>(id);
    }
  }

  // Writes col and edge_id of the result; find_kept comes first unless all edges are kept.
  template <class Index>
  void fill(const std::int64_t* rowptr, Index* col, Index* edge_id) const {
#pragma omp parallel for num_threads(threads_) schedule(static)
    for (std::int64_t row = 0; row < csr_.num_rows; ++row) {
      std::int64_t to = rowptr[row];
      for (std::int64_t k = csr_.rowptr[row]; k < csr_.rowptr[row + 1]; ++k) {
        if (csr_.col[k] == row) continue;
        const std::int64_t id = csr_.id(k);
        col[to] = static_cast<Index>(csr_.col[k]);
        edge_id[to++] =
            static_cast<Index>(rank_.empty() ? id : rank_[static_cast<std::size_t>(id)]);
      }
      if (row >= num_loops_) continue;
      col[to] = static_cast<Index>(row);
      edge_id[to] = static_cast<Index>(num_kept_ + row);
    }
  }

 private:
  CsrView csr_;
  std::int64_t num_loops_, num_kept_ = 0;
  int threads_;
  std::vector<std::int64_t> rank_;  // of each edge among the kept ones
};

}  // namespace gat::cpu
