// How much CPU time this process may use.
#pragma once

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "cgroup.h"

namespace gat::cpu {

inline constexpr double kNoQuota = std::numeric_limits<double>::infinity();

// Seconds of CPU time per second: the lowest quota of this process's cgroups; kNoQuota for none.
inline double cpu_quota(const std::string& root = "") {
  double lowest = kNoQuota;
  for_each_cgroup(root, "cpu", [&](const std::string& folder) {
    double quota = 0, period = 0;
    // Version 2: "max" is not read as a number. Version 1: -1 is no quota.
    std::ifstream both(folder + "/cpu.max");
    if (!(both >> quota >> period)) {
      std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
      std::ifstream(folder + "/cpu.cfs_period_us") >> period;
    }
    if (quota > 0 && period > 0) lowest = std::min(lowest, quota / period);
  });
  return lowest;
}

}  // namespace gat::cpu
