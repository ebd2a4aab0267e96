// edge_attention and its backward, written once for every device: checks, outputs, and the
// arguments of the kernels.
//
// A device is a type with
//   Device(tensor)          makes the device current during its lifetime
//   kSharesGradients        true if gradients of query, key and value may be one tensor, their sum
//   kKeepsScores            true if weights reads the scores that forward wrote
//   kDeltaWords             numbers that delta writes per destination and head
//   select_top_k<T>, forward<T>, weights<T>, delta<T>, backward<T>
//                           run the kernels of one storage type
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <c10/util/SmallVector.h>
#include <torch/library.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "../core/edge_attention.h"
#include "../core/scores/all.h"
#include "allocate.h"
#include "checks.h"
#include "dispatch.h"
#include "schema.h"
#include "threads.h"

namespace gat::binding {

// The index of a score in Scores, and its traits.
struct ScoreTraits {
  int index;
  bool has_term, has_weight, has_node_terms, is_product;
};

template <class... Ss>
ScoreTraits find_score(TypeList<Ss...>, std::string_view name) {
  std::optional<ScoreTraits> found;
  int index = 0;
  ((found = name == Ss::name ? ScoreTraits{index, Ss::has_term, Ss::has_weight, Ss::has_node_terms,
                                           kIsProduct<Ss>}
                             : found,
    ++index),
   ...);
  TORCH_CHECK_VALUE(found.has_value(), "score is '", name, "'; expected one of",
                    (" " + std::string(Ss::name))...);
  return *found;
}

// Contiguous, checked inputs; an absent one is undefined.
struct EdgeAttentionTensors {
  ScoreTraits score;
  at::Tensor rowptr, col;
  OptionalTensor edge_id;
  at::Tensor rest;        // int64, the edges that belong to no row; undefined if all do
  bool has_rest = false;  // true, too, where the host cannot know them
  std::array<at::Tensor, kNumInputs> input;
  std::array<bool, kNumInputs> shared{};  // true for a query or key that is the value
  std::int64_t num_dst, num_src, num_edges, num_heads, value_channels, score_channels;
  std::int64_t edge_channels = 0;
  std::int64_t largest_row = -1, largest_column = -1;  // -1: unknown
  // True if out_acc has two parts, of [N_dst, H, F] and [N_dst, H, K], one after the other: the
  // sums of v and of e. A device may write that of v + W e to the first and leave the other.
  bool splits_sums = false;
  at::Tensor edge_map;  // in the layout and dtype that the kernels read

  const at::Tensor& value() const { return input[kValue]; }
  // The sizes that the letters of an InputSchema stand for.
  c10::SmallVector<std::int64_t, 3> shape(std::string_view dims) const {
    c10::SmallVector<std::int64_t, 3> sizes;
    for (const char dim : dims) {
      sizes.push_back(dim == 'n'   ? num_dst
                      : dim == 'm' ? num_src
                      : dim == 'E' ? num_edges
                      : dim == 'H' ? num_heads
                      : dim == 'D' ? score_channels
                      : dim == 'K' ? edge_channels
                                   : value_channels);
    }
    return sizes;
  }
  std::int64_t acc_channels() const { return value_channels + (splits_sums ? edge_channels : 0); }
  at::Tensor empty(at::IntArrayRef shape, at::ScalarType dtype) const {
    return allocate(shape, value().options().dtype(dtype));
  }
  // [E, ...], 0 for the edges that no kernel visits.
  at::Tensor empty_of_edges(at::IntArrayRef shape, at::ScalarType dtype) const {
    at::Tensor by_edge = empty(shape, dtype);
    if (rest.defined()) return by_edge.index_fill_(0, rest, 0);
    return has_rest ? by_edge.zero_() : by_edge;
  }

  // [padded_terms(K), H, D], in the dtype of the accumulation.
  at::Tensor empty_edge_map() const {
    return empty({padded_terms(edge_channels), num_heads, score_channels},
                 accumulate_type(value().scalar_type()));
  }
  // Its part [H, D, K].
  at::Tensor of_edge_map(const at::Tensor& padded) const {
    return padded.narrow(0, 0, edge_channels).permute({1, 2, 0});
  }

  EdgeAttentionTensors(const SortedGraph& graph, const Inputs& inputs, const Constants& constants)
      : score(find_score(Scores{}, constants.score)),
        rowptr(graph.rowptr),
        col(graph.col),
        edge_id(graph.edge_id) {
    for (std::size_t i = 0; i < kNumInputs; ++i) input[i] = inputs[Input(i)];
    const auto given = [&](Input i) { return input[i].defined(); };
    TORCH_CHECK_VALUE(value().dim() == 3, "value has shape ", value().sizes(),
                      "; expected [N_src, H, F]");
    check_device(rowptr, value().device(), "rowptr");
    TORCH_CHECK_VALUE(!score.has_weight || given(kAtt), "score '", constants.score, "' needs att");
    TORCH_CHECK_VALUE(!score.has_node_terms || (given(kDstTerm) && given(kSrcTerm)), "score '",
                      constants.score, "' needs dst_term and src_term");
    const auto unused = [&](bool read, Input i) {
      TORCH_CHECK_VALUE(read || !given(i), "score '", constants.score, "' does not use ",
                        kInputs[i].name);
    };
    unused(score.has_term, kQuery);
    unused(score.has_term, kKey);
    unused(score.has_term, kEdgeFeat);
    unused(score.has_term, kEdgeAttr);
    unused(score.has_weight, kAtt);
    unused(score.has_node_terms, kDstTerm);
    unused(score.has_node_terms, kSrcTerm);
    unused(score.has_node_terms, kEdgeTerm);
    num_dst = rowptr.numel() - 1, num_src = value().size(0), num_edges = col.numel();
    num_heads = value().size(1), value_channels = value().size(2);
    score_channels = !score.has_term ? 0 : given(kQuery) ? input[kQuery].size(-1) : value_channels;
    const std::int64_t D = score_channels;
    TORCH_CHECK_VALUE(
        given(kEdgeAttr) == given(kEdgeMap) && !(given(kEdgeFeat) && given(kEdgeAttr)),
        "edge_attr and edge_map go together, in place of edge_feat");
    TORCH_CHECK_VALUE(
        !constants.edge_in_value || ((given(kEdgeFeat) || given(kEdgeAttr)) && D == value_channels),
        "edge_in_value needs edge features with as many channels as value");
    if (given(kEdgeAttr)) edge_channels = input[kEdgeAttr].size(-1);
    splits_sums = edge_channels > 0 && constants.edge_in_value && score.is_product;
    const at::Tensor like = value();
    for (std::size_t i = 0; i < kNumInputs; ++i) {
      if (input[i].defined())
        input[i] = prepare(input[i], shape(kInputs[i].dims), like, kInputs[i].name);
    }
    if (given(kEdgeMap)) {
      edge_map = empty_edge_map().zero_();
      of_edge_map(edge_map).copy_(input[kEdgeMap]);
    }
    // Where a score reads a query or a key and none is given, the value takes its place, and its
    // gradient is added to that of the value.
    shared[kQuery] = score.has_term && !given(kQuery),
    shared[kKey] = score.has_term && !given(kKey);
    TORCH_CHECK_VALUE(
        !shared[kQuery] || num_dst == num_src,
        "without a query, the numbers of sources and destinations must be equal; they are ",
        num_src, " and ", num_dst);
    TORCH_CHECK_VALUE(!(shared[kQuery] || shared[kKey]) || D == value_channels,
                      "without a query or a key, the other one must have the ", value_channels,
                      " channels of value; it has ", D);
    if (graph.degrees.has_value()) {
      read_degrees(*graph.degrees);
    } else {
      find_rest();
    }
    for (const Input i : {kQuery, kKey}) {
      if (shared[i]) input[i] = input[kValue];
    }
  }

 private:
  void read_degrees(const at::Tensor& degrees) {
    check_shape(degrees, {2}, "degrees");
    TORCH_CHECK_TYPE(
        degrees.is_cpu() && degrees.scalar_type() == at::kLong && degrees.is_contiguous(),
        "degrees is ", degrees.scalar_type(), " on ", degrees.device(),
        "; expected contiguous int64 on the CPU");
    largest_row = degrees.const_data_ptr<std::int64_t>()[0];
    largest_column = degrees.const_data_ptr<std::int64_t>()[1];
  }
  void find_rest() {
    has_rest = !rowptr.is_cpu();
    const bool has_form = rowptr.scalar_type() == at::kLong && rowptr.is_contiguous();
    if (has_rest || num_dst < 0 || !has_form) return;  // csr_view refuses another form
    const std::int64_t begin = rowptr.const_data_ptr<std::int64_t>()[num_dst];
    if (begin == num_edges) return;
    has_rest = true;
    rest = edge_id.has_value() ? edge_id->slice(0, begin).to(at::kLong)
                               : at::arange(begin, num_edges, rowptr.options());
  }
};

// Gradients that a device may sum with torch's operators; undefined where not needed. That of the
// map is in the layout of EdgeAttentionTensors::edge_map.
struct SummedGradients {
  at::Tensor att, edge_attr, edge_map;
};

template <class T>
EdgeAttentionInputs<T> kernel_inputs(const EdgeAttentionTensors& t, const Constants& constants,
                                     const Inputs& inputs) {
  EdgeAttentionInputs<T> in;
  in.csr = csr_view(t.rowptr, t.col, t.edge_id, t.num_edges, t.value().device());
  in.num_heads = t.num_heads, in.score_channels = t.score_channels,
  in.value_channels = t.value_channels;
  in.query = data<T>(t.input[kQuery]), in.key = data<T>(t.input[kKey]),
  in.value = data<T>(t.input[kValue]);
  in.att = data<T>(t.input[kAtt]);
  in.dst_term = data<T>(t.input[kDstTerm]), in.src_term = data<T>(t.input[kSrcTerm]);
  in.edge_term = data<T>(t.input[kEdgeTerm]), in.bias = data<T>(t.input[kBias]);
  in.edge_feat = data<T>(t.input[kEdgeFeat]), in.edge_in_value = constants.edge_in_value;
  in.edge_channels = t.edge_channels;
  in.edge_attr = data<T>(t.input[kEdgeAttr]), in.edge_map = data<Acc<T>>(t.edge_map);
  in.params = {static_cast<Acc<T>>(constants.negative_slope), static_cast<Acc<T>>(constants.scale)};
  in.dropout = make_dropout(inputs.seed, constants.dropout_p, t.value().device(),
                            inputs.edge_number, t.num_edges);
  in.num_threads = num_threads();
  return in;
}

// The elements of softmax [N_dst, H, 2].
template <class T>
RowSoftmax<Acc<T>>* row_softmax(const at::Tensor& softmax) {
  static_assert(sizeof(RowSoftmax<Acc<T>>) == 2 * sizeof(Acc<T>));
  return static_cast<RowSoftmax<Acc<T>>*>(softmax.mutable_data_ptr());
}

template <class Device>
Attention edge_attention(const SortedGraph& graph, const Inputs& inputs, const Constants& constants,
                         const Wanted& wanted) {
  const EdgeAttentionTensors t(graph, inputs, constants);
  const auto [top_k, return_weights, return_lse] = wanted;
  const at::Tensor& value = inputs.value;
  Device device(value);
  const at::ScalarType dtype = value.scalar_type(), acc = accumulate_type(dtype);
  const std::int64_t H = t.num_heads, F = t.value_channels;
  const at::Tensor out = t.empty({t.num_dst, H, F}, dtype),
                   softmax = t.empty({t.num_dst, H, 2}, acc);
  const at::Tensor lse = return_lse ? t.empty({t.num_dst, H}, acc) : t.empty({0}, acc);
  // Only the backward reads it, and without the transposed graph there is no backward.
  const bool keep_acc = (dtype != acc || t.splits_sums) && graph.t_rowptr.has_value();
  const at::Tensor out_acc =
      keep_acc ? t.empty({t.num_dst, H, t.acc_channels()}, acc) : t.empty({0}, acc);
  at::Tensor selected = t.empty({0}, at::kByte);
  if (top_k > 0) selected = t.empty({t.num_edges, H}, at::kByte);
  if (top_k > 0 && t.has_rest) selected.zero_();
  const at::Tensor weights =
      return_weights ? t.empty_of_edges({t.num_edges, H}, dtype) : t.empty({0}, dtype);

  with_storage_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    EdgeAttentionForward<T> args;
    args.in = kernel_inputs<T>(t, constants, inputs);
    if (top_k > 0) {
      device.template select_top_k<T>(t, args.in, top_k, mutable_data<std::uint8_t>(selected));
      args.in.selected = data<std::uint8_t>(selected);
    }
    args.out = mutable_data<T>(out);
    args.softmax = row_softmax<T>(softmax);
    args.lse = return_lse ? mutable_data<Acc<T>>(lse) : nullptr;
    args.out_acc = keep_acc ? mutable_data<Acc<T>>(out_acc) : nullptr;
    if (keep_acc && t.splits_sums) args.edge_sums = args.out_acc + out.numel();
    at::Tensor scores;
    if (return_weights && Device::kKeepsScores) scores = t.empty({t.num_edges, H}, acc);
    args.scores = mutable_data<Acc<T>>(scores);
    device.template forward<T>(t, args);
    if (return_weights) device.template weights<T>(t, args, mutable_data<T>(weights));
  });
  return {out, lse, softmax, out_acc, selected, weights};
}

template <class Device>
Gradients edge_attention_backward(const SortedGraph& graph, const Inputs& inputs,
                                  const Constants& constants, const Upstream& upstream) {
  const EdgeAttentionTensors t(graph, inputs, constants);
  const at::Tensor &value = inputs.value, &softmax = upstream.softmax;
  const auto& [t_rowptr, t_col, t_pos] = std::tie(graph.t_rowptr, graph.t_col, graph.t_pos);
  const c10::List<bool>& needs_grad = upstream.needs_grad;
  TORCH_CHECK_VALUE(t_rowptr.has_value() && t_col.has_value() && t_pos.has_value(),
                    "the gradient needs t_rowptr, t_col and t_pos, the transposed graph");
  TORCH_CHECK_VALUE(needs_grad.size() == kNumInputs, "needs_grad has ", needs_grad.size(),
                    " elements; expected ", std::size_t{kNumInputs});
  check_shape(*t_rowptr, {t.num_src + 1}, "t_rowptr");
  check_shape(*t_col, {t.num_edges}, "t_col");
  check_shape(*t_pos, {t.num_edges}, "t_pos");
  check_device(*t_pos, value.device(), "t_pos");
  Device device(value);
  const std::int64_t H = t.num_heads, F = t.value_channels;
  const at::ScalarType dtype = value.scalar_type(), acc = accumulate_type(dtype);
  const at::Tensor g = prepare(upstream.grad_out, {t.num_dst, H, F}, value, "grad_out");
  const at::Tensor r = prepare(upstream.grad_weights, {t.num_edges, H}, value, "grad_weights");
  const at::Tensor l = softmax.contiguous();
  TORCH_CHECK_TYPE(l.scalar_type() == acc, "softmax has dtype ", l.scalar_type(), "; expected ",
                   acc);
  check_shape(l, {t.num_dst, H, 2}, "softmax");
  const at::Tensor chosen = upstream.selected.contiguous(), w = upstream.weights.contiguous();
  const at::Tensor q = prepare(upstream.grad_lse, {t.num_dst, H}, softmax, "grad_lse");
  const at::Tensor o =
      prepare(upstream.out_acc, {t.num_dst, H, t.acc_channels()}, softmax, "out_acc");
  const at::Tensor delta = t.empty({t.num_dst, H, Device::kDeltaWords}, acc);

  std::array<at::Tensor, kNumInputs> grad;
  for (std::size_t i = 0; i < kNumInputs; ++i) {
    const bool needed = needs_grad[t.shared[i] ? std::size_t{kValue} : i] && t.input[i].defined();
    if (!needed) continue;
    if (t.shared[i] && Device::kSharesGradients) {
      grad[i] = grad[kValue];
    } else {
      grad[i] = kInputs[i].is_per_edge() ? t.empty_of_edges(t.input[i].sizes(), dtype)
                                         : allocate_like(t.input[i]);
    }
  }
  at::Tensor grad_edge_map;
  if (grad[kEdgeMap].defined()) grad_edge_map = t.empty_edge_map();
  with_storage_type(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    EdgeAttentionBackward<T> args;
    args.in = kernel_inputs<T>(t, constants, inputs);
    if (!is_absent(chosen)) args.in.selected = data<std::uint8_t>(chosen);
    args.transpose =
        csr_view(*t_rowptr, *t_col, graph.t_edge_id.has_value() ? graph.t_edge_id : t_pos,
                 t.num_edges, value.device());
    args.position = index_array(*t_pos, "t_pos");
    args.grad_out = data<T>(g), args.grad_weights = data<T>(r);
    args.softmax = row_softmax<T>(l), args.delta = data<Acc<T>>(delta);
    args.grad_query = mutable_data<T>(grad[kQuery]), args.grad_key = mutable_data<T>(grad[kKey]);
    args.grad_value = mutable_data<T>(grad[kValue]), args.grad_att = mutable_data<T>(grad[kAtt]);
    args.grad_dst_term = mutable_data<T>(grad[kDstTerm]),
    args.grad_src_term = mutable_data<T>(grad[kSrcTerm]);
    args.grad_edge_term = mutable_data<T>(grad[kEdgeTerm]),
    args.grad_bias = mutable_data<T>(grad[kBias]);
    args.grad_edge_feat = mutable_data<T>(grad[kEdgeFeat]);
    args.grad_edge_attr = mutable_data<T>(grad[kEdgeAttr]);
    args.grad_edge_map = mutable_data<Acc<T>>(grad_edge_map);
    device.template delta<T>(t, args, data<Acc<T>>(o),
                             t.splits_sums ? data<Acc<T>>(o) + g.numel() : nullptr, data<T>(w),
                             data<Acc<T>>(q), mutable_data<Acc<T>>(delta));
    device.template backward<T>(t, args, {grad[kAtt], grad[kEdgeAttr], grad_edge_map});
  });
  if (grad_edge_map.defined()) grad[kEdgeMap].copy_(t.of_edge_map(grad_edge_map));
  for (std::size_t i = 0; i < kNumInputs; ++i) {
    at::Tensor& tensor = grad[i];
    if (t.shared[i]) {
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
  m.impl("edge_attention", &ops::EdgeAttention::flat<&edge_attention<Device>>);
  m.impl("edge_attention_backward",
         &ops::EdgeAttentionBackward::flat<&edge_attention_backward<Device>>);
}

}  // namespace gat::binding
