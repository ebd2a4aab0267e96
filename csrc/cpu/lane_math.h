// The elementary functions of ../core/math.h on vectors of lanes. Errors are a few units in the
// last place over the whole range, including denormal results.
//
// A plain header, included before an instruction set is selected: scores call these functions, and
// a function compiled for a wider instruction set cannot be inlined into one compiled for a
// narrower one.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "../core/math.h"
#include "lanes.h"

namespace gat::cpu {

// The element type of a vector of lanes, and the vector of integers with as many lanes.
template <class V>
using LaneOf = std::remove_cv_t<std::remove_reference_t<decltype(std::declval<V&>()[0])>>;
template <class V>
using IntegersOf = decltype(V{} < V{});

template <class A>
struct FloatFormat;
template <>
struct FloatFormat<float> {
  static constexpr int mantissa_bits = 23, bias = 127;
  // 1.5 * 2^23: adding it to x leaves round(x) in the low bits.
  static constexpr float round_to_integer = 12582912.0f;
  static constexpr float log2_e = 1.44269504088896341f, ln2_high = 0.693145751953125f,
                         ln2_low = 1.42860682030941723e-6f;
  // Below the first exp is 0, above the second infinite.
  static constexpr float lowest_exp = -104.0f, highest_exp = 89.0f;
};
template <>
struct FloatFormat<double> {
  static constexpr int mantissa_bits = 52, bias = 1023;
  static constexpr double round_to_integer = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double log2_e = 1.44269504088896340736;
  static constexpr double ln2_high = 0.693147180369123816490, ln2_low = 1.90821492927058770002e-10;
  static constexpr double lowest_exp = -746.0, highest_exp = 710.0;
};

// c[0] x^(n-1) + c[1] x^(n-2) + … + c[n-1].
template <class V, class A, int n>
GAT_HD V polynomial(const A (&c)[n], V x) {
  V sum = V{} + c[0];
  for (int i = 1; i < n; ++i) sum = sum * x + c[i];
  return sum;
}

// 2^n for integers n that are exponents of normal numbers.
template <class V>
GAT_HD V power_of_two(IntegersOf<V> n) {
  using Format = FloatFormat<LaneOf<V>>;
  return bitcast<V>(IntegersOf<V>((n + Format::bias) << Format::mantissa_bits));
}

// exp on |r| <= ln(2) / 2: the Taylor polynomial, whose truncation error is below half a unit in
// the last place.
template <class V>
GAT_HD V exp_near_zero(V r) {
  if constexpr (std::is_same_v<LaneOf<V>, float>) {
    constexpr float c[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                           1.0f / 6,    0.5f,       1.0f,       1.0f};
    return polynomial(c, r);
  } else {
    constexpr double c[] = {1.0 / 6227020800.0,
                            1.0 / 479001600.0,
                            1.0 / 39916800,
                            1.0 / 3628800,
                            1.0 / 362880,
                            1.0 / 40320,
                            1.0 / 5040,
                            1.0 / 720,
                            1.0 / 120,
                            1.0 / 24,
                            1.0 / 6,
                            0.5,
                            1.0,
                            1.0};
    return polynomial(c, r);
  }
}

// 2^n exp(r) with n = round(x / ln 2). 2^n is a product of two factors, because it may overflow or
// be denormal where the result is not.
template <class V>
GAT_HD V exp_of_lanes(V x) {
  using Format = FloatFormat<LaneOf<V>>;
  using I = IntegersOf<V>;
  const V low = V{} + Format::lowest_exp, high = V{} + Format::highest_exp;
  x = x < low ? low : x;  // NaN stays NaN
  x = x > high ? high : x;
  const V t = x * Format::log2_e + Format::round_to_integer;
  const V n = t - Format::round_to_integer;
  const V r = x - n * Format::ln2_high - n * Format::ln2_low;
  const I whole = bitcast<I>(t) - bitcast<I>(V(V{} + Format::round_to_integer));
  const I half = whole >> 1;
  return exp_near_zero(r) * power_of_two<V>(half) * power_of_two<V>(whole - half);
}

// log(2^k (1 + f)) = k ln 2 + log(1 + f), sqrt(1/2) <= 1 + f < sqrt(2), with the polynomial of
// FreeBSD's e_log.c: log(1 + f) = f - f^2 / 2 + s (f^2 / 2 + R), where s = f / (2 + f) and
// R(s^2) = log((1 + s) / (1 - s)) / s - 2.
template <class V>
GAT_HD V log_of_lanes(V x) {
  using A = LaneOf<V>;
  using I = IntegersOf<V>;
  using Format = FloatFormat<A>;
  constexpr int bits = Format::mantissa_bits;
  constexpr A two_to_bits = A(std::int64_t{1} << bits);
  const V one = V{} + 1, positive = x > V{} ? x : one;  // results for other arguments are constants
  const auto denormal = positive < std::numeric_limits<A>::min();
  const V normal = denormal ? positive * two_to_bits : positive;
  const I root_half = bitcast<I>(V(V{} + A(0.70710678118654752440)));
  const I k = (bitcast<I>(normal) - root_half) >> bits;  // shifts keep the sign
  const V f = bitcast<V>(I(bitcast<I>(normal) - (k << bits))) - 1;
  const V exponent = convert<V>(denormal ? k - bits : k);
  const V s = f / (f + 2), z = s * s, half_square = f * f * A(0.5);
  V remainder;
  if constexpr (std::is_same_v<A, float>) {
    constexpr float c[] = {0.24279078841f, 0.28498786688f, 0.40000972152f, 0.66666662693f};
    remainder = polynomial(c, z) * z;
  } else {
    constexpr double c[] = {1.479819860511658591e-01, 1.531383769920937332e-01,
                            1.818357216161805012e-01, 2.222219843214978396e-01,
                            2.857142874366239149e-01, 3.999999999940941908e-01,
                            6.666666666666735130e-01};
    remainder = polynomial(c, z) * z;
  }
  const V finite =
      exponent * Format::ln2_high -
      ((half_square - (s * (half_square + remainder) + exponent * Format::ln2_low)) - f);
  const V infinity = V{} + std::numeric_limits<A>::infinity(),
          nan = V{} + std::numeric_limits<A>::quiet_NaN();
  const V result = x < infinity ? finite : x;  // log of infinity and NaN is the argument
  return x < V{} ? nan : x == V{} ? -infinity : result;
}

// Near 0, where 1 - exp(-2 |x|) would cancel, the rational approximations of Cephes.
template <class V>
GAT_HD V tanh_of_lanes(V x) {
  using A = LaneOf<V>;
  const V magnitude = x < V{} ? -x : x, z = x * x;
  V correction;
  if constexpr (std::is_same_v<A, float>) {
    constexpr float c[] = {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f,
                           1.33314422036e-1f, -3.33332819422e-1f};
    correction = polynomial(c, z);
  } else {
    constexpr double p[] = {-9.64399179425052238628e-1, -9.92877231001918586564e1,
                            -1.61468768441708447952e3};
    constexpr double q[] = {1.0, 1.12811678491632931402e2, 2.23548839060100448583e3,
                            4.84406305325125486048e3};
    correction = polynomial(p, z) / polynomial(q, z);
  }
  const V near_zero = x + x * z * correction;
  const V e = exp_of_lanes(V(magnitude * -2)), far = (1 - e) / (1 + e);
  return magnitude < A(0.625) ? near_zero : x < V{} ? -far : far;
}

template <class V>
GAT_HD V sqrt_of_lanes(V x) {
  for (int i = 0; i < kLanesOf<V, LaneOf<V>>; ++i) x[i] = std::sqrt(x[i]);
  return x;
}

}  // namespace gat::cpu

namespace gat {

template <class V>
struct ElementaryMath<V, std::enable_if_t<!std::is_arithmetic_v<V>>> {
  GAT_HD static V exp(V x) { return cpu::exp_of_lanes(x); }
  GAT_HD static V log(V x) { return cpu::log_of_lanes(x); }
  GAT_HD static V tanh(V x) { return cpu::tanh_of_lanes(x); }
  GAT_HD static V sqrt(V x) { return cpu::sqrt_of_lanes(x); }
};

}  // namespace gat
