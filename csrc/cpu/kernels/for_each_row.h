// The loop over rows that all kernels share; ../partition.h divides the rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../../core/macros.h"
#include "../loop_end.h"
#include "../partition.h"
#include "../threads.h"

namespace gat::cpu {

// Scalars between the memory of two threads, so that they share no cache line.
inline constexpr std::int64_t kGap = 32;

// Runs a pass over all rows. A pass has
//   using Scalar, Scratch
//   state_size()            scalars in the state of a row
//   shared_size()           scalars summed over all rows; 0 if none
//   make_scratch()          buffers for one thread
//   prepare(row)            prefetches the rows of the results
//   init(state), accumulate(row, begin, end, state, shared, scratch), merge(state, const other),
//   finish(row, state)
//   finish_shared(shared)   called once, with the sum over all items in their order
template <class Pass>
void for_each_row(const std::int64_t* rowptr, const RowPartition& partition, int num_threads,
                  const Pass& pass) {
  using Scalar = typename Pass::Scalar;
  const auto num_items = static_cast<std::int64_t>(partition.items.size());
  const auto num_long = static_cast<std::int64_t>(partition.long_rows.size());
  const std::int64_t state_size = pass.state_size(), shared_size = pass.shared_size();
  const std::int64_t state_stride = state_size + kGap,
                     shared_stride = shared_size > 0 ? shared_size + kGap : 0;
  const int threads =
      threads_for(partition.num_edges * (state_size + shared_size + 16), num_items, num_threads);

  std::vector<Scalar> pieces(static_cast<std::size_t>(partition.num_pieces * state_stride));
  std::vector<Scalar> shared(static_cast<std::size_t>(num_items * shared_stride));
  std::vector<Scalar> states(static_cast<std::size_t>(threads * state_stride));
  std::vector<typename Pass::Scratch> scratches;
  for (int t = 0; t < threads; ++t) scratches.push_back(pass.make_scratch());
  std::int64_t next_slot = 0;  // each thread takes the next state and scratch
  LoopEnd loop_end(threads);

#pragma omp parallel num_threads(threads)
  {
    std::int64_t slot;
#pragma omp atomic capture
    slot = next_slot++;
    auto& scratch = scratches[static_cast<std::size_t>(slot)];
    Scalar* const own_state = states.data() + slot * state_stride;
#pragma omp for schedule(dynamic, 1) nowait
    for (std::int64_t t = 0; t < num_items; ++t) {
      const WorkItem& item = partition.items[static_cast<std::size_t>(t)];
      Scalar* const item_shared = shared.data() + t * shared_stride;
      if (item.piece >= 0) {
        Scalar* const state = pieces.data() + item.piece * state_stride;
        pass.init(state);
        pass.accumulate(item.row_begin, item.edge_begin, item.edge_end, state, item_shared,
                        scratch);
      } else {
        for (std::int64_t row = item.row_begin; row < item.row_end; ++row) {
          pass.init(own_state);
          pass.prepare(std::min(row + 1, item.row_end - 1));
          pass.accumulate(row, rowptr[row], rowptr[row + 1], own_state, item_shared, scratch);
          pass.finish(row, own_state);
        }
      }
    }
    loop_end.arrive();
    if (num_long > 0) {
#pragma omp barrier
#pragma omp for schedule(dynamic, 1) nowait
      for (std::int64_t t = 0; t < num_long; ++t) {
        const LongRow& long_row = partition.long_rows[static_cast<std::size_t>(t)];
        Scalar* const state = pieces.data() + long_row.first_piece * state_stride;
        for (std::int64_t p = 1; p < long_row.num_pieces; ++p)
          pass.merge(state, state + p * state_stride);
        pass.finish(long_row.row, state);
      }
    }
  }
  loop_end.finish(num_items);
  if (shared_size > 0) {
    std::vector<Scalar> total(static_cast<std::size_t>(shared_size));
    for (std::int64_t t = 0; t < num_items; ++t) {
      for (std::int64_t d = 0; d < shared_size; ++d)
        total[static_cast<std::size_t>(d)] +=
            shared[static_cast<std::size_t>(t * shared_stride + d)];
    }
    pass.finish_shared(total.data());
  }
}

// The merge of states that are sums.
template <class A>
GAT_HD void add_states(A* state, const A* other, std::int64_t size) {
  for (std::int64_t d = 0; d < size; ++d) state[d] += other[d];
}

// Base of passes that sum nothing over all rows, and whose result rows need no prefetch.
struct NothingShared {
  std::int64_t shared_size() const { return 0; }
  void prepare(std::int64_t) const {}
  template <class Scalar>
  void finish_shared(const Scalar*) const {}
};

}  // namespace gat::cpu
