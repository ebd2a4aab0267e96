// Forward and backward of the last score of the registry, with every input, compared with central
// differences.
#include <array>
#include <random>

#include "check.h"
#include "cpu/isa/baseline.h"
#include "cpu/kernels/edge_attention.h"

namespace {

using namespace gat;
using namespace gat::cpu;

constexpr std::int64_t kNodes = 3, H = 2, D = 3, kEdges = 7;
constexpr std::int64_t rowptr[] = {0, 3, 3, 7}, col[] = {0, 1, 2, 0, 0, 1, 2};
constexpr std::int64_t t_rowptr[] = {0, 3, 5, 7}, t_col[] = {0, 2, 2, 0, 2, 0, 2},
                       t_pos[] = {0, 3, 4, 1, 5, 2, 6};

template <class... Ss>
constexpr int last(TypeList<Ss...>) {
  return sizeof...(Ss) - 1;
}
constexpr int kScore = last(Scores{});

struct Tensors {
  std::vector<double> value, query, key, att, dst_term, src_term, edge_term, bias, edge_feat;

  std::array<std::vector<double>*, 9> all() {
    return {&value, &query, &key, &att, &dst_term, &src_term, &edge_term, &bias, &edge_feat};
  }
};

struct Forward {
  std::vector<double> out = std::vector<double>(kNodes * H * D),
                      lse = std::vector<double>(kNodes * H);
  std::vector<RowSoftmax<double>> softmax = std::vector<RowSoftmax<double>>(kNodes * H);
};

EdgeAttentionInputs<double> inputs(const Tensors& x) {
  EdgeAttentionInputs<double> in;
  in.csr = {rowptr, {col, true}, {}, kNodes};
  in.num_heads = H, in.score_channels = D, in.value_channels = D;
  in.value = x.value.data(), in.query = x.query.data(), in.key = x.key.data(),
  in.att = x.att.data();
  in.dst_term = x.dst_term.data(), in.src_term = x.src_term.data(),
  in.edge_term = x.edge_term.data();
  in.bias = x.bias.data(), in.edge_feat = x.edge_feat.data(), in.edge_in_value = true;
  return in;
}

Forward forward(const Tensors& x) {
  Forward result;
  EdgeAttentionForward<double> args;
  args.in = inputs(x);
  args.out = result.out.data(), args.softmax = result.softmax.data(), args.lse = result.lse.data();
  edge_attention_kernels<ThisIsa, double>(kScore).forward(args);
  return result;
}

// The sum of the outputs, each times its own factor; lse of the row without edges is -inf.
double loss(const Tensors& x, const std::vector<double>& grad_out,
            const std::vector<double>& grad_lse) {
  const Forward found = forward(x);
  double sum = 0;
  for (std::size_t i = 0; i < found.out.size(); ++i) sum += found.out[i] * grad_out[i];
  for (std::size_t i = 0; i < found.lse.size(); ++i) {
    if (std::isfinite(found.lse[i])) sum += found.lse[i] * grad_lse[i];
  }
  return sum;
}

Tensors backward(const Tensors& x, const std::vector<double>& grad_out,
                 const std::vector<double>& grad_lse) {
  const auto kernels = edge_attention_kernels<ThisIsa, double>(kScore);
  Forward saved = forward(x);
  Tensors grad = x;
  std::vector<double> delta(kNodes * H), node_table(kNodes * kNodeColumns * H),
      edge_factors(3 * kEdges * H);
  EdgeAttentionBackward<double> args;
  args.in = inputs(x);
  args.transpose = {t_rowptr, {t_col, true}, {t_pos, true}, kNodes};
  args.position = {t_pos, true};
  args.grad_out = grad_out.data(), args.softmax = saved.softmax.data(), args.delta = delta.data();
  args.grad_value = grad.value.data(), args.grad_query = grad.query.data(),
  args.grad_key = grad.key.data();
  args.grad_att = grad.att.data(), args.grad_dst_term = grad.dst_term.data(),
  args.grad_src_term = grad.src_term.data();
  args.grad_edge_term = grad.edge_term.data(), args.grad_bias = grad.bias.data();
  args.grad_edge_feat = grad.edge_feat.data();
  kernels.delta(args.in, grad_out.data(), saved.out.data(), nullptr, nullptr, nullptr,
                grad_lse.data(), delta.data());
  kernels.backward(args, {node_table.data(), edge_factors.data(), nullptr});
  return grad;
}

}  // namespace

int main() {
  std::mt19937 random(3);
  const auto draw = [&](std::int64_t n) {
    std::normal_distribution<double> normal(0, 0.7);
    std::vector<double> numbers(static_cast<std::size_t>(n));
    for (double& number : numbers) number = normal(random);
    return numbers;
  };
  Tensors x{draw(kNodes * H * D), draw(kNodes * H * D), draw(kNodes * H * D),
            draw(H * D),          draw(kNodes * H),     draw(kNodes * H),
            draw(kEdges * H),     draw(kEdges * H),     draw(kEdges * H * D)};
  const auto grad_out = draw(kNodes * H * D), grad_lse = draw(kNodes * H);
  Tensors grad = backward(x, grad_out, grad_lse);
  for (std::size_t tensor = 0; tensor < x.all().size(); ++tensor) {
    for (std::size_t i = 0; i < x.all()[tensor]->size(); ++i) {
      double& element = (*x.all()[tensor])[i];
      const double step = 1e-5, middle = element;
      element = middle + step;
      const double above = loss(x, grad_out, grad_lse);
      element = middle - step;
      const double below = loss(x, grad_out, grad_lse);
      element = middle;
      CHECK(close((*grad.all()[tensor])[i], (above - below) / (2 * step), 1e-8));
    }
  }
}
