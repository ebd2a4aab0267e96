// Dropout of features: the numbers of ../../csrc/core/philox.h, and no write past the end.
#include <cstdint>
#include <vector>

#include "check.h"
#include "core/philox.h"
#include "cpu/sparse.h"
#include "isas.h"

namespace {

template <class Isa>
void test_numbers() {
  const auto kernels = gat::cpu::sparse_kernels<Isa, float>();
  const std::int64_t seed = -5;
  const gat::Dropout dropout = gat::Dropout::make(0.4, &seed);
  for (std::int64_t n = 0; n < 200; ++n) {
    const std::vector<float> x(static_cast<std::size_t>(n), 3);
    std::vector<float> out(static_cast<std::size_t>(n) + 1, -1);
    kernels.dropout(dropout, 1, n, x.data(), out.data(), 2);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t block = i / 64, word = i % 64 / 16, counter = 16 * block + i % 16;
      const gat::Philox4 numbers =
          gat::philox(static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(counter), 0);
      CHECK(out[static_cast<std::size_t>(i)] == 3 * dropout.multiplier<float>(numbers, word));
    }
    CHECK(out.back() == -1);
  }
}

// Rows with numbers have the multipliers of these rows of a larger tensor.
template <class Isa>
void test_numbered_rows() {
  const auto kernels = gat::cpu::sparse_kernels<Isa, float>();
  const std::int64_t seed = 7, all = 30, rows = 4;
  const std::int64_t number[] = {29, 0, 17, 18};
  for (const std::int64_t channels : {1, 8, 63, 64, 130}) {
    const std::vector<float> x(static_cast<std::size_t>(all * channels), 2);
    std::vector<float> every(x.size()), some(static_cast<std::size_t>(rows * channels) + 1, -1);
    kernels.dropout(gat::Dropout::make(0.4, &seed), 1, all * channels, x.data(), every.data(), 2);
    kernels.dropout(gat::Dropout::make(0.4, &seed, number), rows, channels, x.data(), some.data(),
                    2);
    for (std::int64_t i = 0; i < rows * channels; ++i) {
      const std::int64_t whole = number[i / channels] * channels + i % channels;
      CHECK(some[static_cast<std::size_t>(i)] == every[static_cast<std::size_t>(whole)]);
    }
    CHECK(some.back() == -1);
  }
}

}  // namespace

int main() {
  for_every_isa([](auto isa) {
    test_numbers<decltype(isa)>();
    test_numbered_rows<decltype(isa)>();
  });
}
