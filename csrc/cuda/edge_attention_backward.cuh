// What both passes of the backward of fused edge attention share: see Note [one-pass backward] in
// ../core/edge_attention.h, and edge_attention.h for the differences from the CPU.
//
// Bytes: the destination pass gathers a row of y and of v for each edge, the source pass a row of x
// and of g, with softmax and delta of the destination; without a term, the source pass gathers g
// only and writes one number per edge and head.
#pragma once

#include "edge_scores.cuh"

namespace gat::cuda {

template <class T>
struct BackwardArgs {
  Attention<T> attention;
  EdgeAttentionBackward<T> to;
  Acc<T>* att_parts = nullptr;  // [slots, H, D] parts of the gradient of w; null where not needed
  // [E, 2, H] in CSR order: alpha m and the gradient of the sum of the terms of each edge, for the
  // gradients of linear edge features; or null
  Acc<T>* edge_factors = nullptr;
};

// <g, c (v + e)> of the edges of a row, where g or v belongs to the row and c is the factor of the
// weights that dropout keeps: see Note [summation order].
template <class T, class V, bool RowIsDst>
struct WeightGrads {
  using A = Acc<T>;
  using Layout = StagingOf<T, V>;
  static constexpr int n = Layout::n, C = V::C;
  template <class X>
  using Each = typename Layout::template Each<X>;
  Fragment<T, C> own;

  __device__ __forceinline__ static const T* own_rows(const BackwardArgs<T>& args) {
    return RowIsDst ? args.to.grad_out : args.attention.in.value;
  }
  __device__ __forceinline__ static const T* other_rows(const BackwardArgs<T>& args) {
    return RowIsDst ? args.attention.in.value : args.to.grad_out;
  }

  __device__ __forceinline__ void begin_row(const BackwardArgs<T>& args, const Task& task) {
    const Attention<T>& a = args.attention;
    own = load_own<T, C>(own_rows(args), a.value, task, own_block(task, a.value_blocks));
  }

  // Gathers the rows of the other ends of a group, and adds up the products of this lane.
  __device__ __forceinline__ void gather_products(const BackwardArgs<T>& args, const Walk& walk,
                                                  const Task& task, const EdgeBatch<n>& batch,
                                                  Fragment<T, C> (&other)[n], A (&sums)[n]) {
    const Attention<T>& a = args.attention;
    for_each_block(a.value, a.value_blocks, task, batch, own_rows(args), other_rows(args), own,
                   other,
                   [&](int block) { add_products(args, walk, task, batch, block, other, sums); });
  }

  __device__ __forceinline__ void add_products(const BackwardArgs<T>& args, const Walk& walk,
                                               const Task& task, const EdgeBatch<n>& batch,
                                               int block, const Fragment<T, C> (&other)[n],
                                               A (&sums)[n]) const {
    const Attention<T>& a = args.attention;
    // Without dropout c is 1, and then v is not multiplied by it.
    if (!V::kGeneral && !a.in.dropout.active()) {
#pragma unroll
      for (int u = 0; u < n; ++u) {
#pragma unroll
        for (int i = 0; i < kPack<T>; ++i) sums[u] += own(0, i) * other[u](0, i);
      }
      return;
    }
#pragma unroll
    for (int u = 0; u < n; ++u) {
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const EdgeRow<T, C> e(a, walk.csr, task, a.value, batch.first + u,
                              a.in.edge_in_value && batch.valid(u), block, c);
#pragma unroll
        for (int i = 0; i < kPack<T>; ++i) {
          const A g = RowIsDst ? own(c, i) : other[u](c, i);
          A v = RowIsDst ? other[u](c, i) : own(c, i);
          if (V::kGeneral) v += e[i];
          sums[u] += g * (v * a.keep);
        }
      }
    }
  }
};

// What both passes compute of an edge that a lane stages: its weight alpha m, and the gradient of
// its score. product is <g, c v>.
template <class A>
struct EdgeGradient {
  A weight, score;

  __device__ __forceinline__ EdgeGradient(A s, A shift, A scale, A multiplier, A product, A delta) {
    const A alpha = std::exp(s - shift) * scale;
    weight = alpha * multiplier;
    score = alpha * ((multiplier != A(0) ? product : A(0)) - delta);
  }
};

// c r of the edge at position k, the part of the gradient of its weight that comes from r.
template <class T>
__device__ __forceinline__ Acc<T> of_weights(const BackwardArgs<T>& args, const Walk& walk,
                                             const Task& task, std::int64_t k) {
  if (!args.to.grad_weights) return Acc<T>(0);
  const Attention<T>& a = args.attention;
  return a.keep * widen(args.to.grad_weights[a.at(walk.csr.id(k), task.head)]);
}

// Stores the gradients of edge k: of its bias, and of its term, which is added to b.
template <class T>
__device__ __forceinline__ void store_edge(const BackwardArgs<T>& args, const Walk& walk,
                                           const Task& task, std::int64_t k, Acc<T> ds,
                                           Acc<T> grad_edge_term) {
  const EdgeAttentionBackward<T>& to = args.to;
  if ((!to.grad_bias && !to.grad_edge_term) || task.block != 0) return;
  const std::int64_t at = args.attention.at(walk.csr.id(k), task.head);
  if (to.grad_bias) to.grad_bias[at] = narrow<T>(ds);
  if (to.grad_edge_term) to.grad_edge_term[at] = narrow<T>(grad_edge_term);
}

}  // namespace gat::cuda
