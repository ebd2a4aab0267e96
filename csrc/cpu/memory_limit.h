// How much memory this process may use: that of the machine, or less where a cgroup says so.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <limits>
#include <string>

#if defined(__linux__)
#include <unistd.h>
#endif

#include "cgroup.h"

namespace gat::cpu {

inline constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

// The number in a file; kNoLimit where there is no such file, or no number in it.
inline std::size_t limit_in_file(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t bytes = 0;
  return file >> bytes ? static_cast<std::size_t>(bytes) : kNoLimit;
}

// The lowest limit of this process's cgroups; kNoLimit for none.
inline std::size_t cgroup_limit(const std::string& root = "") {
  std::size_t lowest = kNoLimit;
  for_each_cgroup(root, "memory", [&](const std::string& folder) {
    for (const char* const file : {"/memory.max", "/memory.limit_in_bytes"})
      lowest = std::min(lowest, limit_in_file(folder + file));
  });
  return lowest;
}

// kNoLimit where nothing is known.
inline std::size_t memory_limit(const std::string& root = "") {
  std::size_t bytes = cgroup_limit(root);
#if defined(__linux__)
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
  if (pages > 0 && page > 0) {
    bytes = std::min(bytes, static_cast<std::size_t>(pages) * static_cast<std::size_t>(page));
  }
#endif
  return bytes;
}

}  // namespace gat::cpu
