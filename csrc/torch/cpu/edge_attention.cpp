// edge_attention on the CPU.
#include "../../cpu/edge_attention.h"

#include "../../cpu/isa.h"
#include "../../cpu/one_pass.h"
#include "../edge_attention.h"

namespace gat::binding {
namespace {

struct Cpu {
  static constexpr bool kSharesGradients = true, kKeepsScores = true;
  static constexpr int kDeltaWords = 1;

  explicit Cpu(const at::Tensor&) {}

  template <class T>
  static cpu::EdgeAttentionKernels<T> kernels(const EdgeAttentionTensors& t) {
    return cpu::with_isa(
        [&](auto isa) { return cpu::edge_attention_kernels<decltype(isa), T>(t.score.index); });
  }
  template <class T>
  void select_top_k(const EdgeAttentionTensors& t, const EdgeAttentionInputs<T>& in,
                    std::int64_t top_k, std::uint8_t* selected) {
    kernels<T>(t).select_top_k(in, top_k, selected);
  }
  template <class T>
  void forward(const EdgeAttentionTensors& t, const EdgeAttentionForward<T>& args) {
    kernels<T>(t).forward(args);
  }
  template <class T>
  void weights(const EdgeAttentionTensors& t, const EdgeAttentionForward<T>& args, T* weights) {
    kernels<T>(t).weights(args.in, args.scores, args.softmax, weights);
  }
  template <class T>
  void delta(const EdgeAttentionTensors& t, const EdgeAttentionBackward<T>& args, const Acc<T>* out,
             const Acc<T>* edge_sums, const T* weights, const Acc<T>* grad_lse, Acc<T>* delta) {
    kernels<T>(t).delta(args.in, args.grad_out, out, edge_sums, args.grad_weights, weights,
                        grad_lse, delta);
  }
  template <class T>
  void backward(const EdgeAttentionTensors& t, EdgeAttentionBackward<T> args,
                const SummedGradients&) {
    const at::ScalarType acc = accumulate_type(t.value().scalar_type());
    at::Tensor node_table, edge_factors, edge_grad, inverse;
    const bool one_pass = t.score.is_product && cpu::takes_one_pass(args);
    if (!t.score.has_term || one_pass) {
      node_table = t.empty({t.num_dst, cpu::kNodeColumns, t.num_heads}, acc);
    } else if (args.grad_key || args.grad_value || args.grad_src_term) {
      const std::int64_t factors = t.score.has_node_terms ? 3 : 2;
      edge_factors = t.empty({t.num_edges, factors, t.num_heads}, acc);
    }
    if (!t.score.has_term && args.grad_dst_term) {
      edge_grad = t.empty({t.num_edges, t.num_heads}, acc);
      inverse = t.empty({t.num_edges}, args.position.wide ? at::kLong : at::kInt);
      args.edge_grad = mutable_data<Acc<T>>(edge_grad);
    }
    kernels<T>(t).backward(args,
                           {mutable_data<Acc<T>>(node_table), mutable_data<Acc<T>>(edge_factors),
                            mutable_data<void>(inverse), one_pass});
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(gat_ext, CPU, m) { register_edge_attention<Cpu>(m); }

}  // namespace gat::binding
