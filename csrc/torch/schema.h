// The arguments of edge_attention and of its gradient, written once.
#pragma once

#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "operator.h"

namespace gat::binding {

using OptionalTensor = std::optional<at::Tensor>;

// ---- the differentiable inputs

// In the order of the schemas and of the gradients, which have the same shapes.
enum Input : std::size_t {
  kValue,
  kQuery,
  kKey,
  kAtt,
  kDstTerm,
  kSrcTerm,
  kEdgeTerm,
  kBias,
  kEdgeFeat,
  kEdgeAttr,
  kEdgeMap,
  kNumInputs
};

// dims has one letter per dimension: n and m are the numbers of destinations and sources, E of
// edges, H of heads, D of channels of the score, F of channels of the value, K of
// linear edge features.
struct InputSchema {
  const char* name;
  const char* dims;

  constexpr bool is_per_edge() const { return dims[0] == 'E'; }
};

inline constexpr std::array<InputSchema, kNumInputs> kInputs{{
    {"value", "mHF"},
    {"query", "nHD"},
    {"key", "mHD"},
    {"att", "HD"},
    {"dst_term", "nH"},
    {"src_term", "mH"},
    {"edge_term", "EH"},
    {"bias", "EH"},
    {"edge_feat", "EHD"},
    {"edge_attr", "EK"},
    {"edge_map", "HDK"},
}};

// ---- groups of arguments

// A CSR by destination: rowptr [N_dst + 1], col [E], edge_id [E] (the caller's position of each
// edge; None: CSR order). Its transpose by source, needed for gradients only: t_rowptr [N_src + 1],
// t_col [E], t_pos [E] (the CSR position of each edge of the transpose), t_edge_id [E].
//
// degrees, int64 [2] on the host: the largest number of edges of a destination, and of a source, or
// -1 where that is not known. With degrees, each edge belongs to a row. Without them, CSR positions
// from rowptr[N_dst] on may belong to none: the edges there are not read, and their results are 0.
struct SortedGraph {
  at::Tensor rowptr, col;
  OptionalTensor edge_id, t_rowptr, t_col, t_pos, t_edge_id, degrees;

  static std::string schema() {
    return "Tensor rowptr, Tensor col, Tensor? edge_id, Tensor? t_rowptr, Tensor? t_col, "
           "Tensor? t_pos, Tensor? t_edge_id, Tensor? degrees";
  }
  auto members() const {
    return std::tie(rowptr, col, edge_id, t_rowptr, t_col, t_pos, t_edge_id, degrees);
  }
};

// The differentiable inputs, by Input, and what dropout draws from: a seed, and a number of each
// edge (int64 [E]; None: its position).
struct Inputs {
  at::Tensor value;
  std::array<OptionalTensor, kNumInputs - 1> optional;
  OptionalTensor seed, edge_number;

  static std::string schema() {
    std::string all;
    for (const auto& input : kInputs)
      all += std::string(all.empty() ? "Tensor " : "Tensor? ") + input.name + ", ";
    return all + "Tensor? seed, Tensor? edge_number";
  }
  auto members() const {
    const auto of_array = [](const auto&... each) { return std::tie(each...); };
    return std::tuple_cat(std::tie(value), std::apply(of_array, optional),
                          std::tie(seed, edge_number));
  }

  // Undefined where it is absent.
  at::Tensor operator[](Input i) const {
    return i == kValue ? value : optional[i - 1].value_or(at::Tensor());
  }

  bool any_requires_grad() const {
    const auto requires_grad = [](const OptionalTensor& t) {
      return t.has_value() && t->requires_grad();
    };
    return value.requires_grad() || std::any_of(optional.begin(), optional.end(), requires_grad);
  }
};

struct Constants {
  std::string_view score;
  bool edge_in_value;
  double negative_slope, scale, dropout_p;

  static std::string schema() {
    return "str score, bool edge_in_value, float negative_slope, float scale, float dropout_p";
  }
  auto members() const { return std::tie(score, edge_in_value, negative_slope, scale, dropout_p); }
};

// top_k of each row and head, 0 for all edges, and the optional results to return.
struct Wanted {
  std::int64_t top_k;
  bool return_weights, return_lse;

  static std::string schema() { return "int top_k, bool return_weights, bool return_lse"; }
  auto members() const { return std::tie(top_k, return_weights, return_lse); }
};

// The gradients of the results, the results that the gradient reads, and for each input whether it
// needs a gradient.
struct Upstream {
  at::Tensor grad_out;
  OptionalTensor grad_lse, grad_weights;
  at::Tensor out_acc, softmax, selected, weights;
  c10::List<bool> needs_grad;

  static std::string schema() {
    return "Tensor grad_out, Tensor? grad_lse, Tensor? grad_weights, Tensor out_acc, "
           "Tensor softmax, Tensor selected, Tensor weights, bool[] needs_grad";
  }
  auto members() const {
    return std::tie(grad_out, grad_lse, grad_weights, out_acc, softmax, selected, weights,
                    needs_grad);
  }
};

// ---- results

// An absent result, or the gradient of an input that needs none, is a tensor of shape [0]; all
// others have at least two dimensions.
inline bool is_absent(const at::Tensor& result) { return result.dim() < 2; }

// out [N_dst, H, F]; lse [N_dst, H], for the caller; softmax [N_dst, H, 2], the RowSoftmax of each
// row and head, for the gradient; out_acc [N_dst, H, F], the unrounded sums of 16-bit values, and
// with linear edge features in values [N_dst, H, F + K]: see EdgeAttentionTensors::splits_sums;
// selected [E, H], 1 for the edges that top_k keeps, in CSR order; weights [E, H].
using Attention =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
// By Input.
using Gradients = decltype(std::tuple_cat(std::array<at::Tensor, kNumInputs>()));

inline std::string attention_results() {
  return "Tensor out, Tensor lse, Tensor softmax, Tensor out_acc, Tensor selected, Tensor weights";
}
inline std::string gradient_results() {
  std::string all;
  for (const auto& input : kInputs)
    all += (all.empty() ? "Tensor " : ", Tensor ") + std::string(input.name);
  return all;
}

// ---- operators

namespace ops {

struct EdgeAttention : Operator<EdgeAttention, Attention, SortedGraph, Inputs, Constants, Wanted> {
  static constexpr const char* kName = "gat_ext::edge_attention";
  static std::string results() { return attention_results(); }
};

struct EdgeAttentionBackward
    : Operator<EdgeAttentionBackward, Gradients, SortedGraph, Inputs, Constants, Upstream> {
  static constexpr const char* kName = "gat_ext::edge_attention_backward";
  static std::string results() { return gradient_results(); }
};

}  // namespace ops
}  // namespace gat::binding
