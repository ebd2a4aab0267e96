// The sum of the terms of a fingerprint, on as many threads as the work pays for.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../core/fingerprint.h"
#include "../fingerprint.h"

namespace gat::cpu {

inline constexpr std::int64_t kFingerprintBlock = 1 << 14;  // elements per work item
// Elements for which starting a thread pays: 20 microseconds and more.
inline constexpr std::int64_t kFingerprintThread = 1 << 17;

// The sum of the terms of `count` elements, the first of which is at `position`.
template <class Index>
GAT_HD std::uint64_t fingerprint_terms(const Index* values, std::int64_t stride,
                                       std::int64_t position, std::int64_t count) {
  std::uint64_t sum = 0;
  const auto first = static_cast<std::uint64_t>(position);
  if (stride == 1) {  // a separate loop, which the compiler vectorises
    for (std::int64_t i = 0; i < count; ++i)
      sum += fingerprint_term(first + static_cast<std::uint64_t>(i), values[i]);
  } else {
    for (std::int64_t i = 0; i < count; ++i)
      sum += fingerprint_term(first + static_cast<std::uint64_t>(i), values[i * stride]);
  }
  return sum;
}

template <class Isa, class Index>
std::uint64_t fingerprint_of(const IntegerMatrix& m, const Index* values, int num_threads) {
  const std::int64_t blocks = (m.columns + kFingerprintBlock - 1) / kFingerprintBlock,
                     items = m.rows * blocks;
  const auto threads = static_cast<int>(
      std::min<std::int64_t>(num_threads, 1 + m.rows * m.columns / kFingerprintThread));
  std::uint64_t sum = 0;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static) reduction(+ : sum)
  for (std::int64_t item = 0; item < items; ++item) {
    const std::int64_t row = item / blocks, begin = item % blocks * kFingerprintBlock;
    sum +=
        fingerprint_terms(values + row * m.row_stride + begin * m.column_stride, m.column_stride,
                          row * m.columns + begin, std::min(kFingerprintBlock, m.columns - begin));
  }
  return sum;
}

template <class Isa>
std::uint64_t fingerprint(const IntegerMatrix& matrix, int num_threads) {
  const void* const data = matrix.values.data;
  return matrix.values.wide
             ? fingerprint_of<Isa>(matrix, static_cast<const std::int64_t*>(data), num_threads)
             : fingerprint_of<Isa>(matrix, static_cast<const std::int32_t*>(data), num_threads);
}

}  // namespace gat::cpu
