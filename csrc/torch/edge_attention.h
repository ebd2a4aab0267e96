// edge_attention and its backward, written once for every device: checks, outputs, and what the kernels take.
//
// A device is a type with
//   Device(tensor)                          makes the device current while it lives
//   kSharesGradients                        whether gradients of query, key and value may be one tensor, their sum
//   select_top_k<T>, forward<T>, weights<T>, delta<T>, backward<T>   run the kernels of one storage type
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <array>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "../core/edge_attention.h"
#include "../core/scores/all.h"
#include "allocate.h"
#include "checks.h"
#include "dispatch.h"

namespace gat::binding {

// What a score reads, by its index in Scores.
struct ScoreTraits {
  int index;
  bool has_term, has_weight, has_node_terms;
};

template <class... Ss>
ScoreTraits find_score(TypeList<Ss...>, std::string_view name) {
  std::optional<ScoreTraits> found;
  int index = 0;
  ((found = name == Ss::name ? ScoreTraits{index, Ss::has_term, Ss::has_weight, Ss::has_node_terms} : found, ++index), ...);
  TORCH_CHECK_VALUE(found.has_value(), "unknown score '", name, "'");
  return *found;
}

// The differentiable inputs, in the order in which their gradients are returned.
enum Input { kValue, kQuery, kKey, kAtt, kDstTerm, kSrcTerm, kEdgeTerm, kBias, kEdgeFeat, kNumInputs };

// Contiguous, checked inputs; an absent one is undefined.
struct EdgeAttentionTensors {
  ScoreTraits score;
  at::Tensor rowptr, col;
  OptionalTensor edge_id;
  std::array<at::Tensor, kNumInputs> input;
  std::array<bool, kNumInputs> shared{};  // whether an input is the value
  std::int64_t num_dst, num_src, num_edges, num_heads, value_channels, score_channels;

  const at::Tensor& value() const { return input[kValue]; }
  at::Tensor empty(at::IntArrayRef shape, at::ScalarType dtype) const { return allocate(shape, value().options().dtype(dtype)); }

  EdgeAttentionTensors(const at::Tensor& rowptr_, const at::Tensor& col_, const OptionalTensor& edge_id_, const at::Tensor& value,
                       const std::array<OptionalTensor, kNumInputs - 1>& others, std::string_view score_name, bool edge_in_value)
      : score(find_score(Scores{}, score_name)), rowptr(rowptr_), col(col_), edge_id(edge_id_) {
    TORCH_CHECK_VALUE(value.dim() == 3, "value must be [N_src, H, F]; it has shape ", value.sizes());
    const auto& [query, key, att, dst_term, src_term, edge_term, bias, edge_feat] = others;
    TORCH_CHECK_VALUE(!score.has_weight || att.has_value(), "score '", score_name, "' needs att");
    TORCH_CHECK_VALUE(!score.has_node_terms || (dst_term.has_value() && src_term.has_value()), "score '", score_name,
                      "' needs dst_term and src_term");
    TORCH_CHECK_VALUE(score.has_term || !edge_feat.has_value(), "score '", score_name, "' takes no edge_feat");
    num_dst = rowptr.numel() - 1, num_src = value.size(0), num_edges = col.numel();
    num_heads = value.size(1), value_channels = value.size(2);
    score_channels = !score.has_term ? 0 : query.has_value() ? query->size(-1) : value_channels;
    const std::int64_t H = num_heads, D = score_channels;
    TORCH_CHECK_VALUE(!edge_in_value || (edge_feat.has_value() && D == value_channels),
                      "edge_in_value needs edge_feat with as many channels as value");
    input = {prepare(value, {num_src, H, value_channels}, value, "value"),
             prepare(query, {num_dst, H, D}, value, "query"),
             prepare(key, {num_src, H, D}, value, "key"),
             prepare(att, {H, D}, value, "att"),
             prepare(dst_term, {num_dst, H}, value, "dst_term"),
             prepare(src_term, {num_src, H}, value, "src_term"),
             prepare(edge_term, {num_edges, H}, value, "edge_term"),
             prepare(bias, {num_edges, H}, value, "bias"),
             prepare(edge_feat, {num_edges, H, D}, value, "edge_feat")};
    // Where a score reads a query or a key and none is given, it is the value; its gradient is a part of that of the value.
    shared[kQuery] = score.has_term && !query.has_value(), shared[kKey] = score.has_term && !key.has_value();
    TORCH_CHECK_VALUE(!shared[kQuery] || num_dst == num_src, "without a query, sources and destinations must be the same");
    TORCH_CHECK_VALUE(!(shared[kQuery] || shared[kKey]) || D == value_channels,
                      "without a query or a key, the other one must have ", value_channels, " channels as value; it has ", D);
    for (const Input i : {kQuery, kKey}) {
      if (shared[i]) input[i] = input[kValue];
    }
  }
};

// The numbers of edge attention.
struct EdgeAttentionOptions {
  bool edge_in_value;
  double negative_slope, scale, dropout_p;
};

template <class T>
EdgeAttentionInputs<T> kernel_inputs(const EdgeAttentionTensors& t, const EdgeAttentionOptions& options,
                                     const OptionalTensor& seed) {
  EdgeAttentionInputs<T> in;
  in.csr = csr_view(t.rowptr, t.col, t.edge_id, t.num_edges, t.value().device());
  in.num_heads = t.num_heads, in.score_channels = t.score_channels, in.value_channels = t.value_channels;
  in.query = data<T>(t.input[kQuery]), in.key = data<T>(t.input[kKey]), in.value = data<T>(t.input[kValue]);
  in.att = data<T>(t.input[kAtt]);
  in.dst_term = data<T>(t.input[kDstTerm]), in.src_term = data<T>(t.input[kSrcTerm]);
  in.edge_term = data<T>(t.input[kEdgeTerm]), in.bias = data<T>(t.input[kBias]);
  in.edge_feat = data<T>(t.input[kEdgeFeat]), in.edge_in_value = options.edge_in_value;
  in.params = {static_cast<Acc<T>>(options.negative_slope), static_cast<Acc<T>>(options.scale)};
  in.dropout = make_dropout(seed, options.dropout_p, t.value().device());
  in.num_threads = at::get_num_threads();
  return in;
}

// The elements of softmax [N_dst, H, 2].
template <class T>
RowSoftmax<Acc<T>>* row_softmax(const at::Tensor& softmax) {
  static_assert(sizeof(RowSoftmax<Acc<T>>) == 2 * sizeof(Acc<T>));
  return static_cast<RowSoftmax<Acc<T>>*>(softmax.mutable_data_ptr());
}

template <class Device>
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> edge_attention(
    const at::Tensor& rowptr, const at::Tensor& col, const OptionalTensor& edge_id, const OptionalTensor& t_rowptr,
    const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const at::Tensor& value, const OptionalTensor& query,
    const OptionalTensor& key, const OptionalTensor& att, const OptionalTensor& dst_term, const OptionalTensor& src_term,
    const OptionalTensor& edge_term, const OptionalTensor& bias, const OptionalTensor& edge_feat, const OptionalTensor& seed,
    std::string_view score, bool edge_in_value, double negative_slope, double scale, double dropout_p, std::int64_t top_k,
    bool return_weights, bool return_lse) {
  const EdgeAttentionTensors t(rowptr, col, edge_id, value, {query, key, att, dst_term, src_term, edge_term, bias, edge_feat},
                               score, edge_in_value);
  Device device(value);
  const at::ScalarType dtype = value.scalar_type(), acc = accumulate_type(dtype);
  const std::int64_t H = t.num_heads, F = t.value_channels;
  const at::Tensor out = t.empty({t.num_dst, H, F}, dtype), softmax = t.empty({t.num_dst, H, 2}, acc);
  const at::Tensor lse = return_lse ? t.empty({t.num_dst, H}, acc) : t.empty({0}, acc);
  // Only the backward reads it, and only with the transposed graph is there one.
  const bool keep_acc = dtype != acc && t_rowptr.has_value();
  const at::Tensor out_acc = keep_acc ? t.empty({t.num_dst, H, F}, acc) : t.empty({0}, acc);
  const at::Tensor selected = top_k > 0 ? t.empty({t.num_edges, H}, at::kByte) : t.empty({0}, at::kByte);
  const at::Tensor weights = return_weights ? t.empty({t.num_edges, H}, dtype) : t.empty({0}, dtype);

  with_storage_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    EdgeAttentionForward<T> args;
    args.in = kernel_inputs<T>(t, {edge_in_value, negative_slope, scale, dropout_p}, seed);
    if (top_k > 0) {
      device.template select_top_k<T>(t, args.in, top_k, mutable_data<std::uint8_t>(selected));
      args.in.selected = data<std::uint8_t>(selected);
    }
    args.out = mutable_data<T>(out);
    args.softmax = row_softmax<T>(softmax);
    args.lse = return_lse ? mutable_data<Acc<T>>(lse) : nullptr;
    args.out_acc = keep_acc ? mutable_data<Acc<T>>(out_acc) : nullptr;
    device.template forward<T>(t, args);
    if (return_weights) device.template weights<T>(t, args.in, args.softmax, mutable_data<T>(weights));
  });
  return {out, lse, softmax, out_acc, selected, weights};
}

using Gradients =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

template <class Device>
Gradients edge_attention_backward(const at::Tensor& rowptr, const at::Tensor& col, const OptionalTensor& edge_id,
                                  const OptionalTensor& t_rowptr, const OptionalTensor& t_col, const OptionalTensor& t_pos,
                                  const OptionalTensor& t_edge_id, const at::Tensor& value, const OptionalTensor& query,
                                  const OptionalTensor& key, const OptionalTensor& att, const OptionalTensor& dst_term,
                                  const OptionalTensor& src_term, const OptionalTensor& edge_term, const OptionalTensor& bias,
                                  const OptionalTensor& edge_feat, const OptionalTensor& seed, std::string_view score,
                                  bool edge_in_value, double negative_slope, double scale, double dropout_p,
                                  const at::Tensor& grad_out, const OptionalTensor& grad_lse, const OptionalTensor& grad_weights,
                                  const at::Tensor& out_acc, const at::Tensor& softmax, const at::Tensor& selected,
                                  const at::Tensor& weights, c10::List<bool> needs_grad) {
  const EdgeAttentionTensors t(rowptr, col, edge_id, value, {query, key, att, dst_term, src_term, edge_term, bias, edge_feat},
                               score, edge_in_value);
  TORCH_CHECK_VALUE(t_rowptr.has_value() && t_col.has_value() && t_pos.has_value(), "the gradient needs the transposed graph");
  TORCH_CHECK_VALUE(needs_grad.size() == kNumInputs, "needs_grad must have ", int{kNumInputs}, " elements");
  check_shape(*t_rowptr, {t.num_src + 1}, "t_rowptr");
  check_shape(*t_col, {t.num_edges}, "t_col");
  check_shape(*t_pos, {t.num_edges}, "t_pos");
  check_device(*t_pos, value.device(), "t_pos");
  Device device(value);
  const std::int64_t H = t.num_heads, F = t.value_channels;
  const at::ScalarType dtype = value.scalar_type(), acc = accumulate_type(dtype);
  const at::Tensor g = prepare(grad_out, {t.num_dst, H, F}, value, "grad_out");
  const at::Tensor r = prepare(grad_weights, {t.num_edges, H}, value, "grad_weights");
  const at::Tensor l = softmax.contiguous();
  TORCH_CHECK_TYPE(l.scalar_type() == acc, "softmax has dtype ", l.scalar_type(), "; expected ", acc);
  check_shape(l, {t.num_dst, H, 2}, "softmax");
  const at::Tensor chosen = selected.contiguous(), w = weights.contiguous();
  const at::Tensor q = prepare(grad_lse, {t.num_dst, H}, softmax, "grad_lse");
  const at::Tensor o = prepare(out_acc, {t.num_dst, H, F}, softmax, "out_acc");
  const at::Tensor delta = t.empty({t.num_dst, H}, acc);

  std::array<at::Tensor, kNumInputs> grad;
  for (int i = 0; i < kNumInputs; ++i) {
    const auto k = static_cast<std::size_t>(i);
    const bool needed = needs_grad[t.shared[k] ? std::size_t{kValue} : k] && t.input[k].defined();
    if (needed) grad[k] = t.shared[k] && Device::kSharesGradients ? grad[kValue] : allocate_like(t.input[k]);
  }
  with_storage_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    EdgeAttentionBackward<T> args;
    args.in = kernel_inputs<T>(t, {edge_in_value, negative_slope, scale, dropout_p}, seed);
    if (chosen.numel() > 0) args.in.selected = data<std::uint8_t>(chosen);
    args.transpose = csr_view(*t_rowptr, *t_col, t_edge_id.has_value() ? t_edge_id : t_pos, t.num_edges, value.device());
    args.position = index_array(*t_pos, "t_pos");
    args.grad_out = data<T>(g), args.grad_weights = data<T>(r);
    args.softmax = row_softmax<T>(l), args.delta = data<Acc<T>>(delta);
    args.grad_query = mutable_data<T>(grad[kQuery]), args.grad_key = mutable_data<T>(grad[kKey]);
    args.grad_value = mutable_data<T>(grad[kValue]), args.grad_att = mutable_data<T>(grad[kAtt]);
    args.grad_dst_term = mutable_data<T>(grad[kDstTerm]), args.grad_src_term = mutable_data<T>(grad[kSrcTerm]);
    args.grad_edge_term = mutable_data<T>(grad[kEdgeTerm]), args.grad_bias = mutable_data<T>(grad[kBias]);
    args.grad_edge_feat = mutable_data<T>(grad[kEdgeFeat]);
    device.template delta<T>(t, args.in, args.grad_out, data<Acc<T>>(o), args.grad_weights, data<T>(w), data<Acc<T>>(q),
                             mutable_data<Acc<T>>(delta));
    device.template backward<T>(t, args, grad[kAtt]);
  });
  for (int i = 0; i < kNumInputs; ++i) {
    auto& tensor = grad[static_cast<std::size_t>(i)];
    if (t.shared[static_cast<std::size_t>(i)]) {
      if (tensor.defined() && !Device::kSharesGradients) grad[kValue].add_(tensor);
      tensor.reset();
    }
    if (!tensor.defined()) tensor = t.empty({0}, dtype);
  }
  return std::tuple_cat(grad);
}

// Registers the operators under the dispatch key of m.
template <class Device>
void register_edge_attention(torch::Library& m) {
  m.impl("edge_attention", &edge_attention<Device>);
  m.impl("edge_attention_backward", &edge_attention_backward<Device>);
}

}  // namespace gat::binding
