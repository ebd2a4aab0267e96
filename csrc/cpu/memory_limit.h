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

namespace gat::cpu {

inline constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

// The number in a file; kNoLimit where there is no such file, or no number in it.
inline std::size_t limit_in_file(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t bytes = 0;
  return file >> bytes ? static_cast<std::size_t>(bytes) : kNoLimit;
}

// The lowest limit of a cgroup and of those that it is in. A process in a container may see its
// path from the host below a mount that begins at its own cgroup: there only the last one, "",
// exists.
inline std::size_t lowest_limit(const std::string& mount, std::string cgroup,
                                const std::string& file) {
  std::size_t lowest = kNoLimit;
  for (;;) {
    while (!cgroup.empty() && cgroup.back() == '/') cgroup.pop_back();
    lowest = std::min(lowest, limit_in_file(mount + cgroup + "/" + file));
    if (cgroup.empty()) return lowest;
    cgroup.resize(std::min(cgroup.rfind('/'), cgroup.size()));
    if (cgroup.find('/') == std::string::npos) cgroup.clear();
  }
}

// The limit of this process's cgroups, of either version; kNoLimit for none. `root` is that of the
// file system, where tests put files of their own.
inline std::size_t cgroup_limit(const std::string& root = "") {
  std::ifstream cgroups(root + "/proc/self/cgroup");
  const std::string mount = root + "/sys/fs/cgroup";
  std::size_t lowest = kNoLimit;
  // Lines are NUMBER:CONTROLLERS:PATH, without controllers in version 2.
  for (std::string line; std::getline(cgroups, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (controllers == ",,") {
      for (const char* const place : {"", "/unified"}) {
        lowest = std::min(lowest, lowest_limit(mount + place, path, "memory.max"));
      }
    } else if (controllers.find(",memory,") != std::string::npos) {
      lowest = std::min(lowest, lowest_limit(mount + "/memory", path, "memory.limit_in_bytes"));
    }
  }
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
