// The gradient of walk_step on every device. In C++, for an agent takes many steps, and a gradient that Python sets up takes as
// long as the step of two thousand agents. The gradient of the gradient is in gat_ext/_ops_walk.py.
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <tuple>

namespace gat::binding {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Step = std::tuple<Tensor, Tensor>(const Tensor& rowptr, const Tensor& col, const Tensor& current, const Tensor& rank,
                                        const Tensor& node_type, const Tensor& seed, c10::SymInt step, bool greedy);
using Backward = Tensor(const Tensor& rowptr, const Tensor& col, const Tensor& current, const Tensor& next, const Tensor& rank,
                        const Tensor& node_type, const Tensor& grad);

template <class Schema>
auto find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Schema>();
}

std::tuple<Tensor, Tensor> step_below(const Tensor& rowptr, const Tensor& col, const Tensor& current, const Tensor& rank,
                                      const Tensor& node_type, const Tensor& seed, c10::SymInt step, bool greedy) {
  static const auto op = find<Step>("gat_ext::walk_step");
  const at::AutoDispatchBelowADInplaceOrView below;
  return op.call(rowptr, col, current, rank, node_type, seed, std::move(step), greedy);
}

struct WalkStepGradient : torch::autograd::Function<WalkStepGradient> {
  static variable_list forward(AutogradContext* ctx, const Tensor& rowptr, const Tensor& col, const Tensor& current,
                               const Tensor& rank, const Tensor& node_type, const Tensor& seed, c10::SymInt step, bool greedy) {
    auto [log_prob, next] = step_below(rowptr, col, current, rank, node_type, seed, std::move(step), greedy);
    ctx->save_for_backward({rowptr, col, current, next, rank, node_type});
    ctx->mark_non_differentiable({next});
    return {log_prob, next};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    static const auto op = find<Backward>("gat_ext::walk_step_backward");
    const variable_list saved = ctx->get_saved_variables();
    const Tensor grad = op.call(saved[0], saved[1], saved[2], saved[3], saved[4], saved[5], grads[0]);
    return {{}, {}, {}, grad, {}, {}, {}, {}};
  }
};

std::tuple<Tensor, Tensor> walk_step_autograd(const Tensor& rowptr, const Tensor& col, const Tensor& current, const Tensor& rank,
                                              const Tensor& node_type, const Tensor& seed, c10::SymInt step, bool greedy) {
  if (!at::GradMode::is_enabled() || !rank.requires_grad()) {
    return step_below(rowptr, col, current, rank, node_type, seed, std::move(step), greedy);
  }
  const variable_list out = WalkStepGradient::apply(rowptr, col, current, rank, node_type, seed, std::move(step), greedy);
  return {out[0], out[1]};
}

}  // namespace

TORCH_LIBRARY_IMPL(gat_ext, Autograd, m) { m.impl("walk_step", &walk_step_autograd); }

}  // namespace gat::binding
