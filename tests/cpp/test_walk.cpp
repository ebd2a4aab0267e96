// Walks: on every instruction set and number of threads equal to those of ../../csrc/core/walk.h
// for one agent at a time. Nothing is written before the first agent or past the last one, and
// indices out of range are not followed.
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "core/walk.h"
#include "cpu/walk.h"
#include "isas.h"

namespace {

constexpr std::int64_t kTypes = 5;

// A graph of rows of 0 to 6 neighbours, some of 20 to 50, and one each of 300 and 2,000.
struct Graph {
  std::vector<std::int64_t> rowptr{0}, node_type;
  std::vector<std::int32_t> col;
  std::vector<double> weight;

  explicit Graph(std::int64_t num_nodes) {
    std::mt19937 random(7);
    for (std::int64_t node = 0; node < num_nodes; ++node) {
      const unsigned degree = node == 1       ? 300
                              : node == 2     ? 2000
                              : node % 9 == 4 ? 20 + random() % 31
                                              : random() % 7;
      for (unsigned k = 0; k < degree; ++k) {
        col.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(num_nodes)));
        weight.push_back(random() % 4);  // some rows have only zeros
      }
      rowptr.push_back(static_cast<std::int64_t>(col.size()));
      node_type.push_back(random() % kTypes);
    }
  }
  gat::CsrView view() const {
    return {rowptr.data(), {col.data(), false}, {}, static_cast<std::int64_t>(node_type.size())};
  }
};

bool same(double a, double b) { return (std::isnan(a) && std::isnan(b)) || close(a, b, 1e-6); }

const std::int64_t seed = 11;
const std::int64_t sizes[] = {0, 1, 31, 32, 33, 2500};

template <class Isa, class T>
void test_step(const Graph& graph, bool greedy) {
  const auto kernels = gat::cpu::walk_step_kernels<Isa, T>();
  const auto nodes = static_cast<unsigned>(graph.node_type.size());
  std::mt19937 random(3);
  for (const std::int64_t agents : sizes) {
    const auto n = static_cast<std::size_t>(agents);
    std::vector<std::int64_t> current(n);
    std::vector<T> rank(n * kTypes), grad(n, T(0.5));
    for (auto& node : current) node = random() % nodes;
    for (auto& r : rank) r = static_cast<T>(random() % 5);
    for (std::size_t b = 7; b < n; b += 40) {  // among agents with valid ranks
      const T bad[] = {T(-1), std::numeric_limits<T>::infinity(), T(NAN)};
      rank[b * kTypes + b / 40 % kTypes] = bad[b / 40 % 3];
    }
    const gat::WalkStep<T> walk{graph.view(), current.data(), rank.data(), graph.node_type.data(),
                                agents,       kTypes,         &seed,       4,
                                greedy};
    std::vector<std::int64_t> expected(n);
    std::vector<T> expected_log(n), expected_grad(n * kTypes);
    for (std::int64_t b = 0; b < agents; ++b) {
      const double u = greedy ? 0.0 : gat::walk_uniform(seed, b, 4);
      CHECK(gat::walk_step(walk, b, u, expected.data(), expected_log.data()));
      gat::walk_step_backward(walk, b, expected.data(), grad.data(), expected_grad.data());
    }
    for (const int threads : {1, 2, 3}) {
      std::vector<std::int64_t> next(n + 1, -7);
      std::vector<T> log_prob(n + 1, T(-7)), grad_rank(n * kTypes + 1);
      grad_rank.back() = T(-7);
      CHECK(kernels.step(walk, next.data(), log_prob.data(), threads));
      kernels.backward(walk, next.data(), grad.data(), grad_rank.data(), threads);
      CHECK(next.back() == -7 && log_prob.back() == T(-7) && grad_rank.back() == T(-7));
      for (std::size_t b = 0; b < n; ++b) {
        CHECK(next[b] == expected[b]);
        CHECK(same(log_prob[b], expected_log[b]));
      }
      for (std::size_t i = 0; i < n * kTypes; ++i) CHECK(same(grad_rank[i], expected_grad[i]));
    }
  }
}

template <class Isa>
void test_out_of_range(const Graph& graph) {
  const auto kernels = gat::cpu::walk_step_kernels<Isa, float>();
  const auto nodes = static_cast<std::int64_t>(graph.node_type.size());
  const std::vector<float> rank(3 * kTypes, 1);
  for (const std::int64_t wrong : {std::int64_t{-1}, nodes, INT64_MAX, INT64_MIN}) {
    const std::vector<std::int64_t> current{2, wrong, 3};
    std::vector<std::int64_t> next(3);
    std::vector<float> log_prob(3), grad(3, 1), grad_rank(3 * kTypes);
    const gat::WalkStep<float> walk{
        graph.view(), current.data(), rank.data(), graph.node_type.data(), 3, kTypes, &seed};
    CHECK(!kernels.step(walk, next.data(), log_prob.data(), 1));
    CHECK(next[1] == wrong && std::isnan(log_prob[1]) && !std::isnan(log_prob[0]) &&
          !std::isnan(log_prob[2]));
    kernels.backward(walk, next.data(), grad.data(), grad_rank.data(), 1);
    for (std::int64_t type = 0; type < kTypes; ++type)
      CHECK(grad_rank[static_cast<std::size_t>(kTypes + type)] == 0);
  }
}

template <class Isa>
void test_walk(const Graph& graph, bool weighted) {
  const auto kernels = gat::cpu::random_walk_kernels<Isa>();
  const auto nodes = static_cast<unsigned>(graph.node_type.size());
  std::vector<double> cumulative(graph.col.size()), expected_sums(graph.col.size());
  kernels.running_sums(graph.view(), graph.weight.data(), cumulative.data(), 2);
  for (std::int64_t row = 0; row < nodes; ++row) {
    gat::running_sums(graph.view(), row, graph.weight.data(), expected_sums.data());
  }
  CHECK(cumulative == expected_sums);
  std::mt19937 random(5);
  for (const std::int64_t walks : sizes) {
    for (const std::int64_t length : {0, 1, 9}) {
      const auto count = static_cast<std::size_t>(walks),
                 width = static_cast<std::size_t>(length) + 1;
      std::vector<std::int64_t> start(count);
      for (auto& node : start) node = random() % nodes;
      const gat::RandomWalk walk{graph.view(), weighted ? cumulative.data() : nullptr, walks,
                                 length, &seed};
      for (const int threads : {1, 2, 3}) {
        std::vector<std::int64_t> out(count * width + 1, -7);
        kernels.walk(walk, start.data(), out.data(), threads);
        CHECK(out.back() == -7);
        for (std::size_t b = 0; b < count; ++b) {
          std::int64_t node = start[b];
          CHECK(out[b * width] == node);
          for (std::int64_t t = 0; t < length; ++t) {
            const double u = gat::walk_uniform(seed, static_cast<std::int64_t>(b), t);
            const std::int64_t edge = gat::random_edge(walk, node, u);
            if (edge != gat::kStays) node = graph.col[static_cast<std::size_t>(edge)];
            CHECK(out[b * width + static_cast<std::size_t>(t) + 1] == node);
          }
        }
      }
    }
  }
}

template <class Isa>
void test_all() {
  for (const std::int64_t nodes : {10, 40'000}) {  // the rows of the larger graph are prefetched
    const Graph graph(nodes);
    for (const bool flag : {false, true}) {
      test_step<Isa, float>(graph, flag);
      test_step<Isa, double>(graph, flag);
      test_walk<Isa>(graph, flag);
    }
    test_out_of_range<Isa>(graph);
  }
}

}  // namespace

int main() {
  for_every_isa([](auto isa) { test_all<decltype(isa)>(); });
}
