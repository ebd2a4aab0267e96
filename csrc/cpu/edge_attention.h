// Fused edge attention on the CPU: the table of kernels for one score and storage type.
//
// See Note [one-pass backward] in ../core/edge_attention.h. Each row of each gradient has exactly
// one owner, and no value per edge is stored between the passes: each recomputes scores and weights
// from rows that it gathers anyway.
//   The destination pass, for scores with a term, gathers y_j and v_j, sums the gradients of x_i
//   and
//     a_i, and writes those of the edges.
//   The source pass gathers x_i and g_i and sums the gradients of y_j, b_j and v_j. Without a term
//   it
//     gathers g_i only, writes the gradients of the edges and the gradient of a_i through each
//     edge, which a third pass sums over the rows: one gather of feature rows instead of two.
#pragma once

#include <cstdint>

#include "../core/edge_attention.h"

namespace gat::cpu {

// The source pass reads a_i, the shift and scale of the softmax, and delta_i of a destination from
// adjacent columns of one table: one cache line per edge instead of three.
inline constexpr std::int64_t kNodeColumns = 4;

// Scratch memory of the backward.
template <class A>
struct BackwardScratch {
  A* node_table = nullptr;  // [N_dst, kNodeColumns, H]
  void* inverse = nullptr;  // [E], with the dtype of position; null unless grad_dst_term needs it
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
  // delta[i, h] = <g_i, out_i> + sum_j alpha m r - q_i; grad_weights, weights and grad_lse may be
  // null.
  void (*delta)(const EdgeAttentionInputs<T>&, const T* grad_out, const Acc<T>* out,
                const T* grad_weights, const T* weights, const Acc<T>* grad_lse, Acc<T>* delta);
  void (*backward)(const EdgeAttentionBackward<T>&, const BackwardScratch<Acc<T>>&);
};

// Instantiated in csrc/cpu/isa for every instruction set and storage type. score is an index into
// Scores.
template <class Isa, class T>
EdgeAttentionKernels<T> edge_attention_kernels(int score);

}  // namespace gat::cpu
