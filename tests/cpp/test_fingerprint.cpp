// The fingerprint of integers: the sum of the terms of ../../csrc/core/fingerprint.h, for any
// strides.
#include <cstdint>
#include <vector>

#include "check.h"
#include "core/fingerprint.h"
#include "cpu/fingerprint.h"
#include "isas.h"

namespace {

template <class Isa, class Index>
void test_sums(std::int64_t columns, std::int64_t stride, int num_threads) {
  const std::int64_t rows = 2, row_stride = columns * stride + 3;
  std::vector<Index> values(static_cast<std::size_t>(rows * row_stride), Index{-1});
  std::uint64_t sum = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      const auto value = static_cast<Index>((i + 7919 * j) % 100003 - 3);
      values[static_cast<std::size_t>(i * row_stride + j * stride)] = value;
      sum += gat::fingerprint_term(static_cast<std::uint64_t>(i * columns + j), value);
    }
  }
  const gat::IndexArray array{values.data(), sizeof(Index) == 8};
  CHECK(gat::cpu::fingerprint<Isa>({array, rows, columns, row_stride, stride}, num_threads) == sum);
}

}  // namespace

int main() {
  for_every_isa([](auto isa) {
    using Isa = decltype(isa);
    for (const std::int64_t columns : {0, 1, 7, 100, 70000, 300000}) {
      for (const std::int64_t stride : {1, 3}) {
        for (const int num_threads : {1, 3}) {
          test_sums<Isa, std::int32_t>(columns, stride, num_threads);
          test_sums<Isa, std::int64_t>(columns, stride, num_threads);
        }
      }
    }
  });
}
