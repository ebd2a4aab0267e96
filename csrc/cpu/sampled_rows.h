// The edges that are drawn from one row of a graph, in one layer of a batch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../core/neighbor_sample.h"

namespace gat::cpu {

enum class SampleError { none, seed, rows, column, weight, size };

struct SampleStatus {
  SampleError error = SampleError::none;
  std::int64_t value = 0;  // the faulty seed, row, column or position of an edge
};

namespace sampling {

struct Candidate {
  double key;
  std::int64_t time, position;
};

// Scratch memory of a thread.
struct Scratch {
  std::vector<std::uint64_t> taken;
  std::vector<std::int64_t> candidates;
  std::vector<Candidate> ranked;
  std::vector<double> sums;
};

// The row of one node.
struct Row {
  std::int64_t begin = 0, degree = 0, count = 0;
};

// Samples the rows of one layer.
class LayerSampler {
 public:
  LayerSampler(const NeighborSampling& graph, std::int64_t fanout, std::int64_t layer)
      : graph_(graph), fanout_(fanout), layer_(layer) {}

  // The row of a node and the number of its edges in the sample. Returns false if the row pointers
  // or a weight are invalid.
  SampleStatus measure(std::int64_t node, std::int64_t latest_time, Row& row) const {
    const std::int64_t begin = graph_.csr.rowptr[node], end = graph_.csr.rowptr[node + 1];
    if (begin < 0 || end < begin || end > graph_.num_edges) return {SampleError::rows, node};
    std::int64_t size = end - begin;
    if (graph_.filtered()) {
      size = 0;
      for (std::int64_t k = begin; k < end; ++k) {
        if (graph_.weight != nullptr && !(graph_.weight[k] >= 0 && finite_total(graph_.weight[k])))
          return {SampleError::weight, graph_.csr.id(k)};
        if (graph_.node_time != nullptr && !is_row(graph_.csr, graph_.csr.col[k]))
          return {SampleError::column, graph_.csr.col[k]};
        size += admits(k, latest_time);
      }
    }
    row = {begin, end - begin, count_of(size)};
    return {};
  }

  // Writes the positions of the sampled edges of a row to chosen [row.count].
  void draw(const Row& row, std::int64_t node, std::int64_t latest_time, std::uint64_t key,
            Scratch& scratch, std::int64_t* chosen) const {
    if (row.count == 0) return;
    NodeDraws draws(key, node, layer_);
    if (!graph_.filtered()) {
      draw_places(draws, row.degree, row.count, scratch, chosen);
      for (std::int64_t i = 0; i < row.count; ++i) chosen[i] += row.begin;
      return;
    }
    std::vector<std::int64_t>& candidates = scratch.candidates;
    candidates.clear();
    for (std::int64_t k = row.begin; k < row.begin + row.degree; ++k) {
      if (admits(k, latest_time)) candidates.push_back(k);
    }
    const auto size = static_cast<std::int64_t>(candidates.size());
    const bool all = row.count == size && (!graph_.replace || fanout_ < 0);
    if (all) {
      std::copy(candidates.begin(), candidates.end(), chosen);
    } else if (graph_.latest || (graph_.weight != nullptr && !graph_.replace)) {
      draw_ranked(draws, row, scratch, chosen);
    } else if (graph_.weight != nullptr) {
      draw_by_weight(draws, row.count, scratch, chosen);
    } else {
      draw_places(draws, size, row.count, scratch, chosen);
      for (std::int64_t i = 0; i < row.count; ++i)
        chosen[i] = candidates[static_cast<std::size_t>(chosen[i])];
    }
  }

 private:
  bool admits(std::int64_t k, std::int64_t latest_time) const {
    if (graph_.weight != nullptr && !(graph_.weight[k] > 0)) return false;
    const bool timed = graph_.edge_time != nullptr || graph_.node_time != nullptr;
    return !timed || graph_.time(k) <= latest_time;
  }
  std::int64_t count_of(std::int64_t size) const {
    if (fanout_ < 0) return size;
    if (graph_.replace && !graph_.latest) return size > 0 ? fanout_ : 0;
    return std::min(size, fanout_);
  }
  void draw_places(NodeDraws& draws, std::int64_t size, std::int64_t count, Scratch& scratch,
                   std::int64_t* chosen) const {
    if (graph_.replace && fanout_ >= 0) {
      for (std::int64_t i = 0; i < count; ++i) chosen[i] = draws.below(size);
    } else if (count == size) {
      for (std::int64_t i = 0; i < count; ++i) chosen[i] = i;
    } else {
      const auto words = static_cast<std::size_t>((size + 63) / 64);
      if (scratch.taken.size() < words) scratch.taken.resize(words);
      draw_distinct(draws, size, count, scratch.taken.data(), chosen);
    }
  }
  // The edges of the smallest keys, or of the latest times, in the order of the row.
  void draw_ranked(const NodeDraws& draws, const Row& row, Scratch& scratch,
                   std::int64_t* chosen) const {
    std::vector<Candidate>& ranked = scratch.ranked;
    ranked.clear();
    for (const std::int64_t k : scratch.candidates) {
      if (graph_.latest) {
        ranked.push_back({0, graph_.time(k), k});
      } else {
        const double uniform = draws.of_edge(k - row.begin);
        ranked.push_back({exponential_key(uniform, graph_.weight[k]), 0, k});
      }
    }
    const auto before = [](const Candidate& a, const Candidate& b) {
      if (a.key != b.key) return a.key < b.key;
      if (a.time != b.time) return a.time > b.time;
      return a.position > b.position;
    };
    std::nth_element(ranked.begin(), ranked.begin() + row.count, ranked.end(), before);
    for (std::int64_t i = 0; i < row.count; ++i)
      chosen[i] = ranked[static_cast<std::size_t>(i)].position;
    std::sort(chosen, chosen + row.count);
  }
  // Independent draws, each by a search in the running sums of the weights.
  void draw_by_weight(NodeDraws& draws, std::int64_t count, Scratch& scratch,
                      std::int64_t* chosen) const {
    std::vector<double>& sums = scratch.sums;
    sums.clear();
    double sum = 0;
    for (const std::int64_t k : scratch.candidates) {
      sum += static_cast<double>(graph_.weight[k]);
      sums.push_back(sum);
    }
    const auto size = static_cast<std::int64_t>(sums.size());
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t place = draw_cumulative(0, size, sums.data(), draws.next_uniform());
      chosen[i] = scratch.candidates[static_cast<std::size_t>(place)];
    }
  }

  const NeighborSampling& graph_;
  std::int64_t fanout_, layer_;
};

}  // namespace sampling
}  // namespace gat::cpu
