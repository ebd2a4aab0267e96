// A 64-bit fingerprint that distinguishes the contents of tensors: a sum over the elements, and
// therefore the same in any order and on any number of threads. torch/fingerprint.cpp has the same
// formula in torch's operators.
#pragma once

#include <cstdint>

#include "macros.h"

namespace gat {

// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014: the step
// and the finalizer of SplitMix64.
inline constexpr std::uint64_t kFingerprintStep = 0x9E3779B97F4A7C15;
inline constexpr std::uint64_t kFingerprintFactors[] = {0xBF58476D1CE4E5B9, 0x94D049BB133111EB};
inline constexpr int kFingerprintShifts[] = {30, 27, 31};
inline constexpr int kPositionShift = 32;

// Both multiplications are needed: after only one, the same change at two positions cancels for one
// in 2^32 pairs of positions.
GAT_HD std::uint64_t finalize(std::uint64_t x) {
  x = (x ^ (x >> kFingerprintShifts[0])) * kFingerprintFactors[0];
  x = (x ^ (x >> kFingerprintShifts[1])) * kFingerprintFactors[1];
  return x ^ (x >> kFingerprintShifts[2]);
}

// The term of one element. A 32-bit value has the term of the equal 64-bit value.
GAT_HD std::uint64_t fingerprint_term(std::uint64_t position, std::int64_t value) {
  const std::uint64_t place = position * kFingerprintStep;
  return finalize(static_cast<std::uint64_t>(value) + (place ^ (place >> kPositionShift)));
}

}  // namespace gat
