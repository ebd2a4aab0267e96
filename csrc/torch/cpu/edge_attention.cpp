// edge_attention on the CPU.
#include "../../cpu/edge_attention.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <tuple>

#include "../../cpu/isa.h"
#include "../edge_attention.h"

namespace gat::binding {
namespace {

struct Options {
  bool edge_in_value;
  double negative_slope, scale, dropout_p;
};

Dropout make_dropout(const OptionalTensor& seed, double p) {
  if (p <= 0) return {};
  TORCH_CHECK_VALUE(seed.has_value() && seed->numel() == 1 && seed->scalar_type() == at::kLong,
                    "dropout needs a seed: an int64 tensor of one element");
  return Dropout::make(p, static_cast<std::uint64_t>(seed->item<std::int64_t>()));
}

template <class T>
cpu::EdgeAttentionInputs<T> kernel_inputs(const EdgeAttentionTensors& t, const Options& options, const OptionalTensor& seed) {
  cpu::EdgeAttentionInputs<T> in;
  in.csr = csr_view(t.rowptr, t.col, t.edge_id);
  in.num_heads = t.num_heads, in.score_channels = t.score_channels, in.value_channels = t.value_channels;
  in.query = data<T>(t.input[kQuery]), in.key = data<T>(t.input[kKey]), in.value = data<T>(t.input[kValue]);
  in.att = data<T>(t.input[kAtt]);
  in.dst_term = data<T>(t.input[kDstTerm]), in.src_term = data<T>(t.input[kSrcTerm]);
  in.edge_term = data<T>(t.input[kEdgeTerm]), in.bias = data<T>(t.input[kBias]);
  in.edge_feat = data<T>(t.input[kEdgeFeat]), in.edge_in_value = options.edge_in_value;
  in.params = {static_cast<Acc<T>>(options.negative_slope), static_cast<Acc<T>>(options.scale)};
  in.dropout = make_dropout(seed, options.dropout_p);
  in.num_threads = at::get_num_threads();
  return in;
}

template <class T>
cpu::EdgeAttentionKernels<T> kernels(const ScoreTraits& score) {
  return cpu::with_isa([&](auto isa) { return cpu::edge_attention_kernels<decltype(isa), T>(score.index); });
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> edge_attention(
    const at::Tensor& rowptr, const at::Tensor& col, const OptionalTensor& edge_id, const OptionalTensor&, const OptionalTensor&,
    const OptionalTensor&, const OptionalTensor&, const at::Tensor& value, const OptionalTensor& query, const OptionalTensor& key,
    const OptionalTensor& att, const OptionalTensor& dst_term, const OptionalTensor& src_term, const OptionalTensor& edge_term,
    const OptionalTensor& bias, const OptionalTensor& edge_feat, const OptionalTensor& seed, std::string_view score,
    bool edge_in_value, double negative_slope, double scale, double dropout_p, std::int64_t top_k, bool return_weights) {
  const EdgeAttentionTensors t(rowptr, col, edge_id, value, {query, key, att, dst_term, src_term, edge_term, bias, edge_feat},
                               score, edge_in_value);
  const at::ScalarType dtype = value.scalar_type(), acc = accumulate_type(dtype);
  const std::int64_t H = t.num_heads, F = t.value_channels;
  const at::Tensor out = t.empty({t.num_dst, H, F}, dtype), lse = t.empty({t.num_dst, H}, acc);
  const at::Tensor out_acc = dtype == acc ? t.empty({0}, acc) : t.empty({t.num_dst, H, F}, acc);
  const at::Tensor selected = top_k > 0 ? t.empty({t.num_edges, H}, at::kByte) : t.empty({0}, at::kByte);
  const at::Tensor weights = return_weights ? t.empty({t.num_edges, H}, dtype) : t.empty({0}, dtype);

  with_storage_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto k = kernels<T>(t.score);
    cpu::EdgeAttentionForward<T> args;
    args.in = kernel_inputs<T>(t, {edge_in_value, negative_slope, scale, dropout_p}, seed);
    if (top_k > 0) {
      k.select_top_k(args.in, top_k, mutable_data<std::uint8_t>(selected));
      args.in.selected = data<std::uint8_t>(selected);
    }
    args.out = mutable_data<T>(out);
    args.lse = mutable_data<Acc<T>>(lse);
    args.out_acc = dtype == acc ? nullptr : mutable_data<Acc<T>>(out_acc);
    k.forward(args);
    if (return_weights) k.weights(args.in, args.lse, mutable_data<T>(weights));
  });
  return {out, lse, out_acc, selected, weights};
}

using Gradients =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

Gradients edge_attention_backward(const at::Tensor& rowptr, const at::Tensor& col, const OptionalTensor& edge_id,
                                  const OptionalTensor& t_rowptr, const OptionalTensor& t_col, const OptionalTensor& t_pos,
                                  const OptionalTensor& t_edge_id, const at::Tensor& value, const OptionalTensor& query,
                                  const OptionalTensor& key, const OptionalTensor& att, const OptionalTensor& dst_term,
                                  const OptionalTensor& src_term, const OptionalTensor& edge_term, const OptionalTensor& bias,
                                  const OptionalTensor& edge_feat, const OptionalTensor& seed, std::string_view score,
                                  bool edge_in_value, double negative_slope, double scale, double dropout_p,
                                  const at::Tensor& grad_out, const OptionalTensor& grad_lse, const OptionalTensor& grad_weights,
                                  const at::Tensor& out_acc, const at::Tensor& lse, const at::Tensor& selected,
                                  const at::Tensor& weights, c10::List<bool> needs_grad) {
  const EdgeAttentionTensors t(rowptr, col, edge_id, value, {query, key, att, dst_term, src_term, edge_term, bias, edge_feat},
                               score, edge_in_value);
  TORCH_CHECK_VALUE(t_rowptr.has_value() && t_col.has_value() && t_pos.has_value(), "the gradient needs the transposed graph");
  TORCH_CHECK_VALUE(needs_grad.size() == kNumInputs, "needs_grad must have ", int{kNumInputs}, " elements");
  check_shape(*t_rowptr, {t.num_src + 1}, "t_rowptr");
  check_shape(*t_col, {t.num_edges}, "t_col");
  const std::int64_t H = t.num_heads, F = t.value_channels;
  const at::ScalarType dtype = value.scalar_type(), acc = accumulate_type(dtype);
  const at::Tensor g = prepare(grad_out, {t.num_dst, H, F}, value, "grad_out");
  const at::Tensor r = prepare(grad_weights, {t.num_edges, H}, value, "grad_weights");
  const at::Tensor q = prepare(grad_lse, {t.num_dst, H}, lse, "grad_lse");
  const at::Tensor o = prepare(out_acc, {t.num_dst, H, F}, lse, "out_acc");
  const at::Tensor delta = t.empty({t.num_dst, H}, acc), edge_grad = t.empty({t.num_edges, H}, acc);
  const at::Tensor edge_weight = t.score.has_term ? t.empty({t.num_edges, H}, acc) : at::Tensor();

  std::array<at::Tensor, kNumInputs> grad;
  for (int i = 0; i < kNumInputs; ++i) {
    const bool needed = needs_grad[static_cast<std::size_t>(i)] && t.input[static_cast<std::size_t>(i)].defined();
    grad[static_cast<std::size_t>(i)] = needed ? at::empty_like(t.input[static_cast<std::size_t>(i)]) : at::Tensor();
  }
  with_storage_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto k = kernels<T>(t.score);
    cpu::EdgeAttentionBackward<T> args;
    args.in = kernel_inputs<T>(t, {edge_in_value, negative_slope, scale, dropout_p}, seed);
    if (selected.numel() > 0) args.in.selected = data<std::uint8_t>(selected);
    args.transpose = csr_view(*t_rowptr, *t_col, t_edge_id.has_value() ? t_edge_id : t_pos);
    args.position = index_array(*t_pos, "t_pos");
    args.grad_out = data<T>(g), args.grad_weights = data<T>(r);
    args.lse = data<Acc<T>>(lse), args.delta = data<Acc<T>>(delta);
    args.edge_grad = mutable_data<Acc<T>>(edge_grad), args.edge_weight = mutable_data<Acc<T>>(edge_weight);
    args.grad_query = mutable_data<T>(grad[kQuery]), args.grad_key = mutable_data<T>(grad[kKey]);
    args.grad_value = mutable_data<T>(grad[kValue]), args.grad_att = mutable_data<T>(grad[kAtt]);
    args.grad_dst_term = mutable_data<T>(grad[kDstTerm]), args.grad_src_term = mutable_data<T>(grad[kSrcTerm]);
    args.grad_edge_term = mutable_data<T>(grad[kEdgeTerm]), args.grad_bias = mutable_data<T>(grad[kBias]);
    args.grad_edge_feat = mutable_data<T>(grad[kEdgeFeat]);
    k.delta(args.in, args.grad_out, data<Acc<T>>(o), args.grad_weights, data<T>(weights), data<Acc<T>>(q),
            mutable_data<Acc<T>>(delta));
    k.backward(args);
  });
  for (auto& tensor : grad) {
    if (!tensor.defined()) tensor = t.empty({0}, dtype);
  }
  return std::tuple_cat(grad);
}

}  // namespace

TORCH_LIBRARY_IMPL(gat_ext, CPU, m) {
  m.impl("edge_attention", &edge_attention);
  m.impl("edge_attention_backward", &edge_attention_backward);
}

}  // namespace gat::binding
