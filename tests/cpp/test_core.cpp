// csrc/core: Philox, online softmax, scores and their gradients.
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>

#include "check.h"
#include "core/online_softmax.h"
#include "core/philox.h"
#include "core/scores/all.h"

namespace {

// Known answers of Philox4x32-10, published with the Random123 library.
void philox_known_answers() {
  const gat::Philox4 zeros = gat::philox(0, 0, 0);
  CHECK(zeros.word[0] == 0x6627e8d5 && zeros.word[1] == 0xe169c58d && zeros.word[2] == 0xbc57ac4c &&
        zeros.word[3] == 0x9b00dbd8);
  const std::uint64_t ones = ~std::uint64_t{0};
  const gat::Philox4 full = gat::philox(ones, ones, ones);
  CHECK(full.word[0] == 0x408f276d && full.word[1] == 0x41c83b0e && full.word[2] == 0xa20bc7c6 &&
        full.word[3] == 0x6d5451fd);
  const gat::Philox4 pi = gat::philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e);
  CHECK(pi.word[0] == 0xd16cfe09 && pi.word[1] == 0x94fdcceb && pi.word[2] == 0x5001e420 &&
        pi.word[3] == 0x24126ea1);
}

void dropout_rate() {
  const std::int64_t seed = 7;
  const auto dropout = gat::Dropout::make(0.3, &seed);
  int kept = 0;
  const int edges = 20000;
  for (int e = 0; e < edges; ++e) {
    const auto numbers = dropout.draw(e, 0);
    for (int h = 0; h < 4; ++h) kept += dropout.kept(numbers, h);
  }
  CHECK(close(kept / (4.0 * edges), 0.7, 0.006));  // 4 standard deviations
  CHECK(close(dropout.multiplier<float>({{~0u, 0, 0, 0}}, 0), 1 / 0.7, 1e-6));
  CHECK(!gat::Dropout::make(1.0, &seed).kept({{~0u, ~0u, ~0u, ~0u}}, 2));
  CHECK(!gat::Dropout::make(0.0, &seed).active());
}

void softmax_states_merge() {
  const double inf = std::numeric_limits<double>::infinity();
  const auto f = gat::merge_factors(2.0, 5.0);
  CHECK(f.max == 5 && close(f.left, std::exp(-3.0), 1e-15) && f.right == 1);
  const auto with_empty = gat::merge_factors(-inf, 1.5);
  CHECK(with_empty.max == 1.5 && with_empty.left == 0 && with_empty.right == 1);
  const auto both_empty = gat::merge_factors(-inf, -inf);
  CHECK(both_empty.max == -inf && both_empty.left == 0 && both_empty.right == 0);
  CHECK(gat::log_sum_exp(-inf, 0.0) == -inf && gat::normalizer(0.0) == 0);
  const auto empty = gat::RowSoftmax<double>::of(-inf, 0.0),
             row = gat::RowSoftmax<double>::of(-1e300, 4.0);
  CHECK(std::exp(3.0 - empty.shift) * empty.scale == 0 &&
        std::exp(-inf - empty.shift) * empty.scale == 0);
  CHECK(std::exp(-1e300 - row.shift) * row.scale == 0.25);
}

// Central differences of one score, at points away from the kink of leaky_relu.
template <class Score>
void gradients_of() {
  const gat::ScoreParams<double> p{0.3, 0.7};
  const double h = 1e-6;
  for (const double sign : {1.0, -1.0}) {
    const double x = sign * 0.8, y = sign * 0.5, w = -1.3, a = sign * 0.4, b = sign * 0.9,
                 acc = 1.7, g = 0.6;
    if constexpr (Score::has_term) {
      const auto t = Score::term_vjp(g, x, y, w, p);
      const auto dt = [&](double dx, double dy, double dw) {
        return g *
               (Score::term(x + dx, y + dy, w + dw, p) - Score::term(x - dx, y - dy, w - dw, p)) /
               (2 * h);
      };
      CHECK(close(t.x, dt(h, 0, 0), 1e-8) && close(t.y, dt(0, h, 0), 1e-8));
      if (Score::has_weight) CHECK(close(t.w, dt(0, 0, h), 1e-8));
    }
    const auto f = Score::finish_vjp(g, acc, a, b, p);
    const auto df = [&](double dacc, double da, double db) {
      return g *
             (Score::finish(acc + dacc, a + da, b + db, p) -
              Score::finish(acc - dacc, a - da, b - db, p)) /
             (2 * h);
    };
    CHECK(close(f.acc, df(h, 0, 0), 1e-8) && close(f.a, df(0, h, 0), 1e-8) &&
          close(f.b, df(0, 0, h), 1e-8));
  }
}

template <class... Ss>
void gradients_of_all(gat::TypeList<Ss...>) {
  (gradients_of<Ss>(), ...);
}

}  // namespace

int main() {
  philox_known_answers();
  dropout_rate();
  softmax_states_merge();
  gradients_of_all(gat::Scores{});
}
