// core/math.h on scalars and on lanes: errors of a few units in the last place over the whole range
// of arguments, exact special values, bitwise identical lanes. Compiled for the baseline only.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "check.h"
#include "core/math.h"
#include "cpu/lane_math.h"

namespace {

using namespace gat;
using namespace gat::cpu;

// |found - exact| in units in the last place of the result; for denormal results, in those of the
// smallest normal number.
template <class A>
double ulps(A found, long double exact) {
  if (found == static_cast<A>(exact) || (std::isnan(found) && std::isnan(exact))) return 0;
  if (!std::isfinite(found) || std::isnan(exact)) return INFINITY;
  const int exponent = std::max(std::ilogb(exact), std::numeric_limits<A>::min_exponent - 1);
  return static_cast<double>(std::fabs(found - exact) /
                             std::ldexp(1.0L, exponent - std::numeric_limits<A>::digits + 1));
}

template <class A, class Found, class Exact>
void check_at(A x, double allowed, const Found& found, const Exact& exact) {
  Vec<A, 4> lanes{x, A(1), x, A(2)};
  lanes = found(lanes);
  const double of_lanes = ulps(lanes[0], exact(static_cast<long double>(x))),
               of_scalar = ulps(found(x), exact(x));
  if (of_lanes > allowed || of_scalar > allowed)
    std::fprintf(stderr, "x = %.17g: %g, %g\n", double(x), of_lanes, of_scalar);
  CHECK(of_lanes <= allowed && of_scalar <= allowed);
  const A first = lanes[0], third = lanes[2];
  CHECK(std::memcmp(&first, &third, sizeof(A)) == 0);
}

// Arguments of both signs and every magnitude, and evenly spaced ones where the results change.
template <class A, class Found, class Exact>
void check(double allowed, A range, const Found& found, const Exact& exact) {
  using Limits = std::numeric_limits<A>;
  for (const A x : {A(0), -A(0), A(1), -A(1), Limits::min(), -Limits::min(), Limits::denorm_min(),
                    -Limits::denorm_min(), Limits::max(), -Limits::max(), Limits::infinity(),
                    -Limits::infinity(), Limits::quiet_NaN()}) {
    check_at(x, allowed, found, exact);
  }
  for (int i = -100000; i <= 100000; ++i)
    check_at(static_cast<A>(range * A(i) / 100000), allowed, found, exact);
  for (int exponent = Limits::min_exponent - Limits::digits; exponent < Limits::max_exponent;
       ++exponent) {
    for (int i = 0; i < 32; ++i) {
      const A x = std::ldexp(A(1) + A(i) / 32 + A(i) / 4099, exponent);
      check_at(x, allowed, found, exact);
      check_at(-x, allowed, found, exact);
    }
  }
}

long double exact_sigmoid(long double x) {
  const long double e = std::exp(-std::fabs(x));
  return (x < 0 ? e : 1) / (1 + e);
}

template <class A>
void check_all(A range) {
  check<A>(2, range, [](auto x) { return gat::exp(x); }, [](long double x) { return std::exp(x); });
  check<A>(2, range, [](auto x) { return gat::log(x); }, [](long double x) { return std::log(x); });
  check<A>(
      3, A(3), [](auto x) { return gat::tanh(x); }, [](long double x) { return std::tanh(x); });
  check<A>(
      1, range, [](auto x) { return gat::sqrt(x); }, [](long double x) { return std::sqrt(x); });
  check<A>(3, range, [](auto x) { return gat::sigmoid(x); }, exact_sigmoid);
}

}  // namespace

int main() {
  check_all<float>(120.0f);
  check_all<double>(800.0);
}
