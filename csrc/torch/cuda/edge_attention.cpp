// edge_attention on the GPU.
#include "../edge_attention.h"

#include <ATen/ops/sum.h>

#include "../../cuda/edge_attention.h"
#include "device.h"
#include "register.h"

namespace gat::binding {
namespace {

struct Cuda : CudaDevice {
  static constexpr bool kSharesGradients = false, kKeepsScores = false;

  using CudaDevice::CudaDevice;

  static cuda::EdgeAttentionSizes sizes(const EdgeAttentionTensors& t) {
    return {t.num_edges, t.num_src};
  }

  template <class T>
  void select_top_k(const EdgeAttentionTensors& t, const EdgeAttentionInputs<T>& in,
                    std::int64_t top_k, std::uint8_t* selected) {
    cuda::edge_attention_select(*this, t.score.index, sizes(t), in, top_k, selected);
  }
  template <class T>
  void forward(const EdgeAttentionTensors& t, const EdgeAttentionForward<T>& args) {
    cuda::edge_attention_forward(*this, t.score.index, sizes(t), args);
  }
  template <class T>
  void weights(const EdgeAttentionTensors& t, const EdgeAttentionForward<T>& args, T* weights) {
    cuda::edge_attention_weights(*this, t.score.index, sizes(t), args.in, args.softmax, weights);
  }
  template <class T>
  void delta(const EdgeAttentionTensors& t, const EdgeAttentionInputs<T>& in, const T* grad_out,
             const Acc<T>* out, const T* grad_weights, const T* weights, const Acc<T>* grad_lse,
             Acc<T>* delta) {
    cuda::edge_attention_delta(*this, sizes(t), in, grad_out, out, grad_weights, weights, grad_lse,
                               delta);
  }
  template <class T>
  void backward(const EdgeAttentionTensors& t, EdgeAttentionBackward<T> args,
                const at::Tensor& grad_att) {
    const at::ScalarType acc = accumulate_type(t.value().scalar_type());
    const bool of_edges = args.grad_bias || args.grad_edge_term || args.grad_edge_feat;
    const bool by_destination = args.grad_query || args.grad_att || args.grad_dst_term || of_edges;
    const bool by_source = args.grad_key || args.grad_value || args.grad_src_term;
    if (t.score.has_term) {
      if (by_destination) destination_pass(t, args, grad_att, acc);
      if (by_source) cuda::edge_attention_source(*this, t.score.index, sizes(t), args);
      return;
    }
    at::Tensor edge_grad;
    if (args.grad_dst_term) edge_grad = t.empty({t.num_edges, t.num_heads}, acc);
    args.edge_grad = mutable_data<Acc<T>>(edge_grad);
    cuda::edge_attention_source(*this, t.score.index, sizes(t), args);
    if (args.grad_dst_term) cuda::edge_attention_sum_edge_grad(*this, sizes(t), args);
  }

 private:
  template <class T>
  void destination_pass(const EdgeAttentionTensors& t, const EdgeAttentionBackward<T>& args,
                        const at::Tensor& grad_att, at::ScalarType acc) {
    at::Tensor parts;
    if (args.grad_att) {
      parts = t.empty({cuda::att_part_rows(sizes(t), args.in), t.num_heads, t.score_channels}, acc);
    }
    cuda::edge_attention_destination(*this, t.score.index, sizes(t), args,
                                     mutable_data<Acc<T>>(parts));
    if (args.grad_att) grad_att.copy_(at::sum(parts, 0));
  }
};

}  // namespace

void register_edge_attention_cuda(torch::Library& m) { register_edge_attention<Cuda>(m); }

}  // namespace gat::binding
