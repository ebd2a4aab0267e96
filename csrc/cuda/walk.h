// Walks on the GPU, as plain C++ functions.
#pragma once

#include <cstdint>

#include "../core/walk.h"
#include "stream.h"

namespace gat::cuda {

// T is float or double. All pointers are to device memory.

// Writes next [B] and log_prob [B].
template <class T>
void walk_step(Context&, const WalkStep<T>&, std::int64_t* next, T* log_prob);

// Writes grad_rank [B, R], which is zero on entry.
template <class T>
void walk_step_backward(Context&, const WalkStep<T>&, const std::int64_t* next, const T* grad,
                        T* grad_rank);

// Writes the running sums of weight [E] within each row to cumulative [E]. Both are in CSR order.
void running_sums(Context&, const CsrView&, const double* weight, double* cumulative);

// Writes nodes [B, length + 1], whose first column is start [B].
void random_walk(Context&, const RandomWalk&, const std::int64_t* start, std::int64_t* nodes);

}  // namespace gat::cuda
