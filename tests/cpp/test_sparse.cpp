// The unfused operators on every instruction set, compared with a plain loop, and with themselves
// on other numbers of threads. Edges are in the caller's order; one row is long enough to be split
// into pieces, and one is empty.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "cpu/partition.h"
#include "cpu/simd.h"
#include "cpu/sparse.h"
#include "isas.h"

namespace {

using namespace gat;
using namespace gat::cpu;

constexpr std::int64_t H = 2, F = 21, kRows = 700, kColumns = 90;
constexpr float kUntouched = -777;

struct Edge {
  std::int64_t row, column;
};

// The CSR of `edges`; edge_id is the position in `edges`.
struct Csr {
  std::vector<std::int64_t> rowptr{0}, edge_id;
  std::vector<std::int32_t> col;

  Csr(const std::vector<Edge>& edges, std::int64_t num_rows, bool transpose)
      : edge_id(edges.size()) {
    const auto row_of = [&](std::int64_t e) { return transpose ? edges[e].column : edges[e].row; };
    std::iota(edge_id.begin(), edge_id.end(), std::int64_t{0});
    std::stable_sort(edge_id.begin(), edge_id.end(),
                     [&](std::int64_t a, std::int64_t b) { return row_of(a) < row_of(b); });
    rowptr.resize(static_cast<std::size_t>(num_rows) + 1);
    for (std::size_t e = 0; e < edges.size(); ++e)
      ++rowptr[row_of(static_cast<std::int64_t>(e)) + 1];
    std::partial_sum(rowptr.begin(), rowptr.end(), rowptr.begin());
    for (const auto e : edge_id)
      col.push_back(static_cast<std::int32_t>(transpose ? edges[e].row : edges[e].column));
  }
  CsrView view() const {
    return {rowptr.data(),
            {col.data(), false},
            {edge_id.data(), true},
            static_cast<std::int64_t>(rowptr.size()) - 1};
  }
};

std::vector<Edge> skewed_edges(std::mt19937& random) {
  std::vector<Edge> edges;
  const auto below = [&](std::int64_t bound) {
    return static_cast<std::int64_t>(random() % static_cast<unsigned>(bound));
  };
  for (std::int64_t k = 0; k < 2 * kLongRow + 5; ++k) edges.push_back({2, below(kColumns)});
  for (std::int64_t k = 0; k < 15'000; ++k)
    edges.push_back({3 + below(kRows - 3), below(kColumns)});
  std::shuffle(edges.begin(), edges.end(), random);
  return edges;
}

template <class T>
std::vector<T> normal(std::int64_t n, std::mt19937& random) {
  std::normal_distribution<float> distribution(0, 1);
  std::vector<T> x(static_cast<std::size_t>(n));
  for (auto& v : x) store(&v, distribution(random));
  return x;
}

// Runs f(out, threads) on several numbers of threads: results must be bitwise identical, and
// nothing may be written past the end.
template <class T, class Run>
std::vector<double> run(std::int64_t n, const Run& f) {
  std::vector<double> first;
  for (const int threads : {1, 2, 5}) {
    std::vector<T> out(static_cast<std::size_t>(n) + 1);
    store(&out.back(), kUntouched);
    T untouched = out.back();
    f(out.data(), threads);
    CHECK(read(&out.back()) == read(&untouched));
    std::vector<double> values;
    for (std::int64_t i = 0; i < n; ++i) values.push_back(read(&out[i]));
    if (threads == 1) first = values;
    CHECK(values == first);
  }
  return first;
}

void check_close(const std::vector<double>& found, const std::vector<double>& expected,
                 double tolerance) {
  CHECK(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) CHECK(close(found[i], expected[i], tolerance));
}

template <class T>
struct Data {
  std::mt19937 random{9};
  std::vector<Edge> edges = skewed_edges(random);
  Csr csr{edges, kRows, false}, transpose{edges, kColumns, true};
  std::int64_t num_edges = static_cast<std::int64_t>(edges.size());
  std::vector<T> scores = normal<T>(num_edges * H, random), grad = normal<T>(num_edges * H, random);
  std::vector<T> x = normal<T>(kRows * H * F, random), y = normal<T>(kColumns * H * F, random);
};

template <class Isa, class T>
void check_softmax(const Data<T>& d, double tolerance) {
  const auto kernels = sparse_kernels<Isa, T>();
  std::vector<double> total(kRows * H), expected(d.scores.size()), mean(kRows * H),
      expected_grad(d.scores.size());
  const auto each = [&](const auto& f) {
    for (std::int64_t e = 0; e < d.num_edges; ++e) {
      for (std::int64_t h = 0; h < H; ++h) f(e * H + h, d.edges[e].row * H + h);
    }
  };
  each([&](std::int64_t e, std::int64_t row) {
    total[row] += std::exp(double(read(&d.scores[e])));
  });
  each([&](std::int64_t e, std::int64_t row) {
    expected[e] = std::exp(double(read(&d.scores[e]))) / total[row];
  });
  std::vector<T> alpha(d.scores.size());
  const auto found = run<T>(d.num_edges * H, [&](T* out, int threads) {
    kernels.edge_softmax(d.csr.view(), H, d.scores.data(), out, threads);
  });
  check_close(found, expected, tolerance);
  for (std::size_t e = 0; e < found.size(); ++e) store(&alpha[e], static_cast<Acc<T>>(found[e]));
  each([&](std::int64_t e, std::int64_t row) { mean[row] += found[e] * read(&d.grad[e]); });
  each([&](std::int64_t e, std::int64_t row) {
    expected_grad[e] = found[e] * (read(&d.grad[e]) - mean[row]);
  });
  check_close(run<T>(d.num_edges * H,
                     [&](T* out, int threads) {
                       kernels.edge_softmax_backward(d.csr.view(), H, d.grad.data(), alpha.data(),
                                                     out, threads);
                     }),
              expected_grad, tolerance);
}

template <class Isa, class T>
void check_products(const Data<T>& d, double tolerance) {
  const auto kernels = sparse_kernels<Isa, T>();
  std::vector<double> dots(d.scores.size()), sums(kRows * H * F), weighted(sums.size()),
      size(sums.size());
  for (std::int64_t e = 0; e < d.num_edges; ++e) {
    const auto [row, column] = d.edges[e];
    for (std::int64_t i = 0; i < H * F; ++i) {
      const std::int64_t at = row * H * F + i, head = e * H + i / F;
      const double y = read(&d.y[column * H * F + i]);
      dots[head] += read(&d.x[at]) * y;
      sums[at] += y;
      weighted[at] += read(&d.scores[head]) * y;
      size[at] += std::fabs(y) + std::fabs(read(&d.scores[head]) * y);
    }
  }
  check_close(run<T>(d.num_edges * H,
                     [&](T* out, int threads) {
                       kernels.sddmm(d.csr.view(), H, F, d.x.data(), d.y.data(), out, threads);
                     }),
              dots, 3 * tolerance);
  for (const bool has_weight : {false, true}) {
    const T* const weight = has_weight ? d.scores.data() : nullptr;
    const auto found = run<T>(kRows * H * F, [&](T* out, int threads) {
      kernels.spmm(d.csr.view(), H, F, weight, d.y.data(), out, threads);
    });
    const auto& expected = has_weight ? weighted : sums;
    // The error of the sum grows with the size of its terms, that of the result with the result.
    for (std::size_t i = 0; i < found.size(); ++i) {
      CHECK(std::fabs(found[i] - expected[i]) <=
            1e-5 * size[i] + tolerance * std::fabs(expected[i]));
    }
  }
}

// Products of vectors without elements are 0, not uninitialised memory.
template <class Isa, class T>
void check_no_channels(const Data<T>& d) {
  const auto products = run<T>(d.num_edges * H, [&](T* out, int threads) {
    sparse_kernels<Isa, T>().sddmm(d.csr.view(), H, 0, d.x.data(), d.y.data(), out, threads);
  });
  for (const double product : products) CHECK(product == 0);
}

template <class Isa, class T>
void check_extremum(const Data<T>& d, int sign) {
  const auto kernels = sparse_kernels<Isa, T>();
  const std::int64_t n = kRows * H * F;
  std::vector<std::int64_t> expected(static_cast<std::size_t>(n), -1), arg;
  std::vector<Acc<T>> best(static_cast<std::size_t>(n));
  for (std::int64_t e = 0; e < d.num_edges; ++e) {
    for (std::int64_t i = 0; i < H * F; ++i) {
      const std::int64_t at = d.edges[e].row * H * F + i;
      const Acc<T> v = read(&d.scores[e * H + i / F]) * read(&d.y[d.edges[e].column * H * F + i]);
      if (expected[at] < 0 || (sign > 0 ? v > best[at] : v < best[at]))
        best[at] = v, expected[at] = e;
    }
  }
  run<T>(n, [&](T* out, int threads) {
    arg.assign(static_cast<std::size_t>(n) + 1, -7);
    kernels.spmm_extremum(d.csr.view(), H, F, sign, d.scores.data(), d.y.data(), out,
                          {arg.data(), true}, threads);
    std::vector<std::int32_t> narrow(static_cast<std::size_t>(n));
    kernels.spmm_extremum(d.csr.view(), H, F, sign, d.scores.data(), d.y.data(), out,
                          {narrow.data(), false}, threads);
    CHECK(std::equal(narrow.begin(), narrow.end(), expected.begin()));
    CHECK(arg.back() == -7);
    arg.pop_back();
    CHECK(arg == expected);
  });
  std::vector<double> grad(d.y.size());
  for (std::int64_t at = 0; at < n; ++at) {
    if (arg[at] < 0) continue;
    const std::int64_t i = at % (H * F);
    grad[d.edges[arg[at]].column * H * F + i] +=
        read(&d.x[at]) * read(&d.scores[arg[at] * H + i / F]);
  }
  check_close(run<T>(kColumns * H * F,
                     [&](T* out, int threads) {
                       kernels.spmm_extremum_backward(d.transpose.view(), H, F, d.scores.data(),
                                                      d.x.data(), {arg.data(), true}, out, threads);
                     }),
              grad, sizeof(T) == 2 ? 1e-2 : 1e-4);
}

template <class Isa, class T>
void check_all(double tolerance) {
  const Data<T> d;
  check_softmax<Isa, T>(d, tolerance);
  check_products<Isa, T>(d, tolerance);
  check_no_channels<Isa, T>(d);
  for (const int sign : {1, -1}) check_extremum<Isa, T>(d, sign);
}

}  // namespace

int main() {
  for_every_isa([](auto isa) { check_all<decltype(isa), float>(1e-5); });
  for_sixteen_bits([](auto isa, auto x) { check_all<decltype(isa), decltype(x)>(1e-2); });
}
