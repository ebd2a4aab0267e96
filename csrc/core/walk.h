// Walks over a graph: how an agent chooses its next node, written once for host and device.
//
// Note [draws]. The neighbours of a node are a row of the CSR; neighbour k has a weight w_k >= 0. A
// uniform number u in [0, 1) selects the first k at which the running sum w_begin + … + w_k exceeds
// u · total, or equals total, to which u · total may be rounded. A neighbour of weight 0 does not
// raise the sum, so it is never selected, and one neighbour of the row always is. Sums are in
// double, in the order of the row, without a product that could be fused with an addition: walks on
// host and device are bitwise identical. The random number of agent b at step t is Philox(seed; b,
// t).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "csr.h"
#include "philox.h"

namespace gat {

// The position of an edge for an agent that does not move.
inline constexpr std::int64_t kStays = -1;

// A number in [0, 1) from the upper 53 of 64 random bits.
GAT_HD double uniform_of_bits(std::uint64_t bits) {
  return static_cast<double>(static_cast<std::int64_t>(bits >> 11)) * 0x1p-53;
}

GAT_HD double walk_uniform(std::int64_t seed, std::int64_t agent, std::int64_t step) {
  const Philox4 numbers =
      philox(static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(agent),
             static_cast<std::uint64_t>(step));
  return uniform_of_bits(std::uint64_t{numbers.word[0]} << 32 | numbers.word[1]);
}

// False for NaN.
GAT_HD bool finite_total(double total) { return total < static_cast<double>(INFINITY); }

GAT_HD bool running_sum_passes(double sum, double target, double total) {
  return (sum > target) | (sum >= total);
}

// [begin, end) is a row of at least one neighbour; returns a position in it.
GAT_HD std::int64_t draw_uniform(std::int64_t begin, std::int64_t end, double u) {
  const std::int64_t k = begin + static_cast<std::int64_t>(u * static_cast<double>(end - begin));
  return k < end ? k : end - 1;
}

// Calls f(k, weight of k) for the neighbours [begin, end) in their order. Weight::kAtOnce weights
// are loaded before the first is used, because each is at the end of a chain of loads: load(k,
// last, w) writes the weights of k, k + 1, …, and after the last neighbour the last one's.
template <class Weight, class F>
GAT_HD void for_each_weight(std::int64_t begin, std::int64_t end, const Weight& weight,
                            const F& f) {
  for (std::int64_t first = begin; first < end; first += Weight::kAtOnce) {
    double w[Weight::kAtOnce];
    weight.load(first, end - 1, w);
    for (int i = 0; i < Weight::kAtOnce; ++i) {
      if (i == 0 || first + i < end) f(first + i, w[i]);
    }
  }
}

// The weights are in double. Returns NaN where one is negative or NaN.
template <class Weight>
GAT_HD double total_weight(std::int64_t begin, std::int64_t end, const Weight& weight) {
  double total = 0;
  bool valid = true;
  for_each_weight(begin, end, weight, [&](std::int64_t, double w) {
    valid = valid & (w >= 0);
    total += w;
  });
  return valid ? total : static_cast<double>(NAN);
}

// total is the sum of the row, finite and above 0. The result is begin plus the number of running
// sums that do not pass: a loop that stops at the drawn neighbour would mispredict a branch for
// nearly every agent.
template <class Weight>
GAT_HD std::int64_t draw_weighted(std::int64_t begin, std::int64_t end, const Weight& weight,
                                  double total, double u) {
  const double target = u * total;
  double sum = 0;
  std::int64_t drawn = begin;
  for_each_weight(begin, end, weight, [&](std::int64_t, double w) {
    sum += w;
    drawn += !running_sum_passes(sum, target, total);
  });
  return drawn;
}

template <class Weight>
GAT_HD std::int64_t heaviest(std::int64_t begin, std::int64_t end, const Weight& weight) {
  std::int64_t best = begin;
  double most = -1;
  for_each_weight(begin, end, weight, [&](std::int64_t k, double w) {
    best = w > most ? k : best;
    most = w > most ? w : most;
  });
  return best;
}

// cumulative[k] is the running sum of the row up to k. Draws the same neighbour as draw_weighted,
// in log(degree) steps: `probes` loads, in flight together, divide the range into probes + 1 parts.
template <int probes = 1>
GAT_HD std::int64_t draw_cumulative(std::int64_t begin, std::int64_t end, const double* cumulative,
                                    double u) {
  const double total = cumulative[end - 1], target = u * total;
  if (!(total > 0) || !finite_total(total)) return kStays;
  std::int64_t low = begin, high = end - 1;  // the last sum passes
  while (probes == 1 && low < high) {  // without the loops over probes: they cost the CPU 10 %
    const std::int64_t middle = low + (high - low) / 2;
    if (running_sum_passes(cumulative[middle], target, total)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  while (low < high) {
    const std::int64_t part = (high - low + probes + 1) / (probes + 1);
    double sum[probes];
    for (int i = 0; i < probes; ++i) {
      const std::int64_t probe = low + (i + 1) * part - 1;
      sum[i] = cumulative[probe < high ? probe : high];
    }
    std::int64_t next = low;
    for (int i = 0; i < probes; ++i)
      next = running_sum_passes(sum[i], target, total) ? next : low + (i + 1) * part;
    high = next + part - 1 < high ? next + part - 1 : high;
    low = next;
  }
  return low;
}

// ---- one step of an agent that prefers some types of nodes

// T is float or double. An index that is out of range is not followed: the agent stays, and its
// log_prob is NaN.
template <class T>
struct WalkStep {
  CsrView csr;                              // square
  const std::int64_t* current = nullptr;    // [B]
  const T* rank = nullptr;                  // [B, R]
  const std::int64_t* node_type = nullptr;  // [N]
  std::int64_t num_agents = 0, num_types = 0;
  const std::int64_t* seed = nullptr;  // one number, in the memory of the device
  std::int64_t step = 0;
  bool greedy = false;
};

template <class T, int at_once>
struct RankOfNeighbour {
  static constexpr int kAtOnce = at_once;
  IndexArray col;
  const std::int64_t* node_type;
  const T* rank;  // [R], the agent's
  std::int64_t num_types;

  GAT_HD std::int64_t type(std::int64_t k) const { return node_type[col[k]]; }
  GAT_HD bool in_range(std::int64_t type) const {
    return static_cast<std::uint64_t>(type) < static_cast<std::uint64_t>(num_types);
  }
  GAT_HD double operator()(std::int64_t k) const {
    const std::int64_t t = type(k);
    return in_range(t) ? static_cast<double>(rank[t]) : static_cast<double>(NAN);
  }
  GAT_HD void load(std::int64_t k, std::int64_t last, double (&weight)[at_once]) const {
    if constexpr (at_once == 1) {
      weight[0] = (*this)(k);
    } else {
      std::int64_t of[at_once];
      if (col.wide) {
        load_columns(static_cast<const std::int64_t*>(col.data), k, last, of);
      } else {
        load_columns(static_cast<const std::int32_t*>(col.data), k, last, of);
      }
      for (int i = 0; i < at_once; ++i) of[i] = node_type[of[i]];
      for (int i = 0; i < at_once; ++i)
        weight[i] = in_range(of[i]) ? static_cast<double>(rank[of[i]]) : static_cast<double>(NAN);
    }
  }
  template <class Index>
  static GAT_HD void load_columns(const Index* from, std::int64_t k, std::int64_t last,
                                  std::int64_t (&column)[at_once]) {
    for (int i = 0; i < at_once; ++i) column[i] = from[k + i < last ? k + i : last];
  }
};

template <int at_once, class T>
GAT_HD RankOfNeighbour<T, at_once> rank_of_neighbour(const WalkStep<T>& walk, std::int64_t agent) {
  return {walk.csr.col, walk.node_type, walk.rank + agent * walk.num_types, walk.num_types};
}

GAT_HD bool is_row(const CsrView& csr, std::int64_t node) {
  return static_cast<std::uint64_t>(node) < static_cast<std::uint64_t>(csr.num_rows);
}

// Writes next [B] and log_prob [B] of one agent from its random number u. Returns false where an
// index is out of range. The weights of `at_once` neighbours are loaded together.
template <int at_once = 1, class T>
GAT_HD bool walk_step(const WalkStep<T>& walk, std::int64_t agent, double u, std::int64_t* next,
                      T* log_prob) {
  const std::int64_t node = walk.current[agent];
  next[agent] = node;
  log_prob[agent] = static_cast<T>(NAN);
  if (!is_row(walk.csr, node)) return false;
  const std::int64_t begin = walk.csr.rowptr[node], end = walk.csr.rowptr[node + 1];
  if (begin == end) {
    log_prob[agent] = T(0);
    return true;
  }
  const RankOfNeighbour<T, at_once> weight = rank_of_neighbour<at_once>(walk, agent);
  const double total = total_weight(begin, end, weight);
  if (!finite_total(total)) {
    bool in_range = true;
    for (std::int64_t k = begin; k < end; ++k)
      in_range = in_range && weight.in_range(weight.type(k));
    return in_range;
  }
  std::int64_t k;
  double p;
  if (total == 0) {
    k = walk.greedy ? begin : draw_uniform(begin, end, u);
    p = 1 / static_cast<double>(end - begin);
  } else {
    k = walk.greedy ? heaviest(begin, end, weight) : draw_weighted(begin, end, weight, total, u);
    p = weight(k) / total;
  }
  next[agent] = walk.csr.col[k];
  log_prob[agent] = std::log(static_cast<T>(p));
  return true;
}

// Counts neighbours in the memory of a T as an integer, so that a count is exact where T would
// round it.
template <class T>
struct CountInPlace {
  using Count = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

  static GAT_HD Count get(const T& slot) {
    Count count;
    std::memcpy(&count, &slot, sizeof count);
    return count;
  }
  static GAT_HD void increment(T& slot) {
    const Count count = get(slot) + 1;
    std::memcpy(&slot, &count, sizeof count);
  }
};

// Writes the agent's row of grad_rank [B, R], which is zero on entry. With m the type moved to, n_k
// the number of neighbours of type k and Z the total,
// d log p / d rank_k = [k = m] / rank_m - n_k / Z. next [B] is the result of the step, grad [B] the
// gradient of its log_prob.
template <int at_once = 1, class T>
GAT_HD void walk_step_backward(const WalkStep<T>& walk, std::int64_t agent,
                               const std::int64_t* next, const T* grad, T* grad_rank) {
  const std::int64_t node = walk.current[agent];
  if (!is_row(walk.csr, node) || !is_row(walk.csr, next[agent])) return;
  const std::int64_t begin = walk.csr.rowptr[node], end = walk.csr.rowptr[node + 1];
  const RankOfNeighbour<T, at_once> weight = rank_of_neighbour<at_once>(walk, agent);
  const double total = total_weight(begin, end, weight);
  if (total == 0) return;  // no neighbours, or none of a rank above 0
  T* const row = grad_rank + agent * walk.num_types;
  for (std::int64_t k = begin; k < end; ++k) {
    const std::int64_t type = weight.type(k);
    if (weight.in_range(type)) CountInPlace<T>::increment(row[type]);
  }
  const double g = static_cast<double>(grad[agent]);
  const std::int64_t moved = walk.node_type[next[agent]];
  for (std::int64_t type = 0; type < walk.num_types; ++type) {
    const auto count = CountInPlace<T>::get(row[type]);
    if (count == 0) continue;
    const double chosen = type == moved ? 1 / static_cast<double>(weight.rank[type]) : 0;
    row[type] = static_cast<T>(g * (chosen - static_cast<double>(count) / total));
  }
}

// ---- random walks

struct RandomWalk {
  CsrView csr;  // square
  // [E] running sums of the weights in each row, from running_sums; null: all weights are 1.
  const double* cumulative = nullptr;
  std::int64_t num_walks = 0, length = 0;
  const std::int64_t* seed = nullptr;  // one number, in the memory of the device
};

// What a weight adds to the running sums: they are NaN from the first negative one on.
GAT_HD double summand(double weight) { return weight >= 0 ? weight : static_cast<double>(NAN); }

// Writes the running sums of one row.
GAT_HD void running_sums(const CsrView& csr, std::int64_t row, const double* weight,
                         double* cumulative) {
  double sum = 0;
  for (std::int64_t k = csr.rowptr[row]; k < csr.rowptr[row + 1]; ++k) {
    sum += summand(weight[k]);
    cumulative[k] = sum;
  }
}

// The edge along which a walk leaves `node`, drawn by the random number u: its position, or kStays.
template <int probes = 1>
GAT_HD std::int64_t random_edge(const RandomWalk& walk, std::int64_t node, double u) {
  if (!is_row(walk.csr, node)) return kStays;
  const std::int64_t begin = walk.csr.rowptr[node], end = walk.csr.rowptr[node + 1];
  if (begin == end) return kStays;
  return walk.cumulative ? draw_cumulative<probes>(begin, end, walk.cumulative, u)
                         : draw_uniform(begin, end, u);
}

}  // namespace gat
