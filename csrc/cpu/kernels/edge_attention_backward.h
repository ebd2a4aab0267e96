// Backward of fused edge attention: see Note [one-pass backward] in ../../core/edge_attention.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "edge_attention_destination.h"
#include "edge_attention_node_terms.h"
#include "edge_attention_source.h"
#include "edge_attention_symmetric.h"

namespace gat::cpu {

template <class Isa, class Score, class T>
void edge_attention_delta(const EdgeAttentionInputs<T>& in, const T* grad_out, const Acc<T>* out,
                          const Acc<T>* edge_sums, const T* grad_weights, const T* weights,
                          const Acc<T>* grad_lse, Acc<T>* delta) {
  using A = Acc<T>;
  const std::int64_t H = in.num_heads, F = in.value_channels, rows = in.csr.num_rows * H;
  // Each pair of a row and a head takes the place of an edge in a tile: see Note [summation order].
  const std::int64_t edge_work = grad_weights ? in.csr.num_edges() * H : 0;
  const int threads = threads_for(rows * F + edge_work, (rows + kTile - 1) / kTile, in.num_threads);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (std::int64_t begin = 0; begin < rows; begin += kTile) {
    std::int64_t own[kTile];
    A sums[kTile];
    const int n = static_cast<int>(std::min<std::int64_t>(kTile, rows - begin));
    for (int e = 0; e < kTile; ++e) own[e] = begin + std::min(e, n - 1);
    reduce_pairs<Isa, A>(RowTile<T, Ahead::no>{grad_out, own, n, 1, F},
                         RowTile<A, Ahead::no>{out, own, n, 1, F}, Product<A>{}, sums);
    for (int e = 0; e < n; ++e) {
      const std::int64_t r = begin + e;
      if constexpr (kIsProduct<Score>) {
        if (edge_sums) {
          sums[e] += LinearEdges<Isa, T>(in).product_with_sums(grad_out + r * F, r % H,
                                                               edge_sums + r * in.edge_channels);
        }
      }
      if (grad_lse) sums[e] -= grad_lse[r];
      if (grad_weights) {
        const std::int64_t row = r / H, h = r % H;
        for (std::int64_t k = in.csr.rowptr[row]; k < in.csr.rowptr[row + 1]; ++k) {
          const std::int64_t at = in.csr.id(k) * H + h;
          sums[e] += read(grad_weights + at) * read(weights + at);
        }
      }
      delta[r] = sums[e];
    }
  }
}

template <class Isa, class Score, class T>
void edge_attention_backward(const EdgeAttentionBackward<T>& args,
                             const BackwardScratch<Acc<T>>& scratch) {
  const CsrView &csr = args.in.csr, &transpose = args.transpose;
  const int threads = args.in.num_threads;
  const auto by_source = [&](const auto& pass) {
    for_each_row(transpose.rowptr, partition_rows(transpose.rowptr, transpose.num_rows), threads,
                 pass);
  };
  const auto by_destination = [&](const auto& pass) {
    for_each_row(csr.rowptr, partition_rows(csr.rowptr, csr.num_rows), threads, pass);
  };
  if constexpr (kIsProduct<Score>) {
    if (scratch.one_pass) {
      fill_node_table(args, scratch.node_table);
      by_destination(SymmetricPass<Isa, Score, T>(args, scratch.node_table));
      return;
    }
  }
  if constexpr (Score::has_term) {
    by_destination(DestinationPass<Isa, Score, T>(args, scratch.edge_factors));
    if (args.grad_key || args.grad_value || args.grad_src_term)
      by_source(SourcePass<Isa, Score, T>(args, scratch.edge_factors));
  } else {
    fill_node_table(args, scratch.node_table);
    by_source(NodeTermPass<Isa, Score, T>(args, scratch.node_table));
    if (args.grad_dst_term && args.position.wide) {
      by_destination(
          DstTermPass<Isa, T, std::int64_t>(args, static_cast<std::int64_t*>(scratch.inverse)));
    } else if (args.grad_dst_term) {
      by_destination(
          DstTermPass<Isa, T, std::int32_t>(args, static_cast<std::int32_t*>(scratch.inverse)));
    }
  }
}

}  // namespace gat::cpu
