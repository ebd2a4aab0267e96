// The fused kernels on every instruction set that this machine supports, compared with a plain
// loop, and with themselves on other numbers of threads. The Python tests compare gradients with
// autograd; here they must be bitwise identical for any schedule, and clean under the sanitizers.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "core/online_softmax.h"
#include "core/scores/all.h"
#include "cpu/edge_attention.h"
#include "cpu/isa.h"
#include "cpu/partition.h"
#include "cpu/simd.h"
#include "isas.h"

namespace {

using namespace gat;
using namespace gat::cpu;

struct TestGraph {
  std::int64_t num_src, num_dst;
  std::vector<std::int64_t> rowptr{0}, t_rowptr;
  std::vector<std::int32_t> col, t_col, t_pos;
  std::vector<std::int64_t> edge_id, t_edge_id;  // the caller's order

  // Row 1 is empty; row 2 is long enough to be split into pieces.
  TestGraph(std::int64_t sources, std::int64_t destinations, std::mt19937& random)
      : num_src(sources), num_dst(destinations) {
    std::vector<std::vector<std::int32_t>> out(static_cast<std::size_t>(sources)),
        position(out.size());
    for (std::int64_t i = 0; i < destinations; ++i) {
      const std::int64_t degree = i == 1   ? 0
                                  : i == 2 ? 2 * kLongRow + 77
                                           : static_cast<std::int64_t>(random() % 70);
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
    edge_id.resize(col.size());
    std::iota(edge_id.begin(), edge_id.end(), std::int64_t{0});
    std::shuffle(edge_id.begin(), edge_id.end(), random);
    for (const auto position : t_pos)
      t_edge_id.push_back(edge_id[static_cast<std::size_t>(position)]);
  }
  std::size_t edges() const { return col.size(); }
  CsrView csr() const { return {rowptr.data(), {col.data(), false}, {}, num_dst}; }
  CsrView transpose() const {
    return {t_rowptr.data(), {t_col.data(), false}, {t_pos.data(), false}, num_src};
  }
};

constexpr std::int64_t H = 3, D = 13;  // a vector of 8, one of 4 and a single element
constexpr std::int64_t K = 11;         // linear edge features

struct Inputs {
  std::vector<float> query, key, value, att, dst_term, src_term, bias, edge_term, edge_feat,
      edge_attr, edge_map, grad_out, grad_weights, grad_lse;
};

std::vector<float> normal(std::size_t n, std::mt19937& random) {
  std::normal_distribution<float> distribution(0, 0.5);
  std::vector<float> x(n);
  for (auto& v : x) v = distribution(random);
  return x;
}

// The same numbers in a storage type.
template <class T>
std::vector<T> stored(const std::vector<float>& x) {
  std::vector<T> result(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) store(&result[i], x[i]);
  return result;
}

template <class Score>
void plain_forward(const TestGraph& g, const Inputs& x, std::vector<double>& out,
                   std::vector<double>& lse) {
  const ScoreParams<double> p{0.2f, 0.7f};
  out.assign(static_cast<std::size_t>(g.num_dst * H * D), 0);
  lse.assign(static_cast<std::size_t>(g.num_dst * H), -INFINITY);
  for (std::int64_t i = 0; i < g.num_dst; ++i) {
    for (std::int64_t h = 0; h < H; ++h) {
      double total = 0;
      for (std::int64_t k = g.rowptr[i]; k < g.rowptr[i + 1]; ++k) {
        const std::int64_t j = g.col[k];
        double acc = 0;
        if constexpr (Score::has_term) {
          for (std::int64_t d = 0; d < D; ++d) {
            const double query = x.query[(i * H + h) * D + d], key = x.key[(j * H + h) * D + d];
            acc += Score::term(query, key, double(x.att[h * D + d]), p);
          }
        }
        const double s =
            Score::finish(acc, double(x.dst_term[i * H + h]), double(x.src_term[j * H + h]), p) +
            x.bias[k * H + h];
        total += std::exp(s);
        for (std::int64_t d = 0; d < D; ++d)
          out[(i * H + h) * D + d] += std::exp(s) * x.value[(j * H + h) * D + d];
      }
      if (total == 0) continue;
      lse[i * H + h] = std::log(total);
      for (std::int64_t d = 0; d < D; ++d) out[(i * H + h) * D + d] /= total;
    }
  }
}

// Options of a run. edges: edges in the caller's order, edge features or terms, weights, and the
// gradients of all of them; linear: the features are linear.
struct Options {
  std::int64_t top_k = 0;
  double dropout_p = 0;
  bool edges = false, linear = false;
};

// All results of the kernels, as bytes.
struct Results {
  std::vector<float> out, lse;
  std::vector<unsigned char> bits;
  template <class T>
  void keep(const std::vector<T>& x) {
    const auto* const bytes = reinterpret_cast<const unsigned char*>(x.data());
    bits.insert(bits.end(), bytes, bytes + x.size() * sizeof(T));
  }
  bool operator==(const Results& other) const { return bits == other.bits; }
};

template <class Isa, class Score, class T>
Results run(const TestGraph& g, const Inputs& x, int score, int threads, const Options& options) {
  const auto kernels = edge_attention_kernels<Isa, T>(score);
  const auto query = stored<T>(x.query), key = stored<T>(x.key), value = stored<T>(x.value),
             att = stored<T>(x.att);
  const auto dst_term = stored<T>(x.dst_term), src_term = stored<T>(x.src_term),
             bias = stored<T>(x.bias);
  const auto edge_term = stored<T>(x.edge_term), edge_feat = stored<T>(x.edge_feat),
             edge_attr = stored<T>(x.edge_attr), grad_out = stored<T>(x.grad_out);
  const auto grad_weights = stored<T>(x.grad_weights);
  EdgeAttentionForward<T> forward;
  EdgeAttentionInputs<T>& in = forward.in;
  in.csr = g.csr();
  in.num_heads = H, in.score_channels = D, in.value_channels = D;
  in.query = query.data(), in.key = key.data(), in.value = value.data(), in.att = att.data();
  in.dst_term = dst_term.data(), in.src_term = src_term.data(), in.bias = bias.data();
  in.params = {0.2f, 0.7f};
  in.num_threads = threads;
  const std::int64_t seed = 11;
  in.dropout = Dropout::make(options.dropout_p, &seed);
  if (options.edges) {
    in.csr.edge_id = {g.edge_id.data(), true};
    if (Score::has_term && options.linear) {
      in.edge_channels = K, in.edge_in_value = true;
      in.edge_attr = edge_attr.data(), in.edge_map = x.edge_map.data();
    } else if (Score::has_term) {
      in.edge_feat = edge_feat.data(), in.edge_in_value = true;
    } else {
      in.edge_term = edge_term.data();
    }
  }
  const std::size_t edges = g.edges() * H, rows = static_cast<std::size_t>(g.num_dst * H);
  std::vector<std::uint8_t> selected(edges);
  if (options.top_k > 0) {
    kernels.select_top_k(in, options.top_k, selected.data());
    in.selected = selected.data();
  }
  std::vector<T> out(rows * D), weights(options.edges ? edges : 0);
  std::vector<float> out_acc(rows * D), lse(rows), delta(rows), edge_grad(edges);
  std::vector<gat::RowSoftmax<float>> softmax(rows);
  forward.out = out.data(), forward.softmax = softmax.data(), forward.lse = lse.data(),
  forward.out_acc = out_acc.data();
  std::vector<float> edge_sums(rows * K);
  if (in.edge_attr && kIsProduct<Score>) forward.edge_sums = edge_sums.data();
  std::vector<float> scores(options.edges ? edges : 0);
  if (options.edges) forward.scores = scores.data();
  kernels.forward(forward);
  if (options.edges) {
    kernels.weights(in, scores.data(), softmax.data(), weights.data());
    kernels.delta(in, grad_out.data(), out_acc.data(), forward.edge_sums, grad_weights.data(),
                  weights.data(), x.grad_lse.data(), delta.data());
  } else {
    kernels.delta(in, grad_out.data(), out_acc.data(), nullptr, nullptr, nullptr, nullptr,
                  delta.data());
  }

  std::vector<T> grad_query(query.size()), grad_key(key.size()), grad_value(value.size()),
      grad_att(att.size());
  std::vector<T> grad_dst_term(dst_term.size()), grad_src_term(src_term.size());
  std::vector<T> grad_bias(edges), grad_edge_term(edges), grad_edge_feat(edges * D);
  std::vector<T> grad_edge_attr(g.edges() * K);
  std::vector<float> grad_edge_map(x.edge_map.size());
  EdgeAttentionBackward<T> backward;
  backward.in = in;
  backward.transpose = g.transpose(), backward.position = {g.t_pos.data(), false};
  backward.grad_out = grad_out.data(), backward.softmax = softmax.data(),
  backward.delta = delta.data();
  backward.edge_grad = edge_grad.data();
  backward.grad_query = grad_query.data(), backward.grad_key = grad_key.data(),
  backward.grad_value = grad_value.data();
  backward.grad_att = grad_att.data();
  backward.grad_dst_term = grad_dst_term.data(), backward.grad_src_term = grad_src_term.data();
  if (options.edges) {
    backward.transpose.edge_id = {g.t_edge_id.data(), true};
    backward.grad_weights = grad_weights.data(), backward.grad_bias = grad_bias.data();
    if (in.edge_feat) backward.grad_edge_feat = grad_edge_feat.data();
    if (in.edge_term) backward.grad_edge_term = grad_edge_term.data();
    if (in.edge_attr) {
      backward.grad_edge_attr = grad_edge_attr.data();
      backward.grad_edge_map = grad_edge_map.data();
    }
  }
  std::vector<float> node_table(rows * kNodeColumns), edge_factors(3 * edges);
  std::vector<std::int32_t> inverse(g.edges());
  kernels.backward(backward, {node_table.data(), edge_factors.data(), inverse.data()});

  Results r;
  r.out = out_acc, r.lse = lse;
  for (const auto* x :
       {&out, &weights, &grad_query, &grad_key, &grad_value, &grad_att, &grad_dst_term,
        &grad_src_term, &grad_bias, &grad_edge_term, &grad_edge_feat, &grad_edge_attr})
    r.keep(*x);
  r.keep(grad_edge_map);
  r.keep(out_acc), r.keep(lse);
  return r;
}

// Bitwise identical for any number of threads; different with options and without.
template <class Isa, class Score, class T>
Results check_threads(const TestGraph& g, const Inputs& x, int score) {
  const Results once = run<Isa, Score, T>(g, x, score, 1, {});
  CHECK((run<Isa, Score, T>(g, x, score, 5, {}) == once));
  for (const Options& options :
       {Options{7, 0.4, false}, Options{0, 0.4, true}, Options{5, 0.4, true, true}}) {
    const Results with_options = run<Isa, Score, T>(g, x, score, 1, options);
    CHECK((run<Isa, Score, T>(g, x, score, 3, options) == with_options));
    CHECK(!(with_options == once));
  }
  return once;
}

void check_close(const std::vector<float>& found, const std::vector<double>& expected,
                 double tolerance) {
  CHECK(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i)
    CHECK(found[i] == expected[i] || close(found[i], expected[i], tolerance));
}

template <class S>
struct Tag {
  using type = S;
};

template <class... Ss>
void check_all(const TestGraph& g, const Inputs& x, TypeList<Ss...>) {
  int score = 0;
  const auto check = [&](auto tag) {
    using Score = typename decltype(tag)::type;
    std::vector<double> out, lse;
    plain_forward<Score>(g, x, out, lse);
    for_every_isa([&](auto isa) {
      const Results found = check_threads<decltype(isa), Score, float>(g, x, score);
      check_close(found.out, out, 2e-5);
      check_close(found.lse, lse, 2e-5);
    });
    // Inputs are rounded to 8 bits: scores of about ten products of order one have errors of a few
    // hundredths.
    for_sixteen_bits([&](auto isa, auto storage) {
      const Results found = check_threads<decltype(isa), Score, decltype(storage)>(g, x, score);
      check_close(found.out, out, 0.05);
      check_close(found.lse, lse, 0.05);
    });
    ++score;
  };
  (check(Tag<Ss>{}), ...);
}

}  // namespace

int main() {
  std::mt19937 random(5);
  const TestGraph g(60, 50, random);
  Inputs x;
  const auto src = static_cast<std::size_t>(g.num_src * H),
             dst = static_cast<std::size_t>(g.num_dst * H);
  const std::size_t edges = g.edges() * H;
  x.query = normal(dst * D, random), x.key = normal(src * D, random),
  x.value = normal(src * D, random);
  x.att = normal(H * D, random), x.dst_term = normal(dst, random), x.src_term = normal(src, random);
  x.bias = normal(edges, random), x.edge_term = normal(edges, random),
  x.edge_feat = normal(edges * D, random);
  x.edge_attr = normal(g.edges() * K, random);
  x.edge_map = normal(static_cast<std::size_t>(padded_terms(K) * H * D), random);
  std::fill(x.edge_map.begin() + K * H * D, x.edge_map.end(), 0.0f);
  x.grad_out = normal(dst * D, random), x.grad_weights = normal(edges, random),
  x.grad_lse = normal(dst, random);
  check_all(g, x, Scores{});
  std::printf("widest instruction set: %s\n", isa_name(widest_isa()));
}
