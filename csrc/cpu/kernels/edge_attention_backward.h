// Backward of fused edge attention: see Note [one-pass backward] in ../../core/edge_attention.h.
#pragma once

#include <cstdint>

#include "edge_attention_destination.h"
#include "edge_attention_source.h"

namespace gat::cpu {

template <class Isa, class T>
void edge_attention_delta(const EdgeAttentionInputs<T>& in, const T* grad_out, const Acc<T>* out, const T* grad_weights,
                          const T* weights, const Acc<T>* grad_lse, Acc<T>* delta) {
  using A = Acc<T>;
  const std::int64_t H = in.num_heads, F = in.value_channels;
#pragma omp parallel for num_threads(in.num_threads) schedule(static)
  for (std::int64_t row = 0; row < in.csr.num_rows; ++row) {
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t r = row * H + h;
      A sum = dot_product<Isa, A>(grad_out + r * F, out + r * F, F);
      if (grad_lse) sum -= grad_lse[r];
      if (grad_weights) {
        for (std::int64_t k = in.csr.rowptr[row]; k < in.csr.rowptr[row + 1]; ++k) {
          const std::int64_t e = in.csr.id(k) * H + h;
          sum += read(grad_weights + e) * read(weights + e);
        }
      }
      delta[r] = sum;
    }
  }
}

template <class Isa, class Score, class T>
void edge_attention_backward(const EdgeAttentionBackward<T>& args, const BackwardScratch<Acc<T>>& scratch) {
  const CsrView &csr = args.in.csr, &transpose = args.transpose;
  const int threads = args.in.num_threads;
  const auto by_source = [&](const auto& pass) {
    for_each_row(transpose.rowptr, partition_rows(transpose.rowptr, transpose.num_rows), threads, pass);
  };
  const auto by_destination = [&](const auto& pass) {
    for_each_row(csr.rowptr, partition_rows(csr.rowptr, csr.num_rows), threads, pass);
  };
  const bool of_edges = args.grad_bias || args.grad_edge_term || args.grad_edge_feat;
  const bool of_sources = args.grad_key || args.grad_value || args.grad_src_term;
  if constexpr (Score::has_term) {
    if (args.grad_query || args.grad_att || args.grad_dst_term || of_edges) by_destination(DestinationPass<Isa, Score, T>(args));
  }
  if (of_sources || (!Score::has_term && (args.grad_dst_term || of_edges))) {
    fill_node_table(args, scratch.node_table);
    by_source(SourcePass<Isa, Score, T>(args, scratch.node_table));
  }
  if constexpr (!Score::has_term) {
    if (args.grad_dst_term && args.position.wide) {
      by_destination(DstTermPass<Isa, T, std::int64_t>(args, static_cast<std::int64_t*>(scratch.inverse)));
    } else if (args.grad_dst_term) {
      by_destination(DstTermPass<Isa, T, std::int32_t>(args, static_cast<std::int32_t*>(scratch.inverse)));
    }
  }
}

}  // namespace gat::cpu
