// Fused edge attention on the GPU, as plain C++ functions. See Note [one-pass backward] in
// ../core/edge_attention.h.
//
// Both passes of the backward recompute scores and weights, so that no array of the size of the
// edges is written between them. A score without a term is the exception: only its source pass
// gathers feature rows, and it writes the gradient of a_i through each edge, [E, H], for the sums
// over destinations.
//
// score is an index into Scores; T is float, double, bf16 or fp16. All pointers are to device
// memory.
#pragma once

#include "../core/edge_attention.h"
#include "stream.h"

namespace gat::cuda {

// Sizes that the host cannot read from the arguments, because rowptr is in device memory. The
// largest row of the graph, and of its transpose, are numbers of edges; -1: unknown.
struct EdgeAttentionSizes {
  std::int64_t num_edges = 0, num_src = 0, largest_row = -1, largest_column = -1;
};

// selected[k, h] = 1 for the top_k largest scores of each row and head; of equal scores, for the
// earlier edges.
template <class T>
void edge_attention_select(Context&, int score, const EdgeAttentionSizes&,
                           const EdgeAttentionInputs<T>&, std::int64_t top_k,
                           std::uint8_t* selected);

template <class T>
void edge_attention_forward(Context&, int score, const EdgeAttentionSizes&,
                            const EdgeAttentionForward<T>&);

// weights[id, h] = alpha m, computed from a finished softmax.
template <class T>
void edge_attention_weights(Context&, int score, const EdgeAttentionSizes&,
                            const EdgeAttentionInputs<T>&, const RowSoftmax<Acc<T>>* softmax,
                            T* weights);

// What the passes of the backward read of a destination and head, in one access: a, softmax and
// delta.
inline constexpr int kNodeStats = 4;

// stats [N_dst, H, kNodeStats] with delta[i, h] = <g_i, out_i> + sum_j alpha m r - q_i; weights and
// grad_lse may be null. The passes read it as EdgeAttentionBackward::delta.
template <class T>
void edge_attention_delta(Context&, const EdgeAttentionSizes&, const EdgeAttentionBackward<T>&,
                          const Acc<T>* out, const T* weights, const Acc<T>* grad_lse,
                          Acc<T>* stats);

// The number of rows of att_parts [rows, H, D], which edge_attention_destination fills; their sum
// is the gradient of w.
template <class T>
std::int64_t att_part_rows(const EdgeAttentionSizes&, const EdgeAttentionInputs<T>&);

// The destination pass of a score with a term; att_parts is null where grad_att is not needed.
// edge_factors [E, 2, H], or null: see edge_attention_features.
template <class T>
void edge_attention_destination(Context&, int score, const EdgeAttentionSizes&,
                                const EdgeAttentionBackward<T>&, Acc<T>* att_parts,
                                Acc<T>* edge_factors);

// For `count` edges from CSR position `first` on: the gradients of W e [count, H, D], from what the
// destination pass wrote to edge_factors, and e [count, K].
template <class T>
void edge_attention_features(Context&, int score, const EdgeAttentionBackward<T>&,
                             const Acc<T>* edge_factors, std::int64_t first, std::int64_t count,
                             Acc<T>* grad, Acc<T>* attr);

// The source pass. Without a term it writes args.edge_grad where that is not null.
template <class T>
void edge_attention_source(Context&, int score, const EdgeAttentionSizes&,
                           const EdgeAttentionBackward<T>&);

// grad_dst_term of a score without a term: args.edge_grad summed over the rows.
template <class T>
void edge_attention_sum_edge_grad(Context&, const EdgeAttentionSizes&,
                                  const EdgeAttentionBackward<T>&);

}  // namespace gat::cuda
