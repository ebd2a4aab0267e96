// Fused edge attention on the CPU: the table of kernels for one score and storage type.
//
// See Note [one-pass backward] in ../core/edge_attention.h. Each row of each gradient has exactly
// one owner.
//   For a score with a term, the destination pass gathers y_j and v_j, recomputes the weights, sums
//   the gradients of x_i and a_i, and writes those of the edges. Then the source pass gathers x_i
//   and g_i and sums the gradients of y_j, b_j and v_j, which need of each edge alpha m and the
//   gradients of its sum of terms and of b. The destination pass stores these, 2 or 3 H numbers per
//   edge: to recompute them would take two dot products with rows of the source, an exponential,
//   and the random numbers of dropout.
//   For a score of dot products on a symmetric graph, where x, y and v are one tensor (AGNN on an
//   undirected graph), one pass over the rows does both: it gathers x_j and g_j, two rows an edge
//   instead of three, and stores nothing for each edge. See one_pass.h.
//   Without a term, a pass over the sources gathers g_i only, sums the gradients of b_j and v_j,
//   and writes those of the edges and the gradient of a_i through each edge, which another pass
//   sums over the rows: one gather of feature rows instead of two.
#pragma once

#include <cstdint>

#include "../core/edge_attention.h"

namespace gat::cpu {

// Numbers that the destination pass stores for each edge and head.
template <class Score>
inline constexpr int kEdgeFactors = Score::has_node_terms ? 3 : 2;

// Without a term, the pass over the sources reads a_i, the shift and scale of the softmax, and
// delta_i of a destination from adjacent columns of one table: one cache line per edge instead of
// three.
inline constexpr std::int64_t kNodeColumns = 4;

// Scratch memory of the backward.
template <class A>
struct BackwardScratch {
  A* node_table = nullptr;    // [N_dst, kNodeColumns, H]; of scores without a term, and of one pass
  A* edge_factors = nullptr;  // [E, kEdgeFactors, H]; of scores with a term
  void* inverse = nullptr;    // [E], with the dtype of position; null unless grad_dst_term needs it
  bool one_pass = false;      // see one_pass.h
};

template <class T>
struct EdgeAttentionKernels {
  // selected[k, h] = 1 for the top_k largest scores of each row and head; of equal scores, for the
  // earlier edges.
  void (*select_top_k)(const EdgeAttentionInputs<T>&, std::int64_t top_k, std::uint8_t* selected);
  void (*forward)(const EdgeAttentionForward<T>&);
  // weights[id, h] = alpha m, from the scores that the forward wrote, and its softmax.
  void (*weights)(const EdgeAttentionInputs<T>&, const Acc<T>* scores,
                  const RowSoftmax<Acc<T>>* softmax, T* weights);
  // delta[i, h] = <g_i, out_i> + sum_j alpha m r - q_i; edge_sums, grad_weights, weights and
  // grad_lse may be null.
  void (*delta)(const EdgeAttentionInputs<T>&, const T* grad_out, const Acc<T>* out,
                const Acc<T>* edge_sums, const T* grad_weights, const T* weights,
                const Acc<T>* grad_lse, Acc<T>* delta);
  void (*backward)(const EdgeAttentionBackward<T>&, const BackwardScratch<Acc<T>>&);
};

// Instantiated in csrc/cpu/isa for every instruction set and storage type. score is an index into
// Scores.
template <class Isa, class T>
EdgeAttentionKernels<T> edge_attention_kernels(int score);

}  // namespace gat::cpu
