// Graph building: the counting sort is stable for any number of threads, on skewed rows too.
#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "cpu/counting_sort.h"

namespace {

void check_sort(std::int64_t num_edges, std::int64_t num_rows, bool skewed) {
  std::mt19937 random(3);
  std::vector<std::int64_t> row(static_cast<std::size_t>(num_edges));
  for (auto& r : row) {
    r = random() % static_cast<unsigned>(num_rows);
    if (skewed && random() % 4 != 0) r = num_rows / 2;
  }
  std::vector<std::int64_t> expected(row.size());
  for (std::size_t k = 0; k < row.size(); ++k) expected[k] = static_cast<std::int64_t>(k);
  std::stable_sort(expected.begin(), expected.end(),
                   [&](std::int64_t a, std::int64_t b) { return row[a] < row[b]; });
  for (const int threads : {1, 2, 3, 7}) {
    std::vector<std::int64_t> rowptr(static_cast<std::size_t>(num_rows) + 1, -1),
        order(row.size(), -1);
    gat::cpu::counting_sort(
        num_edges, num_rows, threads, rowptr.data(), [&](std::int64_t k) { return row[k]; },
        [&](std::int64_t position, std::int64_t k) { order[position] = k; });
    CHECK(order == expected);
    CHECK(rowptr.front() == 0 && rowptr.back() == num_edges);
    for (std::int64_t r = 0; r < num_rows; ++r) {
      for (std::int64_t k = rowptr[r]; k < rowptr[r + 1]; ++k) CHECK(row[order[k]] == r);
    }
  }
}

}  // namespace

int main() {
  check_sort(0, 1, false);
  check_sort(1, 1, false);
  check_sort(100, 30, true);
  for (const bool skewed : {false, true}) {
    check_sort(200'000, 17, skewed);
    check_sort(200'000, 40'000, skewed);
  }
}
