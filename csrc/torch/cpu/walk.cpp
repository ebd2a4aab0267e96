// Walks on the CPU.
#include "../../cpu/walk.h"

#include "../../cpu/isa.h"
#include "../threads.h"
#include "../walk.h"

namespace gat::binding {
namespace {

struct Cpu {
  int threads = num_threads();

  explicit Cpu(const at::Tensor&) {}

  template <class T>
  static cpu::WalkStepKernels<T> step_kernels() {
    return cpu::with_isa([](auto isa) { return cpu::walk_step_kernels<decltype(isa), T>(); });
  }
  static cpu::RandomWalkKernels walk_kernels() {
    return cpu::with_isa([](auto isa) { return cpu::random_walk_kernels<decltype(isa)>(); });
  }
  template <class T>
  bool walk_step(const WalkStep<T>& walk, std::int64_t* next, T* log_prob) {
    return step_kernels<T>().step(walk, next, log_prob, threads);
  }
  template <class T>
  void walk_step_backward(const WalkStep<T>& walk, const std::int64_t* next, const T* grad,
                          T* grad_rank) {
    step_kernels<T>().backward(walk, next, grad, grad_rank, threads);
  }
  void running_sums(const CsrView& csr, const double* weight, double* cumulative) {
    walk_kernels().running_sums(csr, weight, cumulative, threads);
  }
  void random_walk(const RandomWalk& walk, const std::int64_t* start, std::int64_t* nodes) {
    walk_kernels().walk(walk, start, nodes, threads);
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(gat_ext, CPU, m) { register_walk<Cpu>(m); }

}  // namespace gat::binding
