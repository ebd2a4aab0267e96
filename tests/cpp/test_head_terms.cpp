// The terms of heads and their gradients against plain loops, for sizes that do not fill the last
// tile or vector; under a sanitizer, nothing behind the inputs is read.
#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "cpu/head_terms.h"
#include "isas.h"

namespace {

using namespace gat::cpu;

std::vector<float> normal(std::int64_t size, std::mt19937& random) {
  std::normal_distribution<float> distribution;
  std::vector<float> x(static_cast<std::size_t>(size));
  std::generate(x.begin(), x.end(), [&] { return distribution(random); });
  return x;
}

struct Found {
  std::vector<float> out, grad_x, grad_att;
  bool operator==(const Found& o) const {
    return out == o.out && grad_x == o.grad_x && grad_att == o.grad_att;
  }
};

template <class Isa>
Found run(std::int64_t N, std::int64_t H, std::int64_t C, std::int64_t K, int threads) {
  std::mt19937 random(1);
  const auto x = normal(N * H * C, random), att = normal(K * H * C, random),
             grad = normal(K * N * H, random);
  Found found{std::vector<float>(grad.size()), std::vector<float>(x.size()),
              std::vector<float>(att.size())};
  const HeadTerms<float> in{N, H, C, K, x.data(), att.data()};
  const auto kernels = head_terms_kernels<Isa, float>();
  kernels.forward(in, found.out.data(), threads);
  kernels.backward(in, grad.data(), found.grad_x.data(), found.grad_att.data(), threads);

  std::vector<double> out(grad.size()), grad_x(x.size()), grad_att(att.size());
  for (std::int64_t k = 0; k < K; ++k) {
    for (std::int64_t n = 0; n < N; ++n) {
      for (std::int64_t h = 0; h < H; ++h) {
        const auto term = static_cast<std::size_t>((k * N + n) * H + h);
        for (std::int64_t c = 0; c < C; ++c) {
          const auto row = static_cast<std::size_t>((n * H + h) * C + c),
                     vector = static_cast<std::size_t>((k * H + h) * C + c);
          out[term] += double(x[row]) * att[vector];
          grad_x[row] += double(grad[term]) * att[vector];
          grad_att[vector] += double(grad[term]) * x[row];
        }
      }
    }
  }
  const auto check = [](const std::vector<float>& a, const std::vector<double>& b) {
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(close(a[i], b[i], 1e-4));
  };
  check(found.out, out), check(found.grad_x, grad_x), check(found.grad_att, grad_att);
  return found;
}

}  // namespace

int main() {
  for_every_isa([](auto isa) {
    using Isa = decltype(isa);
    for (const std::int64_t N : {1, 2, 3, 31, 33, 70, 513, 1025}) {
      for (const std::int64_t C : {1, 5, 16, 37}) {
        for (const std::int64_t H : {1, 3, 4})
          CHECK((run<Isa>(N, H, C, 2, 1) == run<Isa>(N, H, C, 2, 3)));
      }
    }
  });
}
