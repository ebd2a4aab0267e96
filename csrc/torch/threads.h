// The number of threads of the CPU operators.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>

#include "../cpu/cpu_quota.h"

namespace gat::binding {

// torch.get_num_threads(), or less where the cgroups of this process allow less CPU time: further
// threads would use it up by waiting, and then nothing runs until the next period.
inline int num_threads() {
  static const double quota = cpu::cpu_quota();
  const int threads = at::get_num_threads();
  return quota < threads ? std::max(1, static_cast<int>(quota)) : threads;
}

}  // namespace gat::binding
