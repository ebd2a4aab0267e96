// The fused kernels on every instruction set this machine runs: against a plain loop, and against themselves on other numbers of
// threads. Gradients are checked against autograd by the Python tests; here they must be the same bits for any schedule, and
// clean under the sanitizers.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "core/online_softmax.h"
#include "core/scores/all.h"
#include "cpu/edge_attention.h"
#include "cpu/isa.h"
#include "cpu/partition.h"

namespace {

using namespace gat;
using namespace gat::cpu;

struct TestGraph {
  std::int64_t num_src, num_dst;
  std::vector<std::int64_t> rowptr{0}, t_rowptr;
  std::vector<std::int32_t> col, t_col, t_pos;

  // Row 1 is empty; row 2 is long enough to be split.
  TestGraph(std::int64_t sources, std::int64_t destinations, std::mt19937& random) : num_src(sources), num_dst(destinations) {
    std::vector<std::vector<std::int32_t>> out(static_cast<std::size_t>(sources)), position(out.size());
    for (std::int64_t i = 0; i < destinations; ++i) {
      const std::int64_t degree = i == 1 ? 0 : i == 2 ? 2 * kLongRow + 77 : static_cast<std::int64_t>(random() % 70);
      for (std::int64_t k = 0; k < degree; ++k) {
        const auto j = random() % static_cast<unsigned>(sources);
        out[j].push_back(static_cast<std::int32_t>(i));
        position[j].push_back(static_cast<std::int32_t>(col.size()));
        col.push_back(static_cast<std::int32_t>(j));
      }
      rowptr.push_back(static_cast<std::int64_t>(col.size()));
    }
    t_rowptr.push_back(0);
    for (std::size_t j = 0; j < out.size(); ++j) {
      t_col.insert(t_col.end(), out[j].begin(), out[j].end());
      t_pos.insert(t_pos.end(), position[j].begin(), position[j].end());
      t_rowptr.push_back(static_cast<std::int64_t>(t_col.size()));
    }
  }
  std::size_t edges() const { return col.size(); }
  CsrView csr() const { return {rowptr.data(), {col.data(), false}, {}, num_dst}; }
  CsrView transpose() const { return {t_rowptr.data(), {t_col.data(), false}, {t_pos.data(), false}, num_src}; }
};

constexpr std::int64_t H = 3, D = 13;  // a vector of 8, one of 4 and a single element

struct Inputs {
  std::vector<float> query, key, value, att, dst_term, src_term, bias, grad_out;
};

std::vector<float> normal(std::size_t n, std::mt19937& random) {
  std::normal_distribution<float> distribution(0, 0.5);
  std::vector<float> x(n);
  for (auto& v : x) v = distribution(random);
  return x;
}

EdgeAttentionInputs<float> arguments(const TestGraph& g, const Inputs& x, int threads) {
  EdgeAttentionInputs<float> in;
  in.csr = g.csr();
  in.num_heads = H, in.score_channels = D, in.value_channels = D;
  in.query = x.query.data(), in.key = x.key.data(), in.value = x.value.data(), in.att = x.att.data();
  in.dst_term = x.dst_term.data(), in.src_term = x.src_term.data(), in.bias = x.bias.data();
  in.params = {0.2f, 0.7f};
  in.num_threads = threads;
  return in;
}

template <class Score>
void plain_forward(const TestGraph& g, const Inputs& x, std::vector<double>& out, std::vector<double>& lse) {
  const ScoreParams<double> p{0.2f, 0.7f};
  out.assign(static_cast<std::size_t>(g.num_dst * H * D), 0);
  lse.assign(static_cast<std::size_t>(g.num_dst * H), -INFINITY);
  for (std::int64_t i = 0; i < g.num_dst; ++i) {
    for (std::int64_t h = 0; h < H; ++h) {
      double total = 0;
      for (std::int64_t k = g.rowptr[i]; k < g.rowptr[i + 1]; ++k) {
        const std::int64_t j = g.col[k];
        double acc = 0;
        for (std::int64_t d = 0; d < D; ++d) {
          acc +=
              Score::term(double(x.query[(i * H + h) * D + d]), double(x.key[(j * H + h) * D + d]), double(x.att[h * D + d]), p);
        }
        const double s = Score::finish(acc, double(x.dst_term[i * H + h]), double(x.src_term[j * H + h]), p) + x.bias[k * H + h];
        total += std::exp(s);
        for (std::int64_t d = 0; d < D; ++d) out[(i * H + h) * D + d] += std::exp(s) * x.value[(j * H + h) * D + d];
      }
      if (total == 0) continue;
      lse[i * H + h] = std::log(total);
      for (std::int64_t d = 0; d < D; ++d) out[(i * H + h) * D + d] /= total;
    }
  }
}

struct Results {
  std::vector<float> out, lse, grads[6];
  bool operator==(const Results& other) const {
    const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
      return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    };
    bool equal = same(out, other.out) && same(lse, other.lse);
    for (int i = 0; i < 6; ++i) equal = equal && same(grads[i], other.grads[i]);
    return equal;
  }
};

template <class Isa>
Results run(const TestGraph& g, const Inputs& x, int score, int threads, std::int64_t top_k, double dropout_p) {
  const auto kernels = edge_attention_kernels<Isa, float>(score);
  Results r;
  r.out.resize(static_cast<std::size_t>(g.num_dst * H * D));
  r.lse.resize(static_cast<std::size_t>(g.num_dst * H));
  std::vector<std::uint8_t> selected(g.edges() * H);
  EdgeAttentionForward<float> forward;
  forward.in = arguments(g, x, threads);
  const std::int64_t seed = 11;
  forward.in.dropout = Dropout::make(dropout_p, &seed);
  if (top_k > 0) {
    kernels.select_top_k(forward.in, top_k, selected.data());
    forward.in.selected = selected.data();
  }
  forward.out = r.out.data(), forward.lse = r.lse.data();
  kernels.forward(forward);

  std::vector<float> delta(r.lse.size()), edge_grad(g.edges() * H);
  kernels.delta(forward.in, x.grad_out.data(), r.out.data(), nullptr, nullptr, nullptr, delta.data());
  r.grads[0].resize(x.query.size()), r.grads[1].resize(x.key.size()), r.grads[2].resize(x.value.size());
  r.grads[3].resize(x.att.size()), r.grads[4].resize(x.dst_term.size()), r.grads[5].resize(x.src_term.size());
  EdgeAttentionBackward<float> backward;
  backward.in = forward.in;
  backward.transpose = g.transpose(), backward.position = {g.t_pos.data(), false};
  backward.grad_out = x.grad_out.data(), backward.lse = r.lse.data(), backward.delta = delta.data();
  backward.edge_grad = edge_grad.data();
  backward.grad_query = r.grads[0].data(), backward.grad_key = r.grads[1].data(), backward.grad_value = r.grads[2].data();
  backward.grad_att = r.grads[3].data(), backward.grad_dst_term = r.grads[4].data(), backward.grad_src_term = r.grads[5].data();
  std::vector<float> node_table(r.lse.size() * kNodeColumns);
  std::vector<std::int32_t> inverse(g.edges());
  kernels.backward(backward, {node_table.data(), inverse.data()});
  return r;
}

template <class Isa>
void check_isa(const TestGraph& g, const Inputs& x, const std::vector<double>& out, const std::vector<double>& lse, int score) {
  const Results once = run<Isa>(g, x, score, 1, 0, 0);
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(close(once.out[i], out[i], 2e-5));
  for (std::size_t i = 0; i < lse.size(); ++i) CHECK(once.lse[i] == lse[i] || close(once.lse[i], lse[i], 2e-5));
  for (const int threads : {2, 5}) CHECK((run<Isa>(g, x, score, threads, 0, 0) == once));
  const Results with_options = run<Isa>(g, x, score, 1, 7, 0.4);
  CHECK((run<Isa>(g, x, score, 3, 7, 0.4) == with_options));
  CHECK(!(with_options == once));
}

template <class S>
struct Tag {
  using type = S;
};

template <class... Ss>
void check_all(const TestGraph& g, const Inputs& x, TypeList<Ss...>) {
  int score = 0;
  const auto check = [&](auto tag) {
    std::vector<double> out, lse;
    plain_forward<typename decltype(tag)::type>(g, x, out, lse);
    check_isa<Baseline>(g, x, out, lse, score);
#if defined(__x86_64__)
    if (widest_isa() >= Isa::avx2) check_isa<Avx2>(g, x, out, lse, score);
    if (widest_isa() >= Isa::avx512) check_isa<Avx512>(g, x, out, lse, score);
#endif
    ++score;
  };
  (check(Tag<Ss>{}), ...);
}

}  // namespace

int main() {
  std::mt19937 random(5);
  const TestGraph g(60, 50, random);
  Inputs x;
  const auto src = static_cast<std::size_t>(g.num_src * H), dst = static_cast<std::size_t>(g.num_dst * H);
  x.query = normal(dst * D, random), x.key = normal(src * D, random), x.value = normal(src * D, random);
  x.att = normal(H * D, random), x.dst_term = normal(dst, random), x.src_term = normal(src, random);
  x.bias = normal(g.edges() * H, random), x.grad_out = normal(dst * D, random);
  check_all(g, x, Scores{});
  std::printf("widest instruction set: %s\n", isa_name(widest_isa()));
}
