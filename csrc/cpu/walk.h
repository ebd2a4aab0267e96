// Walks on the CPU.
#pragma once

#include <cstdint>

#include "../core/walk.h"

namespace gat::cpu {

// T is float or double.
template <class T>
struct WalkStepKernels {
  // Writes next [B] and log_prob [B]. Returns false where an index is out of range.
  bool (*step)(const WalkStep<T>&, std::int64_t* next, T* log_prob, int num_threads);
  // Writes grad_rank [B, R], which is zero on entry.
  void (*backward)(const WalkStep<T>&, const std::int64_t* next, const T* grad, T* grad_rank,
                   int num_threads);
};

struct RandomWalkKernels {
  // Writes the running sums of weight [E] within each row to cumulative [E]. Both are in CSR order.
  void (*running_sums)(const CsrView&, const double* weight, double* cumulative, int num_threads);
  // Writes nodes [B, length + 1], whose first column is start [B].
  void (*walk)(const RandomWalk&, const std::int64_t* start, std::int64_t* nodes, int num_threads);
};

template <class Isa, class T>
WalkStepKernels<T> walk_step_kernels();

template <class Isa>
RandomWalkKernels random_walk_kernels();

}  // namespace gat::cpu
