// The tensor arguments of edge attention, checked once for every device.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "../core/philox.h"
#include "../core/scores/all.h"
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
  std::int64_t num_dst, num_src, num_edges, num_heads, value_channels, score_channels;

  const at::Tensor& value() const { return input[kValue]; }
  at::Tensor empty(at::IntArrayRef shape, at::ScalarType dtype) const { return at::empty(shape, value().options().dtype(dtype)); }

  EdgeAttentionTensors(const at::Tensor& rowptr_, const at::Tensor& col_, const OptionalTensor& edge_id_, const at::Tensor& value,
                       const std::array<OptionalTensor, kNumInputs - 1>& others, std::string_view score_name, bool edge_in_value)
      : score(find_score(Scores{}, score_name)), rowptr(rowptr_), col(col_), edge_id(edge_id_) {
    TORCH_CHECK_VALUE(value.dim() == 3, "value must be [N_src, H, F]; it has shape ", value.sizes());
    const auto& [query, key, att, dst_term, src_term, edge_term, bias, edge_feat] = others;
    TORCH_CHECK_VALUE(!score.has_term || (query.has_value() && key.has_value()), "score '", score_name, "' needs query and key");
    TORCH_CHECK_VALUE(!score.has_weight || att.has_value(), "score '", score_name, "' needs att");
    TORCH_CHECK_VALUE(!score.has_node_terms || (dst_term.has_value() && src_term.has_value()), "score '", score_name,
                      "' needs dst_term and src_term");
    TORCH_CHECK_VALUE(score.has_term || !edge_feat.has_value(), "score '", score_name, "' takes no edge_feat");
    num_dst = rowptr.numel() - 1, num_src = value.size(0), num_edges = col.numel();
    num_heads = value.size(1), value_channels = value.size(2);
    score_channels = score.has_term ? query->size(-1) : 0;
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
  }
};

}  // namespace gat::binding
