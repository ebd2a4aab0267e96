// The unfused sparse operators on the GPU, as plain C++ functions: edge softmax, SDDMM, SpMM and
// the dropout mask.
#pragma once

#include <cstdint>

#include "../core/csr.h"
#include "../core/mutable_index.h"
#include "../core/philox.h"
#include "../core/types.h"
#include "stream.h"

namespace gat::cuda {

// A graph in device memory, with sizes that the host cannot read there. The largest row is a number
// of edges; -1: unknown.
struct SparseGraph {
  CsrView csr;
  std::int64_t num_cols = 0, num_edges = 0, num_heads = 1, largest_row = -1;
};

// Edge tensors are in the caller's order: edge k of the CSR reads and writes row csr.id(k). T is
// float, double, bf16 or fp16.

// alpha [E, H] = softmax of scores [E, H] over the edges of each row.
template <class T>
void edge_softmax(Context&, const SparseGraph&, const T* scores, T* alpha);

// grad_scores = alpha (grad - sum over the row of alpha grad).
template <class T>
void edge_softmax_backward(Context&, const SparseGraph&, const T* grad, const T* alpha,
                           T* grad_scores);

// out [E, H] = <x_i, y_j>; x [num_rows, H, F] by row, y [num_cols, H, F] by column.
template <class T>
void sddmm(Context&, const SparseGraph&, std::int64_t channels, const T* x, const T* y, T* out);

// out [num_rows, H, F] = sum over the row of weight_e x_col; weight [E, H], or null for 1.
template <class T>
void spmm(Context&, const SparseGraph&, std::int64_t channels, const T* weight, const T* x, T* out);

// out = the largest (sign = 1) or smallest (sign = -1) weight_e x_col of the row, 0 for an empty
// row. arg [num_rows, H, F] = the edge that it comes from, in the caller's order; of equal values,
// the first; -1 for an empty row. NaN counts as the extremum.
template <class T>
void spmm_extremum(Context&, const SparseGraph&, std::int64_t channels, int sign, const T* weight,
                   const T* x, T* out, MutableIndexArray arg);

// The gradient of x of spmm_extremum: the graph is the transpose, grad and arg are [num_cols, H,
// F].
template <class T>
void spmm_extremum_backward(Context&, const SparseGraph&, std::int64_t channels, const T* weight,
                            const T* grad, IndexArray arg, T* grad_x);

// out [E, H] = the sum of values [num_rows, H, F] over the channels of which arg says that their
// extremum is from the edge.
template <class T>
void winner_sum(Context&, const SparseGraph&, std::int64_t channels, const T* values,
                IndexArray arg, Acc<T>* out);

// out [E, H] = <query_ih, e_ij>; query [num_rows, H, K] by row, e [E, K].
template <class T>
void edge_dot(Context&, const SparseGraph&, std::int64_t channels, const T* query,
              const T* edge_attr, T* out);

// out [num_rows, H, K] = sum over the row of weight_e e_ij; weight [E, H], e [E, K].
template <class T>
void edge_sum(Context&, const SparseGraph&, std::int64_t channels, const T* weight,
              const T* edge_attr, T* out);

// kept [E, H], by edge id: false where dropout drops the weight.
void edge_dropout_mask(Context&, const Dropout&, std::int64_t num_edges, std::int64_t num_heads,
                       bool* kept);

}  // namespace gat::cuda
