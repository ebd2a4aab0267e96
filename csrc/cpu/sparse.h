// The unfused sparse operators on the CPU: edge softmax, SDDMM and SpMM, closed under
// differentiation, and dropout of features.
#pragma once

#include <cstdint>

#include "../core/csr.h"
#include "../core/mutable_index.h"
#include "../core/philox.h"
#include "../core/types.h"

namespace gat::cpu {

// Edge tensors are in the caller's order: edge k of the CSR reads and writes row csr.id(k).
template <class T>
struct SparseKernels {
  // alpha [E, H] = softmax of scores [E, H] over the edges of each row.
  void (*edge_softmax)(const CsrView&, std::int64_t num_heads, const T* scores, T* alpha,
                       int num_threads);
  // grad_scores = alpha (grad - sum over the row of alpha grad).
  void (*edge_softmax_backward)(const CsrView&, std::int64_t num_heads, const T* grad,
                                const T* alpha, T* grad_scores, int num_threads);
  // out [E, H] = <x_i, y_j>; x [num_rows, H, F] by row, y [num_cols, H, F] by column.
  void (*sddmm)(const CsrView&, std::int64_t num_heads, std::int64_t channels, const T* x,
                const T* y, T* out, int num_threads);
  // out [num_rows, H, F] = sum over the row of weight_e x_col; weight [E, H], or null for 1.
  void (*spmm)(const CsrView&, std::int64_t num_heads, std::int64_t channels, const T* weight,
               const T* x, T* out, int num_threads);
  // out = the largest (sign = 1) or smallest (sign = -1) weight_e x_col of the row, 0 for an empty
  // row. arg [num_rows, H, F] = the edge that it comes from, in the caller's order; of equal
  // values, the first; -1 for an empty row. NaN counts as the extremum.
  void (*spmm_extremum)(const CsrView&, std::int64_t num_heads, std::int64_t channels, int sign,
                        const T* weight, const T* x, T* out, MutableIndexArray arg,
                        int num_threads);
  // The gradient of x of spmm_extremum: csr is the transpose, grad and arg are [num_cols, H, F].
  void (*spmm_extremum_backward)(const CsrView&, std::int64_t num_heads, std::int64_t channels,
                                 const T* weight, const T* grad, IndexArray arg, T* grad_x,
                                 int num_threads);
  // out [E, H] = the sum of values [num_rows, H, F] over the channels of which arg says that their
  // extremum is from the edge.
  void (*winner_sum)(const CsrView&, std::int64_t num_heads, std::int64_t channels, const T* values,
                     IndexArray arg, Acc<T>* out, int num_threads);
  // out [E, H] = <query_ih, e_ij>; query [num_rows, H, K] by row, e [E, K].
  void (*edge_dot)(const CsrView&, std::int64_t num_heads, std::int64_t channels, const T* query,
                   const T* edge_attr, T* out, int num_threads);
  // out [num_rows, H, K] = sum over the row of weight_e e_ij; weight [E, H], e [E, K].
  void (*edge_sum)(const CsrView&, std::int64_t num_heads, std::int64_t channels, const T* weight,
                   const T* edge_attr, T* out, int num_threads);
  // out [n] = x [n] times 0 or 1 / (1 - p). The random numbers depend on the seed only, not on the
  // instruction set.
  // Of x [rows, channels], of which dropout.number may number the rows.
  void (*dropout)(const Dropout&, std::int64_t rows, std::int64_t channels, const T* x, T* out,
                  int num_threads);
};

template <class Isa, class T>
SparseKernels<T> sparse_kernels();

}  // namespace gat::cpu
