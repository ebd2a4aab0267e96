// Walks. Agents are processed in groups: their random numbers are drawn in vectors, and the rows of
// all agents are prefetched before the first is read, because every agent reads a row at a random
// place in memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "../partition.h"
#include "../threads.h"
#include "../walk.h"
#include "philox_lanes.h"

namespace gat::cpu {

inline constexpr std::int64_t kGroup = 32;  // agents per group; a multiple of the lanes of a vector
inline constexpr std::int64_t kWorkOfStep = 170;  // per agent, in multiplications and additions

// Calls f(first, last) for groups of at most kGroup agents, in any order on up to num_threads
// threads. Returns true if all calls did.
template <class Isa, class F>
bool for_each_group(std::int64_t num_agents, std::int64_t steps, int num_threads, const F& f) {
  const std::int64_t groups = (num_agents + kGroup - 1) / kGroup;
  const int threads = threads_for(num_agents * steps * kWorkOfStep, groups, num_threads);
  bool all = true;
  // Degrees differ, so groups take different times.
#pragma omp parallel for num_threads(threads) schedule(dynamic, 4) reduction(&& : all)
  for (std::int64_t g = 0; g < groups; ++g)
    all = f(g * kGroup, std::min(num_agents, (g + 1) * kGroup)) && all;
  return all;
}

// Writes the random numbers of the agents from `first` on to u [kGroup].
template <class Isa>
GAT_HD void draw_group(std::int64_t seed, std::int64_t first, std::int64_t step, double* u) {
  using U = Vec<std::uint64_t, kLanes<Isa, std::uint64_t>>;
  std::int64_t agent[kGroup];
  std::uint64_t bits[kGroup];
  for (std::int64_t i = 0; i < kGroup; ++i) agent[i] = first + i;
  philox_lanes<Isa>(static_cast<std::uint64_t>(seed), agent, static_cast<int>(kGroup),
                    static_cast<std::uint64_t>(step),
                    [&](int i, const U& w0, const U& w1, const U&, const U&) {
                      const U both = w0 << 32 | (w1 & std::uint64_t{0xffffffffu});
                      std::memcpy(bits + i, &both, sizeof both);
                    });
  for (std::int64_t i = 0; i < kGroup; ++i) u[i] = uniform_of_bits(bits[i]);
}

GAT_HD void prefetch_index(const IndexArray& array, std::int64_t k) {
  __builtin_prefetch(static_cast<const char*>(array.data) + k * (array.wide ? 8 : 4));
}

// Prefetches the rows of a group of agents, one level of indirection after the other.
template <class T>
GAT_HD void prefetch_rows(const WalkStep<T>& walk, std::int64_t first, std::int64_t last) {
  // Neighbours of an agent; the hardware prefetches the rest of a longer row.
  constexpr std::int64_t kAhead = 8;
  for (std::int64_t b = first; b < last; ++b) {
    if (is_row(walk.csr, walk.current[b])) __builtin_prefetch(walk.csr.rowptr + walk.current[b]);
  }
  for (std::int64_t b = first; b < last; ++b) {
    if (is_row(walk.csr, walk.current[b]))
      prefetch_index(walk.csr.col, walk.csr.rowptr[walk.current[b]]);
  }
  for (std::int64_t b = first; b < last; ++b) {
    if (!is_row(walk.csr, walk.current[b])) continue;
    const std::int64_t begin = walk.csr.rowptr[walk.current[b]],
                       end = walk.csr.rowptr[walk.current[b] + 1];
    for (std::int64_t k = begin; k < std::min(end, begin + kAhead); ++k) {
      __builtin_prefetch(walk.node_type + walk.csr.col[k]);
    }
  }
}

// Up to this number of nodes the graph is in the cache.
inline constexpr std::int64_t kNodesInCache = 1 << 15;

// The largest degree at which the agents of a group are stepped together.
inline constexpr std::int64_t kShortRow = 8;

// The draws of gat::walk_step for the agents [first, last) of a group whose rows are short and
// whose ranks are valid; served[i] is set for those. All agents execute the same operations equally
// often, with weights of 0 behind the end of a row: degrees and draws differ from agent to agent,
// and mispredicted branches would cost more time than the arithmetic.
template <class T, class Index>
GAT_HD void step_in_short_rows(const WalkStep<T>& walk, const Index* col, std::int64_t first,
                               std::int64_t last, const double* u, std::int64_t* next, T* log_prob,
                               bool* served) {
  const std::int64_t count = last - first;
  // All variables have 8 bytes, and each level of indirection has a loop of its own, so that the
  // compiler vectorises the loops over the group.
  std::int64_t begin[kGroup] = {}, degree[kGroup] = {}, drawn[kGroup] = {}, place[kGroup],
               longest = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t node = walk.current[first + i], row = is_row(walk.csr, node) ? node : 0;
    const std::int64_t start = walk.csr.rowptr[row], size = walk.csr.rowptr[row + 1] - start;
    const bool walked = (row == node) & (size > 0) & (size <= kShortRow);
    begin[i] = walked ? start : 0;
    degree[i] = walked ? size : 0;
  }
  for (std::int64_t i = 0; i < kGroup; ++i) longest = std::max(longest, degree[i]);
  double weight[kShortRow][kGroup], total[kGroup] = {}, target[kGroup], sum[kGroup] = {},
                                    least[kGroup] = {};
  const T* const rank = walk.rank + first * walk.num_types;
  const std::int64_t last_row = (count - 1) * walk.num_types;
  for (std::int64_t k = 0; k < longest; ++k) {
    double* const w = weight[k];
    for (std::int64_t i = 0; i < kGroup; ++i) place[i] = begin[i] + (k < degree[i] ? k : 0);
    for (std::int64_t i = 0; i < kGroup; ++i) place[i] = static_cast<std::int64_t>(col[place[i]]);
    for (std::int64_t i = 0; i < kGroup; ++i) place[i] = walk.node_type[place[i]];
    for (std::int64_t i = 0; i < kGroup; ++i) {
      const std::uint64_t type = static_cast<std::uint64_t>(place[i]),
                          types = static_cast<std::uint64_t>(walk.num_types);
      least[i] = type < types || k >= degree[i] ? least[i] : -1.0;
      place[i] = std::min(i * walk.num_types, last_row) +
                 static_cast<std::int64_t>(type < types ? type : 0);
    }
    for (std::int64_t i = 0; i < kGroup; ++i) w[i] = static_cast<double>(rank[place[i]]);
    for (std::int64_t i = 0; i < kGroup; ++i) {
      w[i] = k < degree[i] ? w[i] : 0.0;
      least[i] = w[i] >= 0 ? least[i] : -1.0;
      total[i] += w[i];
    }
  }
  for (std::int64_t i = 0; i < kGroup; ++i) target[i] = u[i] * total[i];
  for (std::int64_t k = 0; k < longest; ++k) {
    for (std::int64_t i = 0; i < kGroup; ++i) {
      sum[i] += weight[k][i];
      drawn[i] += (k < degree[i]) & !running_sum_passes(sum[i], target[i], total[i]) ? 1 : 0;
    }
  }
  for (std::int64_t i = 0; i < count; ++i) {
    served[i] = (degree[i] > 0) & (least[i] >= 0) & (total[i] > 0) & finite_total(total[i]);
    if (!served[i]) continue;
    next[first + i] = col[begin[i] + drawn[i]];
    log_prob[first + i] = std::log(static_cast<T>(weight[drawn[i]][i] / total[i]));
  }
}

template <class Isa, class T>
bool walk_step(const WalkStep<T>& walk, std::int64_t* next, T* log_prob, int num_threads) {
  return for_each_group<Isa>(
      walk.num_agents, 1, num_threads, [&](std::int64_t first, std::int64_t last) {
        if (walk.csr.num_rows > kNodesInCache) prefetch_rows(walk, first, last);
        double u[kGroup] = {};
        bool served[kGroup] = {};
        if (!walk.greedy) {
          draw_group<Isa>(*walk.seed, first, walk.step, u);
          if (walk.csr.num_edges() > 0 && walk.num_types > 0) {
            const void* const col = walk.csr.col.data;
            walk.csr.col.wide ? step_in_short_rows(walk, static_cast<const std::int64_t*>(col),
                                                   first, last, u, next, log_prob, served)
                              : step_in_short_rows(walk, static_cast<const std::int32_t*>(col),
                                                   first, last, u, next, log_prob, served);
          }
        }
        bool in_range = true;
        for (std::int64_t b = first; b < last; ++b) {
          if (!served[b - first])
            in_range = gat::walk_step(walk, b, u[b - first], next, log_prob) && in_range;
        }
        return in_range;
      });
}

template <class Isa, class T>
void walk_step_backward(const WalkStep<T>& walk, const std::int64_t* next, const T* grad,
                        T* grad_rank, int num_threads) {
  for_each_group<Isa>(walk.num_agents, 1, num_threads, [&](std::int64_t first, std::int64_t last) {
    if (walk.csr.num_rows > kNodesInCache) prefetch_rows(walk, first, last);
    for (std::int64_t b = first; b < last; ++b)
      gat::walk_step_backward(walk, b, next, grad, grad_rank);
    return true;
  });
}

template <class Isa>
void running_sums(const CsrView& csr, const double* weight, double* cumulative, int num_threads) {
  const RowPartition partition = partition_rows(csr.rowptr, csr.num_rows, false);
  const auto items = static_cast<std::int64_t>(partition.items.size());
  const int threads = threads_for(32 * csr.num_edges(), items, num_threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (std::int64_t i = 0; i < items; ++i) {
    const WorkItem& item = partition.items[static_cast<std::size_t>(i)];
    for (std::int64_t row = item.row_begin; row < item.row_end; ++row)
      gat::running_sums(csr, row, weight, cumulative);
  }
}

template <class Isa>
void random_walk(const RandomWalk& walk, const std::int64_t* start, std::int64_t* nodes,
                 int num_threads) {
  const std::int64_t width = walk.length + 1;
  for_each_group<Isa>(walk.num_walks, width, num_threads,
                      [&](std::int64_t first, std::int64_t last) {
                        std::int64_t node[kGroup], edge[kGroup];
                        double u[kGroup];
                        const std::int64_t count = last - first;
                        for (std::int64_t i = 0; i < count; ++i) {
                          node[i] = start[first + i];
                          nodes[(first + i) * width] = node[i];
                        }
                        for (std::int64_t t = 0; t < walk.length; ++t) {
                          for (std::int64_t i = 0; i < count; ++i) {
                            if (is_row(walk.csr, node[i]))
                              __builtin_prefetch(walk.csr.rowptr + node[i]);
                          }
                          draw_group<Isa>(*walk.seed, first, t, u);
                          for (std::int64_t i = 0; i < count; ++i) {
                            edge[i] = random_edge(walk, node[i], u[i]);
                            if (edge[i] != kStays) prefetch_index(walk.csr.col, edge[i]);
                          }
                          for (std::int64_t i = 0; i < count; ++i) {
                            if (edge[i] != kStays) node[i] = walk.csr.col[edge[i]];
                            nodes[(first + i) * width + t + 1] = node[i];
                          }
                        }
                        return true;
                      });
}

template <class Isa, class T>
WalkStepKernels<T> walk_step_kernels() {
  return {&walk_step<Isa, T>, &walk_step_backward<Isa, T>};
}

template <class Isa>
RandomWalkKernels random_walk_kernels() {
  return {&running_sums<Isa>, &random_walk<Isa>};
}

}  // namespace gat::cpu
