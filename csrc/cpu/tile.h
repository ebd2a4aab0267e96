// The per-thread buffers in which kernels process a few edges at a time. A plain header: no
// instruction set is assumed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace gat::cpu {

inline constexpr int kTile = 32;
// The rows of an edge are prefetched this many edges ahead, while an earlier tile is processed.
inline constexpr int kAhead = kTile;

// Aligned, so that the buffers of two threads share no cache line.
struct alignas(128) TileIndices {
  std::int64_t neighbor[kTile + kAhead];  // of the edges of the tile and of the following edges
  std::int64_t id[kTile + kAhead];
};

// The buffers of one thread. Per-edge values are head-major, [H, kTile], so that an exponential is
// computed for a vector of edges of one head.
template <class A>
struct TileScratch : TileIndices {
  std::int64_t own[kTile];  // 0, 1, 2, …: row e of key and value belongs to edge e
  // CSR positions of the edges of a tile of the transpose and of the following edges.
  std::int64_t position[kTile + kAhead];
  // [H, kTile]: the sum of the terms, the node terms, softmax and delta of the destinations,
  // alpha m, …
  std::vector<A> sum, dst_term, src_term, score, weight, multiplier, shift, scale, delta;
  std::vector<A> grad_weight, grad_score, grad_sum, grad_dst_term, grad_src_term;
  // [kTile, H, D] with edge features added; value then holds the gradients of the features.
  std::vector<A> key, value;
  // Linear edge features, [kTile, padded_terms(K)] or transposed; products with the map of the
  // query and of the upstream gradient, and sums over edges, [H, padded_terms(K)].
  std::vector<A> edge_attr, query_map, grad_map, edge_sum, value_sum;

  // score_channels is 0 without rows of edges.
  TileScratch(std::int64_t num_heads, std::int64_t score_channels, std::int64_t edge_terms) {
    std::iota(own, own + kTile, std::int64_t{0});
    const auto per_edge = static_cast<std::size_t>(num_heads * kTile);
    for (auto* buffer :
         {&sum, &dst_term, &src_term, &score, &weight, &multiplier, &shift, &scale, &delta,
          &grad_weight, &grad_score, &grad_sum, &grad_dst_term, &grad_src_term}) {
      buffer->resize(per_edge);
    }
    for (auto* buffer : {&key, &value})
      buffer->resize(per_edge * static_cast<std::size_t>(score_channels));
    edge_attr.resize(static_cast<std::size_t>(kTile * edge_terms));
    for (auto* buffer : {&query_map, &grad_map, &edge_sum, &value_sum})
      buffer->resize(static_cast<std::size_t>(num_heads * edge_terms));
  }
};

}  // namespace gat::cpu
