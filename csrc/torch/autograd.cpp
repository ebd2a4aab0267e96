// The gradients of edge_attention and walk_step on every device. In C++: a small graph is done in less time than Python takes to
// set a gradient up. The gradients of these gradients are in gat_ext/_ops_*.py.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/library.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

namespace gat::binding {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Optional = std::optional<Tensor>;

template <class Schema>
auto find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Schema>();
}

// A gradient that nobody differentiates goes to the kernel at once: what would differentiate it is in Python.
template <class Op, class... Args>
auto call_gradient(const Op& op, const Args&... args) {
  if (at::GradMode::is_enabled()) return op.call(args...);
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(args...);
}

Optional optional(const Tensor& tensor) { return tensor.defined() ? Optional(tensor) : std::nullopt; }

// A differentiable result that a gradient needs, kept for as long as the node of the graph or until its memory is given up.
// Unlike what a context saves, it may be modified in place by the caller meanwhile (h += x, relu_): then there is nothing to
// unpack.
//
// A context must never save a differentiable result of its own: where a pack hook throws, as a checkpoint's does to stop the
// recomputation early, torch leaves the context with what it was to save, and the result holds the node that holds the context.
// All of that memory would be lost.
class Result : public torch::CustomClassHolder {
 public:
  // detach: by itself the result would hold the node that holds it.
  explicit Result(const Tensor& result)
      : saved_(std::in_place, result.detach(), /*is_output=*/false), version_(result._version()) {}

  // The result; nothing if it was written to or given up.
  Optional unpack() const {
    if (!saved_.has_value()) return std::nullopt;
    const Optional raw = saved_->get_raw_data();  // nothing where hooks packed it
    if (raw.has_value() && raw->_version() != version_) return std::nullopt;
    Tensor result = saved_->unpack();
    // What hooks give back may be the memory that was written to: their tensor itself, or one that a checkpoint computed again.
    if (!raw.has_value() && (result.is_inference() || result._version() != version_)) return std::nullopt;
    return result;
  }

  void release() { saved_.reset(); }

  static c10::IValue keep(const Tensor& result) { return c10::IValue::make_capsule(c10::make_intrusive<Result>(result)); }
  static c10::intrusive_ptr<Result> of(const c10::IValue& kept) {
    return c10::static_intrusive_pointer_cast<Result>(kept.toCapsule());
  }

 private:
  std::optional<torch::autograd::SavedVariable> saved_;
  std::int64_t version_;
};

// ---- edge_attention

using Attention = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Attention attention_below(const Tensor& rowptr, const Tensor& col, const Optional& edge_id, const Optional& t_rowptr,
                          const Optional& t_col, const Optional& t_pos, const Optional& t_edge_id, const Tensor& value,
                          const Optional& query, const Optional& key, const Optional& att, const Optional& dst_term,
                          const Optional& src_term, const Optional& edge_term, const Optional& bias, const Optional& edge_feat,
                          const Optional& seed, std::string_view score, bool edge_in_value, double negative_slope, double scale,
                          double dropout_p, std::int64_t top_k, bool return_weights, bool return_lse) {
  static const auto op = find<decltype(attention_below)>("gat_ext::edge_attention");
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(rowptr, col, edge_id, t_rowptr, t_col, t_pos, t_edge_id, value, query, key, att, dst_term, src_term, edge_term,
                 bias, edge_feat, seed, score, edge_in_value, negative_slope, scale, dropout_p, top_k, return_weights,
                 return_lse);
}

struct AttentionGradient : torch::autograd::Function<AttentionGradient> {
  static constexpr std::size_t kFirstInput = 7, kNumInputs = 9, kNumTensors = 17, kNumArguments = 25;

  static variable_list forward(AutogradContext* ctx, const Tensor& rowptr, const Tensor& col, const Optional& edge_id,
                               const Optional& t_rowptr, const Optional& t_col, const Optional& t_pos, const Optional& t_edge_id,
                               const Tensor& value, const Optional& query, const Optional& key, const Optional& att,
                               const Optional& dst_term, const Optional& src_term, const Optional& edge_term,
                               const Optional& bias, const Optional& edge_feat, const Optional& seed, const std::string& score,
                               bool edge_in_value, double negative_slope, double scale, double dropout_p, std::int64_t top_k,
                               bool return_weights, bool return_lse) {
    auto [out, lse, softmax, out_acc, selected, weights] = attention_below(
        rowptr, col, edge_id, t_rowptr, t_col, t_pos, t_edge_id, value, query, key, att, dst_term, src_term, edge_term, bias,
        edge_feat, seed, score, edge_in_value, negative_slope, scale, dropout_p, top_k, return_weights, return_lse);
    const Tensor& accumulated = out.scalar_type() == out_acc.scalar_type() ? out : out_acc;
    const auto given = [](const Optional& tensor) { return tensor.value_or(Tensor()); };
    ctx->set_materialize_grads(false);
    ctx->mark_non_differentiable({softmax, out_acc, selected});
    ctx->save_for_backward({rowptr, col, given(edge_id), given(t_rowptr), given(t_col), given(t_pos), given(t_edge_id), value,
                            given(query), given(key), given(att), given(dst_term), given(src_term), given(edge_term), given(bias),
                            given(edge_feat), given(seed), softmax, selected});
    ctx->saved_data["out"] = Result::keep(accumulated);
    ctx->saved_data["weights"] = Result::keep(weights);
    ctx->saved_data["top_k"] = top_k;
    ctx->saved_data["score"] = score;
    ctx->saved_data["edge_in_value"] = edge_in_value;
    ctx->saved_data["negative_slope"] = negative_slope;
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["dropout_p"] = dropout_p;
    ctx->saved_data["return_weights"] = return_weights;
    return {out, lse, softmax, out_acc, selected, weights};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    using Schema = Gradients(const Tensor&, const Tensor&, const Optional&, const Optional&, const Optional&, const Optional&,
                             const Optional&, const Tensor&, const Optional&, const Optional&, const Optional&, const Optional&,
                             const Optional&, const Optional&, const Optional&, const Optional&, const Optional&,
                             std::string_view, bool, double, double, double, const Tensor&, const Optional&, const Optional&,
                             const Tensor&, const Tensor&, const Tensor&, const Tensor&, c10::List<bool>);
    static const auto op = find<Schema>("gat_ext::edge_attention_backward");
    const variable_list s = ctx->get_saved_variables();
    auto& constant = ctx->saved_data;
    const std::string& score = constant["score"].toStringRef();
    const bool edge_in_value = constant["edge_in_value"].toBool(), return_weights = constant["return_weights"].toBool();
    const double negative_slope = constant["negative_slope"].toDouble(), scale = constant["scale"].toDouble();
    const double dropout_p = constant["dropout_p"].toDouble();
    // The edges of the autograd graph are those of the tensors that were given.
    c10::List<bool> needs_grad;
    for (std::size_t i = 0, edge = 0; i < kNumTensors; ++i) {
      const bool is_input = i >= kFirstInput && i < kFirstInput + kNumInputs;
      if (is_input) needs_grad.push_back(s[i].defined() && ctx->needs_input_grad(edge));
      edge += s[i].defined();
    }
    const auto kept_out = Result::of(constant["out"]), kept_weights = Result::of(constant["weights"]);
    Optional out = kept_out->unpack(), weights = kept_weights->unpack();
    if (!out.has_value() || !weights.has_value()) {
      const auto again =
          attention_below(s[0], s[1], optional(s[2]), optional(s[3]), optional(s[4]), optional(s[5]), optional(s[6]), s[7],
                          optional(s[8]), optional(s[9]), optional(s[10]), optional(s[11]), optional(s[12]), optional(s[13]),
                          optional(s[14]), optional(s[15]), optional(s[16]), score, edge_in_value, negative_slope, scale,
                          dropout_p, constant["top_k"].toInt(), return_weights, false);
      const Tensor& accumulated = std::get<3>(again);
      out = accumulated.dim() == 3 ? accumulated : std::get<0>(again);
      weights = std::get<5>(again);
    }
    if (!torch::autograd::get_current_graph_task_keep_graph()) kept_out->release(), kept_weights->release();
    const Tensor grad_out = grads[0].defined() ? grads[0] : at::zeros_like(*out, s[7].options());
    const Gradients found = call_gradient(
        op, s[0], s[1], optional(s[2]), optional(s[3]), optional(s[4]), optional(s[5]), optional(s[6]), s[7], optional(s[8]),
        optional(s[9]), optional(s[10]), optional(s[11]), optional(s[12]), optional(s[13]), optional(s[14]), optional(s[15]),
        optional(s[16]), score, edge_in_value, negative_slope, scale, dropout_p, grad_out, optional(grads[1]),
        return_weights ? optional(grads[5]) : std::nullopt, *out, s[17], s[18], *weights, needs_grad);
    variable_list result(kNumArguments);
    std::size_t i = 0;
    const auto keep = [&](const Tensor& grad) {
      if (needs_grad[i]) result[kFirstInput + i] = grad;
      ++i;
    };
    std::apply([&](const auto&... each) { (keep(each), ...); }, found);
    return result;
  }
};

Attention attention(const Tensor& rowptr, const Tensor& col, const Optional& edge_id, const Optional& t_rowptr,
                    const Optional& t_col, const Optional& t_pos, const Optional& t_edge_id, const Tensor& value,
                    const Optional& query, const Optional& key, const Optional& att, const Optional& dst_term,
                    const Optional& src_term, const Optional& edge_term, const Optional& bias, const Optional& edge_feat,
                    const Optional& seed, std::string_view score, bool edge_in_value, double negative_slope, double scale,
                    double dropout_p, std::int64_t top_k, bool return_weights, bool return_lse) {
  const auto learned = [](const Optional& tensor) { return tensor.has_value() && tensor->requires_grad(); };
  const bool any = value.requires_grad() || learned(query) || learned(key) || learned(att) || learned(dst_term) ||
                   learned(src_term) || learned(edge_term) || learned(bias) || learned(edge_feat);
  if (!at::GradMode::is_enabled() || !any) {
    return attention_below(rowptr, col, edge_id, t_rowptr, t_col, t_pos, t_edge_id, value, query, key, att, dst_term, src_term,
                           edge_term, bias, edge_feat, seed, score, edge_in_value, negative_slope, scale, dropout_p, top_k,
                           return_weights, return_lse);
  }
  const variable_list r = AttentionGradient::apply(
      rowptr, col, edge_id, t_rowptr, t_col, t_pos, t_edge_id, value, query, key, att, dst_term, src_term, edge_term, bias,
      edge_feat, seed, std::string(score), edge_in_value, negative_slope, scale, dropout_p, top_k, return_weights, return_lse);
  return {r[0], r[1], r[2], r[3], r[4], r[5]};
}

// ---- walk_step

using Step = std::tuple<Tensor, Tensor>;

Step step_below(const Tensor& rowptr, const Tensor& col, const Tensor& current, const Tensor& rank, const Tensor& node_type,
                const Tensor& seed, c10::SymInt step, bool greedy) {
  static const auto op = find<decltype(step_below)>("gat_ext::walk_step");
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(rowptr, col, current, rank, node_type, seed, std::move(step), greedy);
}

struct StepGradient : torch::autograd::Function<StepGradient> {
  static variable_list forward(AutogradContext* ctx, const Tensor& rowptr, const Tensor& col, const Tensor& current,
                               const Tensor& rank, const Tensor& node_type, const Tensor& seed, c10::SymInt step, bool greedy) {
    auto [log_prob, next] = step_below(rowptr, col, current, rank, node_type, seed, std::move(step), greedy);
    ctx->save_for_backward({rowptr, col, current, next, rank, node_type});
    ctx->mark_non_differentiable({next});
    return {log_prob, next};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    using Schema =
        Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&);
    static const auto op = find<Schema>("gat_ext::walk_step_backward");
    const variable_list s = ctx->get_saved_variables();
    return {{}, {}, {}, call_gradient(op, s[0], s[1], s[2], s[3], s[4], s[5], grads[0]), {}, {}, {}, {}};
  }
};

Step step(const Tensor& rowptr, const Tensor& col, const Tensor& current, const Tensor& rank, const Tensor& node_type,
          const Tensor& seed, c10::SymInt step, bool greedy) {
  if (!at::GradMode::is_enabled() || !rank.requires_grad()) {
    return step_below(rowptr, col, current, rank, node_type, seed, std::move(step), greedy);
  }
  const variable_list r = StepGradient::apply(rowptr, col, current, rank, node_type, seed, std::move(step), greedy);
  return {r[0], r[1]};
}

}  // namespace

TORCH_LIBRARY_IMPL(gat_ext, Autograd, m) {
  m.impl("edge_attention", &attention);
  m.impl("walk_step", &step);
}

}  // namespace gat::binding
