// Walks. Agents are processed in groups: their random numbers are drawn in vectors, and the rows of
// all agents are prefetched before the first is read, because every agent reads a row at a random
// place in memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "../lane_math.h"
#include "../partition.h"
#include "../threads.h"
#include "../walk.h"
#include "gather.h"
#include "philox_lanes.h"

namespace gat::cpu {

inline constexpr std::int64_t kGroup = 32;  // agents per group; a multiple of the lanes of a vector

// The work of a step, in multiplications and additions: of each agent, and of each neighbour.
inline constexpr std::int64_t kWorkOfAgent = 170, kWorkOfAgentInLanes = 40, kWorkOfNeighbour = 16;

// With two lanes a scalar agent at a time is faster.
template <class Isa>
inline constexpr bool kStepsInLanes = kLanes<Isa, double> > 2;

// Calls f(first, last) for groups of at most kGroup agents, in any order on up to num_threads
// threads; `work` is that of one agent. Returns true if all calls did.
template <class Isa, class F>
bool for_each_group(std::int64_t num_agents, std::int64_t work, int num_threads, const F& f) {
  const std::int64_t groups = (num_agents + kGroup - 1) / kGroup;
  const int threads = threads_for(num_agents * work, groups, num_threads);
  bool all = true;
  // Degrees differ, so groups take different times.
#pragma omp parallel for num_threads(threads) schedule(dynamic, 4) reduction(&& : all)
  for (std::int64_t g = 0; g < groups; ++g)
    all = f(g * kGroup, std::min(num_agents, (g + 1) * kGroup)) && all;
  return all;
}

// The work of an agent at a node of mean degree.
GAT_HD std::int64_t work_of_step(const CsrView& csr, bool in_lanes) {
  return (in_lanes ? kWorkOfAgentInLanes : kWorkOfAgent) +
         kWorkOfNeighbour * (csr.num_edges() / std::max<std::int64_t>(csr.num_rows, 1));
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

// The largest degree at which agents are stepped in lanes.
inline constexpr std::int64_t kShortRow = 32;

// The largest degree at which the running sums of a row are kept.
inline constexpr std::int64_t kKeptSums = 1024;

// gat::walk_step with vectors of neighbours or agents, for the agents whose ranks are valid. Sums
// are in the order of the row, so that it draws the same neighbour.
template <class Isa, class T, class Index, bool use_gather>
struct StepInLanes {
  static constexpr int n = kLanes<Isa, double>;
  using I = Vec<std::int64_t, n>;
  using U = Vec<std::uint64_t, n>;
  using D = Vec<double, n>;

  const WalkStep<T>& walk;
  const Index* const col;

  static GAT_HD I lane() {
    I numbers;
    for (int i = 0; i < n; ++i) numbers[i] = i;
    return numbers;
  }

  template <class From>
  static GAT_HD auto get(const From* from, I index, I mask) {
    return gather<use_gather>(from, index, mask);
  }

  // The weights of the neighbours at `place`, of the agents with these first ranks, and 0 where
  // `wanted` is not set. Sets lanes of `invalid` for a type out of range and for a bad rank.
  GAT_HD D weights(I place, I wanted, const T* rank, I first_rank, I& invalid) const {
    const I type = get(walk.node_type, get(col, place, wanted), wanted);
    const I in_range = (bitcast<U>(type) < static_cast<std::uint64_t>(walk.num_types)) & wanted;
    const D w = get(rank, in_range & (first_rank + type), in_range);
    invalid |= wanted & ~(in_range & (w >= 0));
    return bitcast<D>(I(in_range & bitcast<I>(w)));
  }

  // The agents [first, first + count) of a group, an agent in each lane: those whose rows are
  // short. Returns a bit for each agent that was stepped. The group completes a phase before it
  // begins the next, so that the loads of many agents are in flight at the same time.
  GAT_HD std::uint32_t step(std::int64_t first, std::int64_t count, const double* u,
                            std::int64_t* next, T* log_prob) const {
    std::int64_t begin[kGroup], degree[kGroup], longest[kGroup / n], place[kGroup], valid[kGroup];
    double weight[kShortRow][kGroup], total[kGroup], chosen[kGroup];
    find_rows(first, count, begin, degree);
    const T* const rank = walk.rank + first * walk.num_types;
    for (int i = 0; i < kGroup; i += n) {
      const I start = load<I>(begin + i), size = load<I>(degree + i),
              first_rank = (lane() + i) * walk.num_types;
      D sum{};
      I invalid{};
      std::int64_t k = 0;
      for (I here = size > 0; bits_of(here) != 0; here = size > ++k) {
        const D w = weights(here & (start + k), here, rank, first_rank, invalid);
        store(&weight[k][i], w);
        sum += w;
      }
      longest[i / n] = k;
      store(total + i, sum);
      store(valid + i, I((size > 0) & ~invalid & (sum > 0) & (sum < kInfinite)));
    }
    for (int i = 0; i < kGroup; i += n) {
      I drawn{};
      D most{};
      if (walk.greedy) {
        for (std::int64_t k = 0; k < longest[i / n]; ++k) {
          const D w = load<D>(&weight[k][i]);
          const I better = w > most;
          drawn = better ? I{} + k : drawn;
          most = better ? w : most;
        }
      } else {
        const D all = load<D>(total + i), target = load<D>(u + i) * all;
        D sum{};
        I passed{};
        for (std::int64_t k = 0; k < longest[i / n]; ++k) {
          const D w = load<D>(&weight[k][i]);
          sum += w;
          drawn = passed ? drawn : I{} + k;
          most = passed ? most : w;
          passed |= (sum > target) | (sum >= all);
        }
      }
      store(chosen + i, most);
      store(place + i, I(load<I>(valid + i) & (load<I>(begin + i) + drawn)));
    }
    std::uint32_t stepped = 0;
    for (int i = 0; i < kGroup; i += n) {
      const I is_valid = load<I>(valid + i), to = get(col, load<I>(place + i), is_valid);
      const auto log_p =
          log_of_lanes(convert<Vec<T, n>>(D(load<D>(chosen + i) / load<D>(total + i))));
      const unsigned bits = bits_of(is_valid);
      if (bits == (1u << n) - 1) {
        store(next + first + i, to);
        store(log_prob + first + i, log_p);
      } else {
        for (int lane = 0; lane < n; ++lane) {
          if (bits >> lane & 1)
            next[first + i + lane] = to[lane], log_prob[first + i + lane] = log_p[lane];
        }
      }
      stepped |= static_cast<std::uint32_t>(bits) << i;
    }
    return stepped;
  }

 private:
  static constexpr double kInfinite = std::numeric_limits<double>::infinity();

  // The short rows of the agents; others have a degree of 0.
  GAT_HD void find_rows(std::int64_t first, std::int64_t count, std::int64_t* begin,
                        std::int64_t* degree) const {
    std::int64_t last_group[kGroup];
    const std::int64_t* node = walk.current + first;
    if (count < kGroup) {
      for (std::int64_t i = 0; i < kGroup; ++i) last_group[i] = i < count ? node[i] : -1;
      node = last_group;
    }
    for (int i = 0; i < kGroup; i += n) {
      const I at = load<I>(node + i);
      const I exists = bitcast<U>(at) < static_cast<std::uint64_t>(walk.csr.num_rows);
      const I start = get(walk.csr.rowptr, exists & at, exists),
              size = get(walk.csr.rowptr + 1, exists & at, exists) - start,
              is_short = exists & (size <= kShortRow);
      store(begin + i, I(is_short & start));
      store(degree + i, I(is_short & size));
    }
  }
};

// gat::walk_step of an agent whose row is longer. It keeps the running sums, so that the neighbours
// are added once; each addition waits for the one before. Returns false if it was not stepped.
template <class Isa, class T, class Index>
GAT_HD bool step_in_long_row(const WalkStep<T>& walk, const Index* col, std::int64_t agent,
                             double u, std::int64_t* next, T* log_prob) {
  constexpr int n = kLanes<Isa, double>;
  using D = Vec<double, n>;
  const std::int64_t node = walk.current[agent];
  if (walk.greedy || !is_row(walk.csr, node)) return false;
  const std::int64_t begin = walk.csr.rowptr[node], degree = walk.csr.rowptr[node + 1] - begin;
  if (degree <= kShortRow || degree > kKeptSums) return false;
  const auto weight = rank_of_neighbour<1>(walk, agent);
  double sum[kKeptSums], total = 0;
  bool valid = true;
  for (std::int64_t k = 0; k < degree; ++k) {
    const std::int64_t type = walk.node_type[col[begin + k]];
    const double w = weight.in_range(type) ? static_cast<double>(weight.rank[type])
                                           : std::numeric_limits<double>::quiet_NaN();
    valid = valid & (w >= 0);
    sum[k] = total += w;
  }
  if (!valid || !(total > 0) || !finite_total(total)) return false;
  for (std::int64_t k = degree; k % n != 0; ++k) sum[k] = total;
  const double target = u * total;
  Vec<std::int64_t, n> waiting{};  // minus the number of running sums that do not pass
  for (std::int64_t k = 0; k < degree; k += n) {
    const D s = load<D>(sum + k);
    waiting += (s <= target) & (s < total);
  }
  const std::int64_t k = begin - sum_lanes<std::int64_t>(waiting);
  next[agent] = static_cast<std::int64_t>(col[k]);
  log_prob[agent] = std::log(static_cast<T>(weight(k) / total));
  return true;
}

// The agents [first, last) of a group. Returns false where an index is out of range.
template <class Isa, bool use_gather, class T, class Index>
GAT_HD bool step_group(const WalkStep<T>& walk, const Index* col, std::int64_t first,
                       std::int64_t last, std::int64_t* next, T* log_prob) {
  double u[kGroup] = {};
  if (!walk.greedy) draw_group<Isa>(*walk.seed, first, walk.step, u);
  std::uint32_t left = ~std::uint32_t{0} >> (kGroup - (last - first));
  if constexpr (kStepsInLanes<Isa>) {
    // Lanes without a neighbour read the first one.
    if (walk.csr.num_edges() > 0 && walk.num_types > 0)
      left &= ~StepInLanes<Isa, T, Index, use_gather>{walk, col}.step(first, last - first, u, next,
                                                                      log_prob);
  }
  bool in_range = true;
  for (; left != 0; left &= left - 1) {
    const int i = __builtin_ctz(left);
    const std::int64_t b = first + i;
    if (!step_in_long_row<Isa>(walk, col, b, u[i], next, log_prob))
      in_range = gat::walk_step(walk, b, u[i], next, log_prob) && in_range;
  }
  return in_range;
}

template <class Isa, bool use_gather, class T>
bool step_all(const WalkStep<T>& walk, std::int64_t* next, T* log_prob, int num_threads) {
  const void* const col = walk.csr.col.data;
  return for_each_group<Isa>(
      walk.num_agents, work_of_step(walk.csr, kStepsInLanes<Isa>), num_threads,
      [&](std::int64_t first, std::int64_t last) {
        if (walk.csr.num_rows > kNodesInCache) prefetch_rows(walk, first, last);
        const auto step = [&](const auto* of_width) {
          return step_group<Isa, use_gather>(walk, of_width, first, last, next, log_prob);
        };
        return walk.csr.col.wide ? step(static_cast<const std::int64_t*>(col))
                                 : step(static_cast<const std::int32_t*>(col));
      });
}

template <class Isa, class T>
bool walk_step(const WalkStep<T>& walk, std::int64_t* next, T* log_prob, int num_threads) {
  if constexpr (kLanes<Isa, double> == 8) {
    if (has_fast_gather()) return step_all<Isa, true>(walk, next, log_prob, num_threads);
  }
  return step_all<Isa, false>(walk, next, log_prob, num_threads);
}

template <class Isa, class T>
void walk_step_backward(const WalkStep<T>& walk, const std::int64_t* next, const T* grad,
                        T* grad_rank, int num_threads) {
  const std::int64_t work = work_of_step(walk.csr, false);
  for_each_group<Isa>(walk.num_agents, work, num_threads,
                      [&](std::int64_t first, std::int64_t last) {
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
  for_each_group<Isa>(walk.num_walks, width * kWorkOfAgent, num_threads,
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
