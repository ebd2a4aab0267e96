// Sampled neighbourhoods: edges of the graph, distinct unless drawn with replacement, the same for
// any number of threads and for both numberings of nodes, and errors in place of reads out of
// range.
#include <cstdint>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "check.h"
#include "cpu/neighbor_sample.h"
#include "cpu/self_loops.h"

namespace {

using namespace gat;
using Indices = std::vector<std::int64_t>;

struct Graph {
  Indices rowptr{0}, col;
  std::vector<float> weight;
  Indices time;

  Graph(std::int64_t num_nodes, std::int64_t most) {
    std::mt19937 random(5);
    for (std::int64_t row = 0; row < num_nodes; ++row) {
      const std::int64_t degree = row % 7 == 0 ? 0 : random() % static_cast<unsigned>(most);
      for (std::int64_t k = 0; k < degree; ++k) {
        col.push_back(random() % static_cast<unsigned>(num_nodes));
        weight.push_back(static_cast<float>(random() % 4));
        time.push_back(random() % 100);
      }
      rowptr.push_back(static_cast<std::int64_t>(col.size()));
    }
  }
  std::int64_t num_nodes() const { return static_cast<std::int64_t>(rowptr.size()) - 1; }
  NeighborSampling sampling() const {
    return {{rowptr.data(), {col.data(), true}, {}, num_nodes()},
            static_cast<std::int64_t>(col.size())};
  }
};

struct Layer {
  Indices rowptr, edge_id;
  std::vector<std::int32_t> col;
};
struct Batch {
  cpu::SampledNodes nodes;
  std::vector<Layer> layers;
  cpu::SampleStatus status;
};

template <class Numbers>
Batch sample(const NeighborSampling& graph, const cpu::SampleRequest& request, int threads) {
  Batch batch;
  cpu::sampling::BatchSampler<Numbers> sampler(graph, request, batch.nodes, threads);
  batch.layers.reserve(static_cast<std::size_t>(request.num_layers));
  batch.status = sampler.run(
      [&](std::int64_t, std::int64_t rows, std::int64_t edges) {
        Layer& layer = batch.layers.emplace_back();
        layer.rowptr.resize(static_cast<std::size_t>(rows) + 1);
        layer.col.resize(static_cast<std::size_t>(edges));
        layer.edge_id.resize(static_cast<std::size_t>(edges));
        return cpu::SampledRows{layer.rowptr.data(), layer.col.data(), layer.edge_id.data()};
      },
      [](std::int64_t, std::int64_t) {});
  return batch;
}

void check_equal(const Batch& a, const Batch& b) {
  CHECK(a.status.error == b.status.error && a.nodes.key == b.nodes.key);
  CHECK(a.nodes.node == b.nodes.node && a.nodes.tree == b.nodes.tree);
  CHECK(a.layers.size() == b.layers.size());
  for (std::size_t l = 0; l < a.layers.size(); ++l) {
    CHECK(a.layers[l].rowptr == b.layers[l].rowptr && a.layers[l].col == b.layers[l].col);
    CHECK(a.layers[l].edge_id == b.layers[l].edge_id);
  }
}

void check_edges(const Graph& graph, const Batch& batch, bool disjoint, bool replace) {
  const Indices& node = disjoint ? batch.nodes.node : batch.nodes.key;
  for (const Layer& layer : batch.layers) {
    for (std::size_t r = 0; r + 1 < layer.rowptr.size(); ++r) {
      std::set<std::int64_t> drawn;
      for (std::int64_t e = layer.rowptr[r]; e < layer.rowptr[r + 1]; ++e) {
        const std::int64_t k = layer.edge_id[static_cast<std::size_t>(e)];
        CHECK(graph.rowptr[node[r]] <= k && k < graph.rowptr[node[r] + 1]);
        CHECK(node[layer.col[static_cast<std::size_t>(e)]] == graph.col[k]);
        CHECK(drawn.insert(k).second || replace);
      }
    }
  }
}

void check_sampling(const Graph& graph, bool disjoint) {
  const Indices fanouts{12, 5, -1};
  Indices seeds, times;
  for (std::int64_t i = 0; i < (disjoint ? 60 : 900); ++i) {
    seeds.push_back(i * 3 % graph.num_nodes());
    times.push_back(50);
  }
  for (const int kind : {0, 1, 2, 3, 4}) {
    NeighborSampling sampling = graph.sampling();
    cpu::SampleRequest request{seeds.data(), nullptr, static_cast<std::int64_t>(seeds.size()),
                               fanouts.data(), 3};
    request.disjoint = disjoint, request.seed = 3;
    sampling.replace = kind == 1 || kind == 3;
    if (kind == 2 || kind == 3) sampling.weight = graph.weight.data();
    if (kind == 4 && disjoint) {
      sampling.edge_time = graph.time.data(), sampling.latest = true;
      request.seed_time = times.data();
    }
    const Batch one = sample<cpu::KeyTable>(sampling, request, 1);
    CHECK(one.status.error == cpu::SampleError::none && one.layers.size() == 3);
    check_edges(graph, one, disjoint, sampling.replace);
    for (const int threads : {1, 2, 5}) {
      check_equal(one, sample<cpu::KeyTable>(sampling, request, threads));
      check_equal(one, sample<cpu::KeyHash>(sampling, request, threads));
    }
  }
}

void check_errors(Graph graph) {
  const Indices fanouts{-1}, seeds{1, 2, 3};
  const cpu::SampleRequest request{seeds.data(), nullptr, 3, fanouts.data(), 1};
  const auto error = [&] {
    return sample<cpu::KeyTable>(graph.sampling(), request, 1).status.error;
  };
  CHECK(error() == cpu::SampleError::none);
  const std::int64_t first = graph.rowptr[1], before = graph.col[first];
  graph.col[first] = graph.num_nodes();
  CHECK(error() == cpu::SampleError::column);
  graph.col[first] = before;
  graph.rowptr[3] = graph.rowptr.back() + 1;
  CHECK(error() == cpu::SampleError::rows);
}

void check_self_loops(const Graph& graph) {
  const CsrView csr = graph.sampling().csr;
  Indices first;
  for (const int threads : {1, 2, 5}) {
    cpu::SelfLoops loops(csr, csr.num_rows, threads);
    Indices rowptr(graph.rowptr.size());
    loops.count(rowptr.data());
    Indices kept(static_cast<std::size_t>(loops.num_kept()));
    loops.find_kept(kept.data());
    Indices col(static_cast<std::size_t>(rowptr.back())), id(col.size());
    loops.fill(rowptr.data(), col.data(), id.data());
    for (std::int64_t row = 0; row < csr.num_rows; ++row) {
      CHECK(col[static_cast<std::size_t>(rowptr[row + 1] - 1)] == row);
      for (std::int64_t k = rowptr[row]; k < rowptr[row + 1] - 1; ++k)
        CHECK(col[k] != row && graph.col[kept[id[k]]] == col[k]);
    }
    if (first.empty()) first = col;
    CHECK(col == first);
  }
}

}  // namespace

int main() {
  const Graph graph(2000, 150);
  check_sampling(graph, false);
  check_sampling(Graph(300, 30), true);
  check_errors(Graph(50, 20));
  check_self_loops(graph);
}
