// The backward in one pass over a symmetric graph, against the two passes, and when it is taken.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "core/scores/all.h"
#include "cpu/edge_attention.h"
#include "cpu/one_pass.h"
#include "cpu/partition.h"
#include "cpu/simd.h"
#include "isas.h"

namespace {

using namespace gat;
using namespace gat::cpu;

constexpr std::int64_t N = 300, H = 3, D = 13;

// A graph and its transpose, with a node of more neighbours than a work item has edges, repeated
// edges, nodes without edges, and self-loops: last in the rows of the graph, and among the others
// in those of the transpose, as where a layer adds them.
struct SymmetricGraph {
  std::vector<std::int64_t> rowptr{0};
  std::vector<std::int32_t> col, t_col, position;

  explicit SymmetricGraph(std::mt19937& random) {
    std::vector<std::vector<std::int32_t>> rows(N);
    const auto join = [&](std::int64_t i, std::int64_t j) {
      rows[static_cast<std::size_t>(i)].push_back(static_cast<std::int32_t>(j));
      rows[static_cast<std::size_t>(j)].push_back(static_cast<std::int32_t>(i));
    };
    const auto draw = [&] { return static_cast<std::int64_t>(random() % (N - 9)); };
    for (int k = 0; k < 4000; ++k) {
      const std::int64_t i = draw(), j = draw();
      if (i != j) join(i, j);
    }
    for (int k = 0; k < kLongRow + 99; ++k) join(2, 3 + draw());
    for (std::int64_t i = 0; i < N; ++i) {
      auto& row = rows[static_cast<std::size_t>(i)];
      std::sort(row.begin(), row.end());
      col.insert(col.end(), row.begin(), row.end());
      const auto loop = static_cast<std::int32_t>(i);
      if (i % 2 == 0) {
        col.push_back(loop);
        row.insert(std::lower_bound(row.begin(), row.end(), loop), loop);
      }
      t_col.insert(t_col.end(), row.begin(), row.end());
      rowptr.push_back(static_cast<std::int64_t>(col.size()));
    }
    std::vector<std::vector<std::int32_t>> places(N);  // of the edges that leave a node
    for (std::int64_t i = 0; i < N; ++i) {
      for (auto k = rowptr[static_cast<std::size_t>(i)];
           k < rowptr[static_cast<std::size_t>(i) + 1]; ++k) {
        const auto j = static_cast<std::size_t>(col[static_cast<std::size_t>(k)]);
        places[j].push_back(static_cast<std::int32_t>(k));
      }
    }
    for (const auto& of_node : places)
      position.insert(position.end(), of_node.begin(), of_node.end());
  }
  std::int64_t edges() const { return static_cast<std::int64_t>(col.size()); }
  CsrView csr() const { return {rowptr.data(), {col.data(), false}, {}, N}; }
  CsrView transpose() const {
    return {rowptr.data(), {t_col.data(), false}, {position.data(), false}, N};
  }
};

template <class T>
std::vector<T> normal(std::int64_t size, std::mt19937& random) {
  std::normal_distribution<float> distribution;
  std::vector<T> x(static_cast<std::size_t>(size));
  for (auto& value : x) store(&value, distribution(random));
  return x;
}

// The gradients of x, a and b, as float, of a score of dot products.
template <class Isa, class T>
std::vector<float> gradients(const SymmetricGraph& g, int score, int threads, bool one_pass) {
  std::mt19937 random(7);
  const auto x = normal<T>(N * H * D, random), grad_out = normal<T>(N * H * D, random),
             dst_term = normal<T>(N * H, random), src_term = normal<T>(N * H, random);
  std::vector<T> out(x.size()), grad_x(x.size()), grad_dst(dst_term.size()),
      grad_src(src_term.size());
  std::vector<float> out_acc(x.size()), delta(dst_term.size()),
      table(dst_term.size() * kNodeColumns), factors(static_cast<std::size_t>(g.edges() * 3 * H));
  std::vector<RowSoftmax<float>> softmax(dst_term.size());
  EdgeAttentionForward<T> forward;
  EdgeAttentionInputs<T>& in = forward.in;
  in.csr = g.csr();
  in.num_heads = H, in.score_channels = D, in.value_channels = D;
  in.query = in.key = in.value = x.data();
  in.dst_term = dst_term.data(), in.src_term = src_term.data();
  in.params = {0.2f, 0.3f}, in.num_threads = threads;
  forward.out = out.data(), forward.softmax = softmax.data(), forward.out_acc = out_acc.data();
  const auto kernels = edge_attention_kernels<Isa, T>(score);
  kernels.forward(forward);
  kernels.delta(in, grad_out.data(), out_acc.data(), nullptr, nullptr, nullptr, nullptr,
                delta.data());
  EdgeAttentionBackward<T> backward;
  backward.in = in, backward.transpose = g.transpose();
  backward.position = {g.position.data(), false};
  backward.grad_out = grad_out.data(), backward.softmax = softmax.data();
  backward.delta = delta.data();
  backward.grad_query = backward.grad_key = backward.grad_value = grad_x.data();
  backward.grad_dst_term = grad_dst.data(), backward.grad_src_term = grad_src.data();
  CHECK(takes_one_pass(backward));
  kernels.backward(backward, {table.data(), factors.data(), nullptr, one_pass});
  backward.grad_query = nullptr;
  CHECK(!takes_one_pass(backward));
  std::vector<float> found;
  for (const auto* const part : {&grad_x, &grad_dst, &grad_src}) {
    for (const T& value : *part) found.push_back(load<float>(&value));
  }
  return found;
}

template <class Isa, class T>
void compare(const SymmetricGraph& g, int score, double tolerance) {
  const auto one = gradients<Isa, T>(g, score, 1, true),
             two = gradients<Isa, T>(g, score, 1, false);
  CHECK((gradients<Isa, T>(g, score, 5, true) == one));
  float largest = 0;
  for (const float value : two) largest = std::max(largest, std::abs(value));
  CHECK(largest > 1);
  for (std::size_t i = 0; i < one.size(); ++i)
    CHECK(std::abs(one[i] - two[i]) <= tolerance * largest);
}

template <class... Ss>
void compare_all(const SymmetricGraph& g, TypeList<Ss...>) {
  int score = 0;
  const auto check = [&](bool is_product) {
    if (is_product) {
      for_every_isa([&](auto isa) { compare<decltype(isa), float>(g, score, 1e-4); });
      for_sixteen_bits([&](auto isa, auto storage) {
        compare<decltype(isa), decltype(storage)>(g, score, 1e-2);
      });
    }
    ++score;
  };
  (check(kIsProduct<Ss>), ...);
}

// Rows with other neighbours, a neighbour fewer, or self-loops elsewhere.
void check_symmetry() {
  const auto rows = [](std::vector<std::int32_t> a, std::vector<std::int32_t> b) {
    return are_equal_rows<std::int32_t>(1, a.data(), b.data(), static_cast<std::int64_t>(a.size()));
  };
  CHECK(rows({}, {}) && rows({0, 2}, {0, 2}) && rows({1, 1}, {1, 1}));
  CHECK(rows({0, 2, 1}, {0, 1, 2}) && rows({1, 0, 1, 2}, {0, 2, 1, 1}));
  CHECK(!rows({0, 2}, {0, 3}) && !rows({0, 2}, {2, 0}));
  CHECK(!rows({0, 1}, {0, 2}) && !rows({1, 2}, {1, 1}) && !rows({0, 0, 1}, {0, 1, 1}));
}

}  // namespace

int main() {
  check_symmetry();
  std::mt19937 random(3);
  SymmetricGraph g(random);
  compare_all(g, Scores{});
  CHECK(is_symmetric<std::int32_t>(g.csr(), g.transpose(), 3));
  g.t_col[100] = g.t_col[100] == 5 ? 6 : 5;
  CHECK(!is_symmetric<std::int32_t>(g.csr(), g.transpose(), 3));
}
