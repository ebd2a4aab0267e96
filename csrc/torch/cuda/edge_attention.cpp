// edge_attention on the GPU.
#include "../edge_attention.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>

#include <algorithm>

#include "../../cuda/edge_attention.h"
#include "device.h"
#include "register.h"

namespace gat::binding {
namespace {

struct Cuda : CudaDevice {
  static constexpr bool kSharesGradients = false, kKeepsScores = false;
  static constexpr int kDeltaWords = cuda::kNodeStats;

  using CudaDevice::CudaDevice;

  static cuda::EdgeAttentionSizes sizes(const EdgeAttentionTensors& t) {
    return {t.num_edges, t.num_src, t.largest_row, t.largest_column};
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
  void delta(const EdgeAttentionTensors& t, const EdgeAttentionBackward<T>& args, const Acc<T>* out,
             const Acc<T>*, const T* weights, const Acc<T>* grad_lse, Acc<T>* stats) {
    cuda::edge_attention_delta(*this, sizes(t), args, out, weights, grad_lse, stats);
  }
  template <class T>
  void backward(const EdgeAttentionTensors& t, EdgeAttentionBackward<T> args,
                const SummedGradients& to) {
    const at::ScalarType acc = accumulate_type(t.value().scalar_type());
    const bool of_features = args.grad_edge_attr || args.grad_edge_map;
    const bool of_edges = args.grad_bias || args.grad_edge_term || args.grad_edge_feat;
    const bool by_destination =
        args.grad_query || args.grad_att || args.grad_dst_term || of_edges || of_features;
    const bool by_source = args.grad_key || args.grad_value || args.grad_src_term;
    if (t.score.has_term) {
      if (by_destination) destination_pass(t, args, to, acc);
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
                        const SummedGradients& to, at::ScalarType acc) {
    at::Tensor parts, factors;
    if (to.edge_attr.defined() || to.edge_map.defined())
      factors = t.empty({t.num_edges, 2, t.num_heads}, acc);
    if (args.grad_att) {
      parts = t.empty({cuda::att_part_rows(sizes(t), args.in), t.num_heads, t.score_channels}, acc);
    }
    cuda::edge_attention_destination(*this, t.score.index, sizes(t), args,
                                     mutable_data<Acc<T>>(parts), mutable_data<Acc<T>>(factors));
    if (args.grad_att) to.att.copy_(at::sum(parts, 0));
    if (factors.defined()) feature_gradients(t, args, to, factors, acc);
  }

  // The gradients of linear edge features as products of matrices, for some edges at a time: those
  // of W e have E H D elements.
  template <class T>
  void feature_gradients(const EdgeAttentionTensors& t, const EdgeAttentionBackward<T>& args,
                         const SummedGradients& to, const at::Tensor& factors, at::ScalarType acc) {
    const std::int64_t row_size = t.num_heads * t.score_channels, K = t.edge_channels;
    const std::int64_t most = std::clamp<std::int64_t>(
        kElements / std::max<std::int64_t>(row_size, 1), 1, std::max<std::int64_t>(t.num_edges, 1));
    const auto matrix = [&](const at::Tensor& map) {
      return map.view({-1, row_size}).narrow(0, 0, K);
    };
    const at::Tensor grads = t.empty({most, row_size}, acc), attrs = t.empty({most, K}, acc);
    if (to.edge_map.defined()) to.edge_map.zero_();
    for (std::int64_t first = 0; first < t.num_edges; first += most) {
      const std::int64_t count = std::min(most, t.num_edges - first);
      const at::Tensor grad = grads.narrow(0, 0, count);
      cuda::edge_attention_features(*this, t.score.index, args, data<Acc<T>>(factors), first, count,
                                    mutable_data<Acc<T>>(grads), mutable_data<Acc<T>>(attrs));
      if (t.has_rest) {  // the destination pass wrote no factors of edges that belong to no row
        const at::Tensor position = at::arange(first, first + count, t.rowptr.options()),
                         is_rest = position.ge(t.rowptr.slice(0, -1)).unsqueeze(1);
        grad.masked_fill_(is_rest, 0);
        attrs.narrow(0, 0, count).masked_fill_(is_rest, 0);
      }
      if (to.edge_map.defined()) matrix(to.edge_map).addmm_(attrs.narrow(0, 0, count).t(), grad);
      if (!to.edge_attr.defined()) continue;
      const at::Tensor of_attr =
          at::mm(grad, matrix(t.edge_map).t()).to(to.edge_attr.scalar_type());
      if (t.edge_id.has_value()) {
        to.edge_attr.index_copy_(0, t.edge_id->narrow(0, first, count).to(at::kLong), of_attr);
      } else {
        to.edge_attr.narrow(0, first, count).copy_(of_attr);
      }
    }
  }

  static constexpr std::int64_t kElements = std::int64_t{1} << 23;
};

}  // namespace

void register_edge_attention_cuda(torch::Library& m) { register_edge_attention<Cuda>(m); }

}  // namespace gat::binding
