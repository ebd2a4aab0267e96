// Sampling of the in-edges of a node, for mini-batches.
//
// Note [sampled neighbours]. The random numbers of a node in a layer are Philox(key; node, layer ·
// 2^32 + i) for i = 0, 1, …, where the key is drawn from (seed, epoch), and in disjoint trees also
// from the seed node of the tree. So the sample of a node depends neither on the other nodes of its
// batch, nor on threads, processes or the device of the features.
#pragma once

#include <cmath>
#include <cstdint>

#include "csr.h"
#include "philox.h"
#include "walk.h"

namespace gat {

// What the sampling of all nodes of a call shares. Tensors of edges are in CSR order.
struct NeighborSampling {
  CsrView csr;                              // square
  std::int64_t num_edges = 0;               // without reading rowptr
  const float* weight = nullptr;            // [E], finite and at least 0; null: all edges alike
  const std::int64_t* edge_time = nullptr;  // [E], or null
  const std::int64_t* node_time = nullptr;  // [N], or null
  bool replace = false;                     // draws are independent
  bool latest = false;                      // the latest edges instead of random ones

  GAT_HD bool filtered() const {
    return weight != nullptr || edge_time != nullptr || node_time != nullptr;
  }
  // The time of an edge: its own, or that of its source.
  GAT_HD std::int64_t time(std::int64_t k) const {
    return edge_time != nullptr ? edge_time[k] : node_time[csr.col[k]];
  }
};

// The key of the random numbers of one epoch.
GAT_HD std::uint64_t sampling_key(std::int64_t seed, std::int64_t epoch) {
  const Philox4 numbers =
      philox(static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(epoch), ~std::uint64_t{});
  return std::uint64_t{numbers.word[0]} << 32 | numbers.word[1];
}

// The random numbers of one node in one layer.
class NodeDraws {
 public:
  GAT_HD NodeDraws(std::uint64_t key, std::int64_t node, std::int64_t layer)
      : key_(key),
        node_(static_cast<std::uint64_t>(node)),
        high_(static_cast<std::uint64_t>(layer) << 32) {}

  // The number of an edge by its place in the row, in (0, 1].
  GAT_HD double of_edge(std::int64_t place) const {
    const Philox4 numbers = philox(key_, node_, high_ + (static_cast<std::uint64_t>(place) >> 1));
    const int half = static_cast<int>(place & 1) * 2;
    return 1 - uniform_of_bits(std::uint64_t{numbers.word[half]} << 32 | numbers.word[half + 1]);
  }

  // The successive numbers of the node.
  GAT_HD std::uint32_t next() {
    if (used_ == 4) {
      numbers_ = philox(key_, node_, high_++);
      used_ = 0;
    }
    return numbers_.word[used_++];
  }
  GAT_HD std::uint64_t next_wide() {
    const std::uint64_t upper = next();
    return upper << 32 | next();
  }
  GAT_HD double next_uniform() { return uniform_of_bits(next_wide()); }
  // In [0, bound); a number is preferred by at most 2^-16 of its probability.
  GAT_HD std::int64_t below(std::int64_t bound) {
    const auto size = static_cast<std::uint64_t>(bound);
    if (size < (1u << 16)) return static_cast<std::int64_t>(next() * size >> 32);
    return static_cast<std::int64_t>(
        static_cast<std::uint64_t>(static_cast<unsigned __int128>(next_wide()) * size >> 64));
  }

 private:
  std::uint64_t key_, node_, high_;
  Philox4 numbers_{};
  int used_ = 4;
};

// Writes `count` distinct numbers below size to drawn, each set of them with the same probability:
// Bentley and Floyd, "A sample of brilliance", Communications of the ACM, 1987. `taken` has size
// bits, all 0 before and after.
GAT_HD void draw_distinct(NodeDraws& draws, std::int64_t size, std::int64_t count,
                          std::uint64_t* taken, std::int64_t* drawn) {
  if (size <= 64) {
    std::uint64_t bits = 0;  // in a register
    for (std::int64_t last = size - count; last < size; ++last) {
      const std::int64_t number = draws.below(last + 1);
      const std::int64_t chosen = bits >> number & 1 ? last : number;
      bits |= std::uint64_t{1} << chosen;
      *drawn++ = chosen;
    }
    return;
  }
  std::int64_t* const first = drawn;
  for (std::int64_t last = size - count; last < size; ++last) {
    const std::int64_t number = draws.below(last + 1);
    const std::int64_t chosen = taken[number >> 6] >> (number & 63) & 1 ? last : number;
    taken[chosen >> 6] |= std::uint64_t{1} << (chosen & 63);
    *drawn++ = chosen;
  }
  for (std::int64_t i = 0; i < count; ++i) taken[first[i] >> 6] = 0;
}

// The key of an edge in a weighted sample without replacement: the edges of the smallest keys are
// drawn. Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006.
GAT_HD double exponential_key(double uniform, float weight) {
  return -std::log(uniform) / static_cast<double>(weight);
}

}  // namespace gat
