// csrc/cpu/simd.h: conversions of 16-bit storage over all bit patterns, exp, lanes. This file is
// compiled for the baseline only.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "check.h"
#include "cpu/isa.h"
#include "cpu/partition.h"
#include "cpu/simd.h"

namespace {

using namespace gat;
using namespace gat::cpu;

double half_value(std::uint16_t bits) {  // from the definition of binary16
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return mantissa ? std::nan("") : sign * INFINITY;
  return sign * (exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24));
}

void every_half_converts() {
  for (std::uint32_t bits = 0; bits < 65536; bits += 4) {
    fp16 in[4], out[4];
    for (std::uint32_t i = 0; i < 4; ++i) in[i].bits = static_cast<std::uint16_t>(bits + i);
    const auto v = load<Vec<float, 4>>(in);
    store(out, v);
    for (int i = 0; i < 4; ++i) {
      const double expected = half_value(in[i].bits);
      CHECK(std::isnan(expected) ? std::isnan(v[i]) : v[i] == expected);
      CHECK(read(in + i) == v[i] || std::isnan(expected));  // one lane converts as four
      if (!std::isnan(expected)) CHECK(out[i].bits == in[i].bits);
    }
  }
}

void halves_round_to_even() {
  fp16 h;
  store(&h, 2049.0f);  // halfway between 2048 and 2050
  CHECK(half_value(h.bits) == 2048);
  store(&h, 2051.0f);
  CHECK(half_value(h.bits) == 2052);
  store(&h, 65519.0f);
  CHECK(half_value(h.bits) == 65504);
  store(&h, 65520.0f);
  CHECK(std::isinf(half_value(h.bits)));
  store(&h, std::ldexp(1.0f, -25));  // halfway between 0 and the smallest denormal
  CHECK(h.bits == 0);
  store(&h, NAN);
  CHECK(std::isnan(half_value(h.bits)));
}

void every_bf16_converts() {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const bf16 in{static_cast<std::uint16_t>(bits)};
    const std::uint32_t word = bits << 16;
    float expected;
    std::memcpy(&expected, &word, 4);
    const float v = read(&in);
    bf16 out;
    store(&out, v);
    if (std::isnan(expected)) {
      CHECK(std::isnan(v) && std::isnan(read(&out)));
    } else {
      CHECK(v == expected && out.bits == in.bits);
    }
  }
  bf16 h;
  store(&h, 1.0f + 1.0f / 256);  // halfway between 1 and the next bf16
  CHECK(read(&h) == 1.0f);
  store(&h, 1.0f + 3.0f / 256);
  CHECK(read(&h) == 1.0f + 4.0f / 256);
}

template <class A>
void exp_is_accurate(A lowest, double tolerance) {
  for (int i = 0; i <= 200000; ++i) {
    const A x = lowest * static_cast<A>(i) / 200000;
    const double expected = std::exp(static_cast<double>(x));
    CHECK(std::fabs(static_cast<double>(exp_of<A, A>(x)) - expected) <= tolerance * expected);
  }
  const A inf = std::numeric_limits<A>::infinity();
  CHECK((exp_of<A, A>(-inf)) == 0 && (exp_of<A, A>(A(-1e30))) == 0 && (exp_of<A, A>(A(0))) == 1);
  CHECK(std::isnan(exp_of<A, A>(std::numeric_limits<A>::quiet_NaN())));
  Vec<A, 2> two{A(-1), std::numeric_limits<A>::quiet_NaN()};
  two = exp_of<A>(two);
  CHECK((two[0] == exp_of<A, A>(A(-1))) && std::isnan(two[1]));
}

void lanes_cover_every_length() {
  for (int n = 0; n < 40; ++n) {
    std::vector<float> x(static_cast<std::size_t>(n), 1.0f);
    float sum = 0;
    int next = 0;
    for_lanes<Avx512, float>(n, [&](std::int64_t d, auto lanes) {
      using V = typename decltype(lanes)::V;
      CHECK(d == next);
      next += decltype(lanes)::width;
      sum += sum_lanes<float>(load<V>(x.data() + d));
    });
    CHECK(next == n && sum == static_cast<float>(n));
  }
}

// Items cover every edge once and in order, for any shape of graph.
void partition_covers(const std::vector<std::int64_t>& degrees, bool split) {
  std::vector<std::int64_t> rowptr{0};
  for (const auto d : degrees) rowptr.push_back(rowptr.back() + d);
  const auto rows = static_cast<std::int64_t>(degrees.size());
  const auto partition = partition_rows(rowptr.data(), rows, split);
  std::int64_t edge = 0, row = 0, pieces = 0;
  for (const auto& item : partition.items) {
    CHECK(item.edge_begin == edge);
    edge = item.edge_end;
    if (item.piece >= 0) {
      CHECK(split && item.piece == pieces++ && item.edge_end - item.edge_begin <= kLongRow);
      CHECK(item.row_begin == row && item.row_end == row + 1);
      if (item.edge_end == rowptr[static_cast<std::size_t>(row + 1)]) ++row;
    } else {
      CHECK(item.row_begin == row && item.row_end > row);
      row = item.row_end;
      CHECK(edge == rowptr[static_cast<std::size_t>(row)]);
    }
  }
  CHECK(edge == rowptr.back() && row == rows && pieces == partition.num_pieces);
}

void partitions_cover() {
  for (const bool split : {true, false}) {
    partition_covers({}, split);
    partition_covers({0}, split);
    partition_covers(std::vector<std::int64_t>(10000, 0), split);
    partition_covers(std::vector<std::int64_t>(3000, 21), split);
    partition_covers({kLongRow, kLongRow + 1, 0, 3 * kLongRow + 7, 1, 100000, 100000, 0}, split);
    std::vector<std::int64_t> skewed;
    for (std::int64_t i = 1; i < 2000; ++i) skewed.push_back(200000 / i);
    partition_covers(skewed, split);
  }
}

}  // namespace

int main() {
  every_half_converts();
  halves_round_to_even();
  every_bf16_converts();
  exp_is_accurate<float>(-87.0f, 3e-7);
  exp_is_accurate<double>(-700.0, 5e-16);
  lanes_cover_every_length();
  partitions_cover();
}
