// Walks on the GPU: one thread per agent, which adds the weights of a row in their order, so that
// it draws the same walk as the CPU.
#include "walk.h"

#include "launch.cuh"
#include "warp.cuh"

namespace gat::cuda {
namespace {

// Independent loads of an agent that are in flight together.
constexpr int kNeighbours = 4, kProbes = 3;

// Without a minimum number of blocks ptxas limits the kernels to 32 registers: walk_step_kernel
// spills, and random_walk_kernel waits for a probe before it loads the next.
constexpr int kMinBlocks = 8;

template <class T>
__global__ void __launch_bounds__(kBlock, kMinBlocks)
    walk_step_kernel(const WalkStep<T> walk, std::int64_t* next, T* log_prob) {
  const std::int64_t agent = thread_id();
  if (agent >= walk.num_agents) return;
  gat::walk_step<kNeighbours>(
      walk, agent, walk.greedy ? 0 : walk_uniform(*walk.seed, agent, walk.step), next, log_prob);
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    walk_step_backward_kernel(const WalkStep<T> walk, const std::int64_t* next, const T* grad,
                              T* grad_rank) {
  const std::int64_t agent = thread_id();
  if (agent < walk.num_agents)
    gat::walk_step_backward<kNeighbours>(walk, agent, next, grad, grad_rank);
}

// One warp per row: its lanes load adjacent weights, and each adds all weights up to its own in
// their order.
__global__ void __launch_bounds__(kBlock)
    running_sums_kernel(const CsrView csr, const double* weight, double* cumulative) {
  const std::int64_t row = thread_id() / kWarp;
  if (row >= csr.num_rows) return;
  const std::int64_t begin = csr.rowptr[row], end = csr.rowptr[row + 1];
  double sum = 0;  // of all weights before `first`
  double next = begin + lane_id() < end ? __ldg(weight + begin + lane_id()) : 0;
  for (std::int64_t first = begin; first < end; first += kWarp) {
    const std::int64_t k = first + lane_id();
    const double own = summand(next);
    if (k + kWarp < end) next = __ldg(weight + k + kWarp);
    const int count = end - first < kWarp ? static_cast<int>(end - first) : kWarp;
    double up_to_own = 0;
#pragma unroll 8
    for (int lane = 0; lane < count; ++lane) {
      sum += __shfl_sync(kFullWarp, own, lane);
      if (lane == lane_id()) up_to_own = sum;
    }
    if (k < end) cumulative[k] = up_to_own;
  }
}

__global__ void __launch_bounds__(kBlock, kMinBlocks)
    random_walk_kernel(const RandomWalk walk, const std::int64_t* start, std::int64_t* nodes) {
  const std::int64_t agent = thread_id();
  if (agent >= walk.num_walks) return;
  std::int64_t* const path = nodes + agent * (walk.length + 1);
  std::int64_t node = start[agent];
  path[0] = node;
  for (std::int64_t t = 0; t < walk.length; ++t) {
    const std::int64_t edge = random_edge<kProbes>(walk, node, walk_uniform(*walk.seed, agent, t));
    if (edge != kStays) node = walk.csr.col[edge];
    path[t + 1] = node;
  }
}

}  // namespace

template <class T>
void walk_step(Context& context, const WalkStep<T>& walk, std::int64_t* next, T* log_prob) {
  launch(context, ceil_div(walk.num_agents, kBlock), &walk_step_kernel<T>, walk, next, log_prob);
}

template <class T>
void walk_step_backward(Context& context, const WalkStep<T>& walk, const std::int64_t* next,
                        const T* grad, T* grad_rank) {
  launch(context, ceil_div(walk.num_agents, kBlock), &walk_step_backward_kernel<T>, walk, next,
         grad, grad_rank);
}

void running_sums(Context& context, const CsrView& csr, const double* weight, double* cumulative) {
  launch(context, ceil_div(csr.num_rows * kWarp, kBlock), &running_sums_kernel, csr, weight,
         cumulative);
}

void random_walk(Context& context, const RandomWalk& walk, const std::int64_t* start,
                 std::int64_t* nodes) {
  launch(context, ceil_div(walk.num_walks, kBlock), &random_walk_kernel, walk, start, nodes);
}

template void walk_step(Context&, const WalkStep<float>&, std::int64_t*, float*);
template void walk_step(Context&, const WalkStep<double>&, std::int64_t*, double*);
template void walk_step_backward(Context&, const WalkStep<float>&, const std::int64_t*,
                                 const float*, float*);
template void walk_step_backward(Context&, const WalkStep<double>&, const std::int64_t*,
                                 const double*, double*);

}  // namespace gat::cuda
