// The gradients of edge_attention, head_terms and walk_step on every device. They are in C++
// because Python takes longer to record a gradient than the kernels take for a small graph. The
// gradients of these gradients are in gat_ext/ops.
#include <ATen/core/ivalue.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/library.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "schema.h"

namespace gat::binding {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Optional = OptionalTensor;

// A gradient that is not differentiated calls the kernel directly: its own gradient is registered
// in Python.
template <class Op, class... Args>
auto call_gradient(const Op& op, const Args&... args) {
  if (at::GradMode::is_enabled()) return op.call(args...);
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(args...);
}

Optional optional(const Tensor& tensor) {
  return tensor.defined() ? Optional(tensor) : std::nullopt;
}

// A differentiable result that the gradient needs, kept during the lifetime of the node of the
// autograd graph, or until release(). Unlike a tensor that a context saves, the caller may modify
// it in place in the meantime (h += x, relu_): then unpack() returns nothing.
//
// A context must never save a differentiable result of its own node: where a pack hook throws, as
// that of a checkpoint does to stop the recomputation early, torch leaves the tensors to save in
// the context, and the result holds the node that holds the context. That cycle would leak all of
// the memory.
class Result {
 public:
  // detach, because the result itself would hold the node that holds it.
  explicit Result(const Tensor& result)
      : saved_(std::in_place, result.detach(), /*is_output=*/false), version_(result._version()) {}

  // The result, or nothing if it was modified in place or released.
  Optional unpack() const {
    if (!saved_.has_value()) return std::nullopt;
    const Optional raw = saved_->get_raw_data();  // absent where hooks packed it
    if (raw.has_value() && raw->_version() != version_) return std::nullopt;
    Tensor result = saved_->unpack();
    // The tensor that hooks return may share the modified memory: it is the packed tensor, or one
    // that a checkpoint recomputed.
    if (!raw.has_value() && (result.is_inference() || result._version() != version_))
      return std::nullopt;
    return result;
  }

  void release() { saved_.reset(); }

 private:
  std::optional<torch::autograd::SavedVariable> saved_;
  std::int64_t version_;
};

// ---- edge_attention

Attention attention_below(const SortedGraph& graph, const Inputs& inputs,
                          const Constants& constants, const Wanted& wanted) {
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::EdgeAttention::call(graph, inputs, constants, wanted);
}

// Inputs of the gradient besides the tensors that the context saves.
struct Kept : torch::CustomClassHolder {
  Kept(const Tensor& out_, const Tensor& weights_, const Constants& constants_,
       const Wanted& wanted_)
      : out(out_),
        weights(weights_),
        score(constants_.score),
        constants(constants_),
        wanted(wanted_) {
    constants.score = score;
  }

  Result out, weights;
  std::string score;
  Constants constants;
  Wanted wanted;
};

Tensor tensor_of(const Tensor& tensor) { return tensor; }
Tensor tensor_of(const Optional& tensor) { return tensor.value_or(Tensor()); }

// The group whose members were saved in order, from position `first` on.
template <class Group>
Group saved_group(const variable_list& saved, std::size_t first) {
  return make_group<Group>([&](auto i) {
    using Member = std::tuple_element_t<decltype(i)::value, Members<Group>>;
    const Tensor& tensor = saved[first + i];
    if constexpr (std::is_same_v<Member, const Tensor&>) {
      return tensor;
    } else {
      return optional(tensor);
    }
  });
}

struct AttentionGradient : torch::autograd::Function<AttentionGradient> {
  static constexpr std::size_t kNumGroups = 4;
  static constexpr std::size_t kSavedInputs = num_members_before<SortedGraph, Inputs>(1);
  static constexpr std::size_t kSavedResults = num_members_before<SortedGraph, Inputs>(2);

  // The last arguments, the differentiable inputs, tell torch which gradients backward returns.
  template <class... Tensors>
  static variable_list forward(AutogradContext* ctx, const SortedGraph& graph, const Inputs& inputs,
                               const Constants& constants, const Wanted& wanted,
                               const Tensors&...) {
    auto [out, lse, softmax, out_acc, selected, weights] =
        attention_below(graph, inputs, constants, wanted);
    ctx->set_materialize_grads(false);
    ctx->mark_non_differentiable({softmax, out_acc, selected});
    ctx->save_for_backward(std::apply(
        [&](const auto&... each) { return variable_list{tensor_of(each)..., softmax, selected}; },
        std::tuple_cat(graph.members(), inputs.members())));
    const Tensor& accumulated = is_absent(out_acc) ? out : out_acc;
    ctx->saved_data["kept"] = c10::IValue::make_capsule(
        c10::make_intrusive<Kept>(accumulated, weights, constants, wanted));
    return {out, lse, softmax, out_acc, selected, weights};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto graph = saved_group<SortedGraph>(saved, 0);
    const auto inputs = saved_group<Inputs>(saved, kSavedInputs);
    const auto kept = c10::static_intrusive_pointer_cast<Kept>(ctx->saved_data["kept"].toCapsule());
    // The autograd graph has an edge for each given input only.
    c10::List<bool> needs_grad;
    for (std::size_t i = 0, edge = 0; i < kNumInputs; ++i) {
      const bool given = saved[kSavedInputs + i].defined();
      needs_grad.push_back(given && ctx->needs_input_grad(edge));
      edge += given;
    }
    Optional out = kept->out.unpack(), weights = kept->weights.unpack();
    if (!out.has_value() || !weights.has_value()) {
      const Wanted wanted{kept->wanted.top_k, kept->wanted.return_weights, /*return_lse=*/false};
      const Attention again = attention_below(graph, inputs, kept->constants, wanted);
      const Tensor& accumulated = std::get<3>(again);
      out = is_absent(accumulated) ? std::get<0>(again) : accumulated;
      weights = std::get<5>(again);
    }
    if (!torch::autograd::get_current_graph_task_keep_graph()) {
      kept->out.release();
      kept->weights.release();
    }
    const Tensor grad_out =
        grads[0].defined()
            ? grads[0]
            : at::zeros_symint({out->sym_size(0), out->sym_size(1), inputs.value.sym_size(2)},
                               inputs.value.options());
    const Upstream upstream{grad_out,
                            optional(grads[1]),
                            kept->wanted.return_weights ? optional(grads[5]) : std::nullopt,
                            *out,
                            saved[kSavedResults],
                            saved[kSavedResults + 1],
                            *weights,
                            needs_grad};
    const Gradients found =
        call_gradient(ops::EdgeAttentionBackward(), graph, inputs, kept->constants, upstream);
    variable_list result(kNumGroups);
    const auto append = [&](const Tensor& grad) {
      result.push_back(needs_grad[result.size() - kNumGroups] ? grad : Tensor());
    };
    std::apply([&](const auto&... each) { (append(each), ...); }, found);
    return result;
  }
};

Attention attention(const SortedGraph& graph, const Inputs& inputs, const Constants& constants,
                    const Wanted& wanted) {
  if (!at::GradMode::is_enabled() || !inputs.any_requires_grad())
    return attention_below(graph, inputs, constants, wanted);
  const variable_list r = std::apply(
      [&](const auto&... each) {
        return AttentionGradient::apply(graph, inputs, constants, wanted, inputs.value, each...);
      },
      inputs.optional);
  return {r[0], r[1], r[2], r[3], r[4], r[5]};
}

// ---- head_terms

Tensor terms_below(const Tensor& x, const Tensor& vectors) {
  static const auto op = find_operator<decltype(terms_below)>("gat_ext::head_terms");
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(x, vectors);
}

struct TermsGradient : torch::autograd::Function<TermsGradient> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& vectors) {
    ctx->save_for_backward({x, vectors});
    return terms_below(x, vectors);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    using Schema =
        std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, bool, bool);
    static const auto op = find_operator<Schema>("gat_ext::head_terms_backward");
    const variable_list s = ctx->get_saved_variables();
    const bool needs_x = ctx->needs_input_grad(0), needs_vectors = ctx->needs_input_grad(1);
    const auto [grad_x, grad_vectors] =
        call_gradient(op, grads[0], s[0], s[1], needs_x, needs_vectors);
    return {needs_x ? grad_x : Tensor(), needs_vectors ? grad_vectors : Tensor()};
  }
};

Tensor terms(const Tensor& x, const Tensor& vectors) {
  const bool differentiable = x.requires_grad() || vectors.requires_grad();
  return at::GradMode::is_enabled() && differentiable ? TermsGradient::apply(x, vectors)
                                                      : terms_below(x, vectors);
}

// ---- walk_step

using Step = std::tuple<Tensor, Tensor>;

Step step_below(const Tensor& rowptr, const Tensor& col, const Tensor& current, const Tensor& rank,
                const Tensor& node_type, const Tensor& seed, c10::SymInt step, bool greedy) {
  static const auto op = find_operator<decltype(step_below)>("gat_ext::walk_step");
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(rowptr, col, current, rank, node_type, seed, std::move(step), greedy);
}

struct StepGradient : torch::autograd::Function<StepGradient> {
  static variable_list forward(AutogradContext* ctx, const Tensor& rowptr, const Tensor& col,
                               const Tensor& current, const Tensor& rank, const Tensor& node_type,
                               const Tensor& seed, c10::SymInt step, bool greedy) {
    auto [log_prob, next] =
        step_below(rowptr, col, current, rank, node_type, seed, std::move(step), greedy);
    ctx->save_for_backward({rowptr, col, current, next, rank, node_type});
    ctx->mark_non_differentiable({next});
    return {log_prob, next};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    using Schema = Tensor(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                          const Tensor&, const Tensor&);
    static const auto op = find_operator<Schema>("gat_ext::walk_step_backward");
    const variable_list s = ctx->get_saved_variables();
    return {{}, {}, {}, call_gradient(op, s[0], s[1], s[2], s[3], s[4], s[5], grads[0]),
            {}, {}, {}, {}};
  }
};

Step step(const Tensor& rowptr, const Tensor& col, const Tensor& current, const Tensor& rank,
          const Tensor& node_type, const Tensor& seed, c10::SymInt step, bool greedy) {
  if (!at::GradMode::is_enabled() || !rank.requires_grad()) {
    return step_below(rowptr, col, current, rank, node_type, seed, std::move(step), greedy);
  }
  const variable_list r =
      StepGradient::apply(rowptr, col, current, rank, node_type, seed, std::move(step), greedy);
  return {r[0], r[1]};
}

// ---- operators whose gradients Python records

bool is_recorded(const torch::jit::Stack& stack, std::size_t num_arguments) {
  if (!at::GradMode::is_enabled()) return false;
  const auto requires_grad = [](const Tensor& t) { return t.defined() && t.requires_grad(); };
  for (const c10::IValue& argument : torch::jit::last(stack, num_arguments)) {
    if (argument.isTensor() && requires_grad(argument.toTensor())) return true;
  }
  return false;
}

// Calls the kernel where nothing is recorded, as in every compiled program: the function that
// torch.library.register_autograd registers takes 10 microseconds to find that out, and 40 for
// edge_attention_backward. It is registered for all of autograd's keys, so where gradients are
// recorded, it is reached through one that no tensor has.
void skip_python(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
                 torch::jit::Stack* stack) {
  const c10::DispatchKeySet below = keys & c10::after_autograd_keyset;
  if (is_recorded(*stack, op.schema().arguments().size())) {
    op.redispatchBoxed(below | c10::DispatchKeySet(c10::DispatchKey::AutogradOther), stack);
  } else {
    const at::AutoDispatchBelowADInplaceOrView guard;
    op.redispatchBoxed(below, stack);
  }
}

void register_skips(torch::Library& m) {
  for (const char* const name : {"add",
                                 "dropout",
                                 "edge_attention_backward",
                                 "edge_dot",
                                 "edge_softmax",
                                 "edge_softmax_backward",
                                 "edge_sum",
                                 "head_terms_backward",
                                 "inverse_norm",
                                 "linear",
                                 "linear_backward",
                                 "relu",
                                 "relu_backward",
                                 "scale",
                                 "sddmm",
                                 "spmm",
                                 "spmm_extremum",
                                 "spmm_extremum_backward",
                                 "walk_step_backward",
                                 "winner_sum"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&skip_python>());
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(gat_ext, AutogradCPU, m) { register_skips(m); }
TORCH_LIBRARY_IMPL(gat_ext, AutogradCUDA, m) { register_skips(m); }

TORCH_LIBRARY_IMPL(gat_ext, Autograd, m) {
  m.impl("edge_attention", &ops::EdgeAttention::flat<&attention>);
  m.impl("head_terms", &terms);
  m.impl("walk_step", &step);
}

}  // namespace gat::binding
