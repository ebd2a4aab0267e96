// Fused edge attention: the arguments of its kernels, the same for every device.
//
// Note [one-pass backward]. With s_ij the score, alpha_ij = exp(s_ij - M_i) / Z_i, where M_i is the
// maximum of the row and Z_i the sum of its exponentials, m_ij the dropout multiplier and
// out_i = sum_j alpha_ij m_ij v_j, an upstream gradient g = dL/dout (and optionally q_i =
// dL/dlse_i) gives
//
//     dalpha_ij = m_ij <g_i, v_j>
//     delta_i   = sum_j alpha_ij dalpha_ij = <g_i, out_i>
//     ds_ij     = alpha_ij (dalpha_ij - delta_i + q_i)
//     dv_j      = sum_i alpha_ij m_ij g_i
//
// so the backward needs out, M and Z only: it recomputes alpha, and nothing per edge is kept
// between forward and backward. delta is computed from the sum before that is rounded to 16 bits;
// otherwise it would not cancel against dalpha when all v_j are equal. If the weights alpha_ij m_ij
// are an output too, with upstream gradient r_ij, then dalpha_ij gains m_ij r_ij and delta_i gains
// sum_j alpha_ij m_ij r_ij, as if every v_j had one more feature that only edge ij reads.
//
// Note [summation order]. Large scores amplify rounding: if two passes round a score of 1e8
// differently, their alphas differ by a factor of e^8, and a ds that should be 0 is multiplied by a
// key of 1e8. Therefore every pass sums the terms of a score, and the products of <g_i, v_j>, in
// the same order, and delta sums <g_i, out_i> in that order: where one edge has all of the weight,
// out_i is v_j and ds_ij is exactly 0. With dropout out_i is then c v_j, rounded, with
// c = 1 / (1 - p); therefore the passes sum <g_i, c v_j> and then multiply it by 0 or 1, where the
// formula has m_ij <g_i, v_j>.
//
// Note [linear edge features]. Instead of a row edge_feat_ij [H, D] an edge may have e_ij [K],
// shared by the heads, and all edges a map W [H, D, K]: y_j and v_j then gain W e_ij, which each
// pass computes from K numbers. With the gradient g_ij [H, D] of W e_ij,
//
//     dW = sum_ij g_ij e_ij^T,   de_ij = W^T g_ij,
//
// which the destination pass sums while g_ij is in the cache. Nothing has E H D elements.
//
// A score of a dot product needs no W e_ij on the CPU:
//
//     <x_i, y_j + W e_ij> = <x_i, y_j> + <W^T x_i, e_ij>,
//     sum_j p_ij W e_ij   = W sum_j p_ij e_ij,
//
// with one product with W for each row of a tile, and H K numbers for each edge. If W e_ij adds to
// v_j too, delta is computed from the two sums that make up out_i, because <g_i, out_i> would not
// cancel against <g_i, v_j> + <W^T g_i, e_ij>.
#pragma once

#include <cstdint>

#include "csr.h"
#include "online_softmax.h"
#include "philox.h"
#include "scores/score.h"
#include "types.h"

namespace gat {

// Rows of the map of linear edge features, which are processed four at a time.
GAT_HD constexpr std::int64_t padded_terms(std::int64_t edge_channels) {
  return (edge_channels + 3) / 4 * 4;
}

// The inputs from which the scores and the softmax are computed. A pointer is null where the score
// does not read it, or where the option is absent.
template <class T>
struct EdgeAttentionInputs {
  CsrView csr;  // rows are destinations
  std::int64_t num_heads = 1, score_channels = 0, value_channels = 0;
  const T* query = nullptr;      // x [N_dst, H, D]
  const T* key = nullptr;        // y [N_src, H, D]
  const T* value = nullptr;      // v [N_src, H, F]
  const T* att = nullptr;        // w [H, D]
  const T* dst_term = nullptr;   // a [N_dst, H]
  const T* src_term = nullptr;   // b [N_src, H]
  const T* edge_term = nullptr;  // [E, H] adds to b
  const T* bias = nullptr;       // [E, H] adds to the finished score
  const T* edge_feat = nullptr;  // [E, H, D] adds to y, and to v if edge_in_value
  bool edge_in_value = false;    // also where the features are linear
  // Linear edge features: see the note. The map is padded with zeros to padded_terms(K) rows.
  std::int64_t edge_channels = 0;          // K
  const T* edge_attr = nullptr;            // e [E, K]
  const Acc<T>* edge_map = nullptr;        // W, as [K, H, D]
  const std::uint8_t* selected = nullptr;  // [E, H], CSR order: 1 for the edges that top-k keeps
  ScoreParams<Acc<T>> params;
  Dropout dropout;
  int num_threads = 1;  // on the CPU
};

template <class T>
struct EdgeAttentionForward {
  EdgeAttentionInputs<T> in;
  T* out = nullptr;                       // [N_dst, H, F]
  RowSoftmax<Acc<T>>* softmax = nullptr;  // [N_dst, H]
  Acc<T>* lse = nullptr;                  // [N_dst, H] or null
  Acc<T>* out_acc = nullptr;              // [N_dst, H, F], not rounded; null where T is Acc<T>
  Acc<T>* scores = nullptr;               // [E, H] s_ij, CSR order, on the CPU only; or null
  // [N_dst, H, K] sums of alpha m e, on the CPU only; then out_acc has those of v alone; or null
  Acc<T>* edge_sums = nullptr;
};

template <class T>
struct EdgeAttentionBackward {
  EdgeAttentionInputs<T> in;
  CsrView transpose;                            // rows are sources; edge ids are the caller's
  IndexArray position;                          // [E] position in csr of each edge of the transpose
  const T* grad_out = nullptr;                  // g [N_dst, H, F]
  const T* grad_weights = nullptr;              // r [E, H] or null
  const RowSoftmax<Acc<T>>* softmax = nullptr;  // [N_dst, H]
  const Acc<T>* delta = nullptr;                // [N_dst, H] delta_i - q_i; on CUDA with others
  // Scratch [E, H] of a score without a term: the gradient of a through each edge, or null.
  Acc<T>* edge_grad = nullptr;
  // The gradients; null where not needed. On the CPU grad_query and grad_key may be the same
  // pointer as grad_value: then the sum of the gradients is written there.
  T* grad_query = nullptr;
  T* grad_key = nullptr;
  T* grad_value = nullptr;
  T* grad_att = nullptr;
  T* grad_dst_term = nullptr;
  T* grad_src_term = nullptr;
  T* grad_edge_term = nullptr;
  T* grad_bias = nullptr;
  T* grad_edge_feat = nullptr;
  T* grad_edge_attr = nullptr;
  Acc<T>* grad_edge_map = nullptr;  // in the layout of edge_map
};

}  // namespace gat
