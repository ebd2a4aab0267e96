// Walks on the GPU. A plain C++ face.
#pragma once

#include <cstdint>

#include "../core/walk.h"
#include "stream.h"

namespace gat::cuda {

// T is float or double. All pointers are to the memory of the device.

// next [B], log_prob [B].
template <class T>
void walk_step(Context&, const WalkStep<T>&, std::int64_t* next, T* log_prob);

// grad_rank [B, R], full of zeros on entry.
template <class T>
void walk_step_backward(Context&, const WalkStep<T>&, const std::int64_t* next, const T* grad,
                        T* grad_rank);

// Running sums of weight [E] within each row: cumulative [E]. Both in CSR order.
void running_sums(Context&, const CsrView&, const double* weight, double* cumulative);

// nodes [B, length + 1], the first column from start [B].
void random_walk(Context&, const RandomWalk&, const std::int64_t* start, std::int64_t* nodes);

}  // namespace gat::cuda
