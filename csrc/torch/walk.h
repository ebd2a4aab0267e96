// Walks, written once for every device: checks, outputs, and the arguments of the kernels. Kernels
// do not follow an index in current, start or node_type that is out of range. walk_step of the CPU
// returns false if there was one; that of CUDA, which does not synchronise, always returns true.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <tuple>

#include "../core/walk.h"
#include "allocate.h"
#include "checks.h"
#include "dispatch.h"

namespace gat::binding {

// Calls f with Type<float> or Type<double>.
template <class F>
void with_rank_type(at::ScalarType dtype, F&& f) {
  TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kDouble, "rank has dtype ", dtype,
                   "; expected float32 or float64");
  dtype == at::kDouble ? f(Type<double>{}) : f(Type<float>{});
}

// A contiguous int64 vector on the device.
inline at::Tensor index_vector(const at::Tensor& t, at::Device device, const char* name) {
  TORCH_CHECK_TYPE(t.scalar_type() == at::kLong, name, " has dtype ", t.scalar_type(),
                   "; expected int64");
  TORCH_CHECK_VALUE(t.dim() == 1, name, " has shape ", t.sizes(), "; expected a vector");
  check_device(t, device, name);
  return t.contiguous();
}

inline const std::int64_t* seed_pointer(const at::Tensor& seed, at::Device device) {
  TORCH_CHECK_VALUE(seed.numel() == 1 && seed.scalar_type() == at::kLong,
                    "seed must be an int64 tensor of one element");
  check_device(seed, device, "seed");
  return seed.const_data_ptr<std::int64_t>();
}

// The checked arguments of a step and of its gradient.
struct WalkTensors {
  CsrView csr;
  at::Tensor current, rank, node_type;

  WalkTensors(const at::Tensor& rowptr, const at::Tensor& col, const at::Tensor& current_,
              const at::Tensor& rank_, const at::Tensor& node_type_)
      : csr(csr_view(rowptr, col, {}, col.numel(), rank_.device())),
        current(index_vector(current_, rank_.device(), "current")),
        rank(rank_.contiguous()),
        node_type(index_vector(node_type_, rank_.device(), "node_type")) {
    TORCH_CHECK_VALUE(rank.dim() == 2 && rank.size(0) == current.numel(), "rank has shape ",
                      rank.sizes(), "; expected [", current.numel(), ", R]");
    check_shape(node_type, {csr.num_rows}, "node_type");
  }

  template <class T>
  WalkStep<T> view() const {
    return {csr,           data<std::int64_t>(current),
            data<T>(rank), data<std::int64_t>(node_type),
            rank.size(0),  rank.size(1)};
  }
};

template <class Device>
std::tuple<at::Tensor, at::Tensor> walk_step(const at::Tensor& rowptr, const at::Tensor& col,
                                             const at::Tensor& current, const at::Tensor& rank,
                                             const at::Tensor& node_type, const at::Tensor& seed,
                                             std::int64_t step, bool greedy) {
  const WalkTensors t(rowptr, col, current, rank, node_type);
  Device device(rank);
  const std::int64_t* const seed_data = seed_pointer(seed, rank.device());
  const at::Tensor next = allocate_like(t.current),
                   log_prob = allocate(t.current.sizes(), rank.options());
  bool in_range = true;
  with_rank_type(rank.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    WalkStep<T> walk = t.template view<T>();
    walk.seed = seed_data, walk.step = step, walk.greedy = greedy;
    in_range = device.walk_step(walk, mutable_data<std::int64_t>(next), mutable_data<T>(log_prob));
  });
  TORCH_CHECK_INDEX(in_range,
                    "a node of current, or the type of one of its neighbours, is out of range; "
                    "expected nodes from 0 to ",
                    t.csr.num_rows - 1, " and types from 0 to ", t.rank.size(1) - 1);
  return {log_prob, next};
}

template <class Device>
at::Tensor walk_step_backward(const at::Tensor& rowptr, const at::Tensor& col,
                              const at::Tensor& current, const at::Tensor& next,
                              const at::Tensor& rank, const at::Tensor& node_type,
                              const at::Tensor& grad) {
  const WalkTensors t(rowptr, col, current, rank, node_type);
  Device device(rank);
  const at::Tensor moved = index_vector(next, rank.device(), "next"),
                   g = prepare(grad, t.current.sizes(), rank, "grad");
  check_shape(moved, t.current.sizes(), "next");
  const at::Tensor grad_rank = at::zeros_like(t.rank);
  with_rank_type(rank.scalar_type(), [&](auto type) {
    using T = typename decltype(type)::type;
    device.walk_step_backward(t.template view<T>(), data<std::int64_t>(moved), data<T>(g),
                              mutable_data<T>(grad_rank));
  });
  return grad_rank;
}

template <class Device>
at::Tensor random_walk(const at::Tensor& rowptr, const at::Tensor& col,
                       const OptionalTensor& weight, const at::Tensor& start, std::int64_t length,
                       const at::Tensor& seed) {
  TORCH_CHECK_VALUE(length >= 0, "length is ", length, "; expected at least 0");
  const at::Tensor first = index_vector(start, start.device(), "start");
  const CsrView csr = csr_view(rowptr, col, {}, col.numel(), start.device());
  Device device(start);
  const at::TensorOptions doubles = start.options().dtype(at::kDouble);
  at::Tensor cumulative;
  RandomWalk walk{csr, nullptr, first.numel(), length, seed_pointer(seed, start.device())};
  if (weight.has_value()) {
    TORCH_CHECK_TYPE(weight->scalar_type() == at::kDouble, "weight has dtype ",
                     weight->scalar_type(), "; expected float64");
    check_shape(*weight, {col.numel()}, "weight");
    check_device(*weight, start.device(), "weight");
    cumulative = allocate({col.numel()}, doubles);
    const at::Tensor w = weight->contiguous();
    device.running_sums(csr, data<double>(w), mutable_data<double>(cumulative));
    walk.cumulative = data<double>(cumulative);
  }
  const at::Tensor nodes = allocate({first.numel(), length + 1}, start.options());
  device.random_walk(walk, data<std::int64_t>(first), mutable_data<std::int64_t>(nodes));
  return nodes;
}

// Registers the operators under the dispatch key of m.
template <class Device>
void register_walk(torch::Library& m) {
  m.impl("walk_step", &walk_step<Device>);
  m.impl("walk_step_backward", &walk_step_backward<Device>);
  m.impl("random_walk", &random_walk<Device>);
}

}  // namespace gat::binding
