// Sampled neighbourhoods on the CPU: layers of bipartite blocks from a batch of seeds outwards.
//
// Note [sampling in tiles]. Every load of a row, an edge or the number of a node is at a random
// place in memory. Rows are sampled in tiles: one loop over the tile draws positions and prefetches
// their edges, the next reads the edges and prefetches the numbers of their nodes, and so on. Draws
// of different rows are independent, so tiles are shared by the threads; nodes are numbered by one
// thread, in the order of the edges, so that the order of nodes is the same for any number.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "../core/neighbor_sample.h"
#include "node_numbers.h"
#include "sampled_rows.h"
#include "threads.h"

namespace gat::cpu {

// A batch: where sampling begins, and how far it goes.
struct SampleRequest {
  const std::int64_t* seeds = nullptr;      // [num_seeds]
  const std::int64_t* seed_time = nullptr;  // [num_seeds], or null
  std::int64_t num_seeds = 0;
  const std::int64_t* fanouts = nullptr;  // [num_layers], of the seeds first; -1: all neighbours
  std::int64_t num_layers = 0;
  bool disjoint = false;  // a tree for each seed, which share no node
  bool frontier = false;  // a layer samples for the nodes that the layer before added only
  std::int64_t seed = 0, epoch = 0;
};

// Memory for the results of a layer.
struct SampledRows {
  std::int64_t* rowptr;   // [num_rows + 1]
  std::int32_t* col;      // [num_edges], numbers of nodes within the batch
  std::int64_t* edge_id;  // [num_edges], the caller's positions
};

// Nodes of the batch in the order of their numbers. A key is the node, or in disjoint trees
// tree · N + node.
struct SampledNodes {
  std::vector<std::int64_t> key, node, tree;  // node and tree in disjoint trees only
};

namespace sampling {

inline constexpr std::int64_t kTile = 32;        // rows
inline constexpr std::int64_t kGroup = 64;       // edges whose nodes are numbered together
inline constexpr std::int64_t kAhead = 16;       // rows whose pointers are prefetched
inline constexpr std::int64_t kWorkOfEdge = 40;  // in multiplications and additions
inline constexpr std::int64_t kMostNodes = std::numeric_limits<std::int32_t>::max() - 1;

// Samples all layers of a batch; Numbers is KeyTable or KeyHash.
template <class Numbers>
class BatchSampler {
 public:
  BatchSampler(const NeighborSampling& graph, const SampleRequest& request, SampledNodes& nodes,
               int num_threads)
      : graph_(graph),
        request_(request),
        nodes_(nodes),
        numbers_(request.disjoint ? request.num_seeds * graph.csr.num_rows : graph.csr.num_rows),
        threads_(num_threads) {}
  ~BatchSampler() { numbers_.forget(nodes_.key.data(), size()); }
  BatchSampler(const BatchSampler&) = delete;
  BatchSampler& operator=(const BatchSampler&) = delete;

  // allocate(layer, num_rows, num_edges) returns SampledRows; finished(layer, num_nodes) is called
  // behind each layer.
  template <class Allocate, class Finished>
  SampleStatus run(const Allocate& allocate, const Finished& finished) {
    begin();
    if (failed()) return status_;
    std::int64_t first = 0;
    for (std::int64_t layer = 0; layer < request_.num_layers; ++layer) {
      const std::int64_t last = size();
      const LayerSampler sampler(graph_, request_.fanouts[layer], layer);
      measure(sampler, first, last);
      if (failed()) return status_;
      const SampledRows out = allocate(layer, last - first, offsets_.back());
      std::copy(offsets_.begin(), offsets_.end(), out.rowptr);
      sample(sampler, first, out);
      if (failed()) return status_;
      finished(layer, size());
      if (request_.frontier) first = last;
    }
    return status_;
  }

 private:
  std::int64_t size() const { return static_cast<std::int64_t>(nodes_.key.size()); }
  std::int64_t node(std::int64_t i) const {
    return (request_.disjoint ? nodes_.node : nodes_.key)[static_cast<std::size_t>(i)];
  }
  std::int64_t tree(std::int64_t i) const {
    return request_.disjoint ? nodes_.tree[static_cast<std::size_t>(i)] : 0;
  }
  std::int64_t time(std::int64_t i) const {
    return request_.seed_time != nullptr ? request_.seed_time[tree(i)] : 0;
  }

  void begin() {
    const std::int64_t num_nodes = graph_.csr.num_rows;
    const std::uint64_t key = sampling_key(request_.seed, request_.epoch);
    keys_.assign(1, key);
    if (request_.disjoint) keys_.resize(static_cast<std::size_t>(request_.num_seeds));
    numbers_.reserve(request_.num_seeds);
    for (std::int64_t i = 0; i < request_.num_seeds; ++i) {
      const std::int64_t seed = request_.seeds[i];
      if (!is_row(graph_.csr, seed)) {
        status_ = {SampleError::seed, seed};
        return;
      }
      const std::int64_t own = request_.disjoint ? i * num_nodes + seed : seed;
      numbers_.number(own, static_cast<std::int32_t>(i));
      nodes_.key.push_back(own);
      if (!request_.disjoint) continue;
      keys_[static_cast<std::size_t>(i)] = sampling_key(static_cast<std::int64_t>(key), seed);
      nodes_.node.push_back(seed);
      nodes_.tree.push_back(i);
    }
  }

  // Calls f(tile, scratch) on the threads; the first error of a tile is that of the batch.
  template <class F>
  void for_each_tile(std::int64_t tiles, int threads, const F& f) {
    std::vector<SampleStatus> found(static_cast<std::size_t>(tiles));
#pragma omp parallel num_threads(threads)
    {
      Scratch scratch;
#pragma omp for schedule(dynamic, 4)
      for (std::int64_t tile = 0; tile < tiles; ++tile)
        found[static_cast<std::size_t>(tile)] = f(tile, scratch);
    }
    for (const SampleStatus& status : found) {
      if (failed()) return;
      status_ = status;
    }
  }
  bool failed() const { return status_.error != SampleError::none; }
  std::int64_t offset(std::int64_t row) const { return offsets_[static_cast<std::size_t>(row)]; }

  // Fills rows_ and offsets_.
  void measure(const LayerSampler& sampler, std::int64_t first, std::int64_t last) {
    const std::int64_t count = last - first, tiles = (count + kTile - 1) / kTile;
    rows_.resize(static_cast<std::size_t>(count));
    const int threads = threads_for(count * kWorkOfEdge, tiles, threads_);
    for_each_tile(tiles, threads, [&](std::int64_t tile, Scratch&) {
      const std::int64_t end = std::min(last, first + (tile + 1) * kTile);
      for (std::int64_t i = first + tile * kTile; i < end; ++i) {
        if (i + kAhead < last) __builtin_prefetch(graph_.csr.rowptr + node(i + kAhead));
        const SampleStatus status =
            sampler.measure(node(i), time(i), rows_[static_cast<std::size_t>(i - first)]);
        if (status.error != SampleError::none) return status;
      }
      return SampleStatus{};
    });
    offsets_.resize(static_cast<std::size_t>(count + 1));
    offsets_[0] = 0;
    for (std::int64_t i = 0; i < count; ++i)
      offsets_[static_cast<std::size_t>(i + 1)] =
          offset(i) + rows_[static_cast<std::size_t>(i)].count;
    if (!failed() && offsets_.back() > kMostNodes - size())
      status_ = {SampleError::size, offsets_.back()};
  }

  void sample(const LayerSampler& sampler, std::int64_t first, const SampledRows& out) {
    const auto count = static_cast<std::int64_t>(rows_.size());
    const std::int64_t tiles = (count + kTile - 1) / kTile;
    const int threads = threads_for(offsets_.back() * kWorkOfEdge, tiles, threads_);
    const auto end_of = [&](std::int64_t tile) { return std::min(count, (tile + 1) * kTile); };
    if (threads > 1) {
      found_.resize(static_cast<std::size_t>(offsets_.back()));
      for_each_tile(tiles, threads, [&](std::int64_t tile, Scratch& scratch) {
        std::int64_t* const keys = found_.data() + offset(tile * kTile);
        return draw(sampler, first, tile * kTile, end_of(tile), out.edge_id, keys, scratch);
      });
      if (!failed()) number(found_.data(), offsets_.back(), out.col);
      return;
    }
    Scratch scratch;
    for (std::int64_t tile = 0; tile < tiles; ++tile) {
      const std::int64_t begin = offset(tile * kTile), edges = offset(end_of(tile)) - begin;
      if (found_.size() < static_cast<std::size_t>(edges))
        found_.resize(static_cast<std::size_t>(edges));
      status_ =
          draw(sampler, first, tile * kTile, end_of(tile), out.edge_id, found_.data(), scratch);
      if (failed()) return;
      number(found_.data(), edges, out.col + begin);
    }
  }

  // Writes the sampled edges of the rows [begin, end), which are those of the nodes from `first`
  // on: the caller's positions to edge_id, and the keys of their sources to `keys`.
  SampleStatus draw(const LayerSampler& sampler, std::int64_t first, std::int64_t begin,
                    std::int64_t end, std::int64_t* edge_id, std::int64_t* keys,
                    Scratch& scratch) const {
    for (std::int64_t r = begin; r < end; ++r) {
      const Row& row = rows_[static_cast<std::size_t>(r)];
      const std::int64_t i = first + r;
      std::int64_t* const chosen = edge_id + offset(r);
      sampler.draw(row, node(i), time(i), keys_[static_cast<std::size_t>(tree(i))], scratch,
                   chosen);
      for (std::int64_t e = 0; e < row.count; ++e) {
        prefetch_at(graph_.csr.col, chosen[e]);
        if (graph_.csr.edge_id) prefetch_at(graph_.csr.edge_id, chosen[e]);
      }
    }
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t offset_of_tree = tree(first + r) * graph_.csr.num_rows;
      for (std::int64_t e = offset(r); e < offset(r + 1); ++e) {
        const std::int64_t source = graph_.csr.col[edge_id[e]];
        if (!is_row(graph_.csr, source)) return {SampleError::column, source};
        *keys++ = offset_of_tree + source;
        edge_id[e] = graph_.csr.id(edge_id[e]);
      }
    }
    return {};
  }
  static void prefetch_at(const IndexArray& array, std::int64_t k) {
    __builtin_prefetch(static_cast<const char*>(array.data) + k * (array.wide ? 8 : 4));
  }

  // Writes the numbers of keys within the batch to col; new nodes get the next numbers.
  void number(const std::int64_t* keys, std::int64_t count, std::int32_t* col) {
    const std::int64_t before = size();
    for (std::int64_t begin = 0; begin < count; begin += kGroup) {
      const std::int64_t end = std::min(count, begin + kGroup);
      numbers_.reserve(end - begin);
      for (std::int64_t k = begin; k < end; ++k) numbers_.prefetch(keys[k]);
      std::int64_t next = size();
      nodes_.key.resize(static_cast<std::size_t>(next + end - begin));
      std::int64_t* const all = nodes_.key.data();
      for (std::int64_t k = begin; k < end; ++k) {  // without a branch that cannot be predicted
        col[k] = numbers_.number(keys[k], static_cast<std::int32_t>(next));
        all[next] = keys[k];
        next += col[k] == next;
      }
      nodes_.key.resize(static_cast<std::size_t>(next));
    }
    if (!request_.disjoint) return;
    const std::int64_t num_nodes = graph_.csr.num_rows;
    for (std::int64_t i = before; i < size(); ++i) {
      const std::int64_t key = nodes_.key[static_cast<std::size_t>(i)];
      nodes_.node.push_back(key % num_nodes);
      nodes_.tree.push_back(key / num_nodes);
    }
  }

  const NeighborSampling& graph_;
  const SampleRequest& request_;
  SampledNodes& nodes_;
  Numbers numbers_;
  int threads_;
  SampleStatus status_;
  std::vector<std::uint64_t> keys_;  // of the random numbers: one, or one for each tree
  std::vector<Row> rows_;
  std::vector<std::int64_t> offsets_, found_;
};

}  // namespace sampling

// Samples a batch. allocate(layer, num_rows, num_edges) returns the SampledRows of a layer, the
// seeds' first; finished(layer, num_nodes) is called behind each. The results are incomplete where
// the status is an error.
template <class Allocate, class Finished>
SampleStatus sample_neighbors(const NeighborSampling& graph, const SampleRequest& request,
                              SampledNodes& nodes, int num_threads, const Allocate& allocate,
                              const Finished& finished) {
  const std::int64_t trees = request.disjoint ? request.num_seeds : 1;
  if (trees * graph.csr.num_rows <= kLargestTable) {
    sampling::BatchSampler<KeyTable> sampler(graph, request, nodes, num_threads);
    return sampler.run(allocate, finished);
  }
  sampling::BatchSampler<KeyHash> sampler(graph, request, nodes, num_threads);
  return sampler.run(allocate, finished);
}

}  // namespace gat::cpu
