// Walks on the GPU.
#include "../walk.h"

#include "../../cuda/walk.h"
#include "device.h"
#include "register.h"

namespace gat::binding {
namespace {

struct Cuda : CudaDevice {
  using CudaDevice::CudaDevice;

  template <class T>
  bool walk_step(const WalkStep<T>& walk, std::int64_t* next, T* log_prob) {
    cuda::walk_step(*this, walk, next, log_prob);
    return true;
  }
  template <class T>
  void walk_step_backward(const WalkStep<T>& walk, const std::int64_t* next, const T* grad,
                          T* grad_rank) {
    cuda::walk_step_backward(*this, walk, next, grad, grad_rank);
  }
  void running_sums(const CsrView& csr, const double* weight, double* cumulative) {
    cuda::running_sums(*this, csr, weight, cumulative);
  }
  void random_walk(const RandomWalk& walk, const std::int64_t* start, std::int64_t* nodes) {
    cuda::random_walk(*this, walk, start, nodes);
  }
};

}  // namespace

void register_walk_cuda(torch::Library& m) { register_walk<Cuda>(m); }

}  // namespace gat::binding
