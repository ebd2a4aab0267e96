// Fused edge attention on the CPU: the table of kernels for one score and storage type.
//
// See Note [one-pass backward] in ../core/edge_attention.h. Two ways to share its work, each row of each gradient having exactly
// one owner:
//   scores with a term (additive_v2, dot, cosine): a destination pass gathers y_j and v_j, sums the gradients of x_i and a_i, and
//     writes ds and alpha m of each edge; a source pass gathers x_i and g_i and sums the gradients of y_j, b_j and v_j.
//   scores without one (additive): the source pass gathers g_i alone and recomputes the score from the node terms; it writes
//     dz, the gradient of a_i + b_j, of each edge, and a streaming pass over the rows sums it. One gather instead of two.
#pragma once

#include <cstdint>

#include "../core/edge_attention.h"

namespace gat::cpu {

template <class T>
struct EdgeAttentionKernels {
  // selected[k, h] = 1 for the top_k largest scores of each row and head, ties to the earlier edge.
  void (*select_top_k)(const EdgeAttentionInputs<T>&, std::int64_t top_k, std::uint8_t* selected);
  void (*forward)(const EdgeAttentionForward<T>&);
  // weights[id, h] = alpha m, from a finished lse.
  void (*weights)(const EdgeAttentionInputs<T>&, const Acc<T>* lse, T* weights);
  // delta[i, h] = <g_i, out_i> + sum_j alpha m r - q_i; grad_weights, weights and grad_lse may be null.
  void (*delta)(const EdgeAttentionInputs<T>&, const T* grad_out, const Acc<T>* out, const T* grad_weights, const T* weights,
                const Acc<T>* grad_lse, Acc<T>* delta);
  void (*backward)(const EdgeAttentionBackward<T>&);
};

// Instantiated in csrc/cpu/isa for every instruction set and storage type; score is an index into Scores.
template <class Isa, class T>
EdgeAttentionKernels<T> edge_attention_kernels(int score);

}  // namespace gat::cpu
