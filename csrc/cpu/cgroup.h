// The control groups that this process is in, of either version. `root` is that of the file system,
// where tests put files of their own.
#pragma once

#include <algorithm>
#include <fstream>
#include <string>

namespace gat::cpu {

// Calls f(folder) for the cgroup with a path below a mount, and for those that it is in. A process
// in a container may see its path from the host below a mount that begins at its own cgroup: there
// only the last one, the mount itself, exists.
template <class F>
void for_each_ancestor(const std::string& mount, std::string cgroup, const F& f) {
  for (;;) {
    while (!cgroup.empty() && cgroup.back() == '/') cgroup.pop_back();
    f(mount + cgroup);
    if (cgroup.empty()) return;
    cgroup.resize(std::min(cgroup.rfind('/'), cgroup.size()));
    if (cgroup.find('/') == std::string::npos) cgroup.clear();
  }
}

// Calls f(folder) for each cgroup in which a controller may limit this process.
template <class F>
void for_each_cgroup(const std::string& root, const std::string& controller, const F& f) {
  std::ifstream cgroups(root + "/proc/self/cgroup");
  const std::string mount = root + "/sys/fs/cgroup/";
  // Lines are NUMBER:CONTROLLERS:PATH, without controllers in version 2.
  for (std::string line; std::getline(cgroups, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      for (const char* const place : {"", "unified"}) for_each_ancestor(mount + place, path, f);
    } else if (("," + controllers + ",").find("," + controller + ",") != std::string::npos) {
      for_each_ancestor(mount + controller, path, f);
      if (controllers != controller) for_each_ancestor(mount + controllers, path, f);
    }
  }
}

}  // namespace gat::cpu
