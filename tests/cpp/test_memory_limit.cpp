// Limits of cgroups, in a file system of the test.
#include "cpu/memory_limit.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "check.h"

namespace {

namespace fs = std::filesystem;
using gat::cpu::kNoLimit;

std::size_t limit_of(const std::map<std::string, std::string>& files) {
  const fs::path root = fs::temp_directory_path() / ("gat_ext_limit_" + std::to_string(getpid()));
  for (const auto& [name, content] : files) {
    const fs::path path = root / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << content;
  }
  const std::size_t limit = gat::cpu::cgroup_limit(root.string());
  const std::size_t all = gat::cpu::memory_limit(root.string());
  fs::remove_all(root);
  CHECK(all <= limit && all > 0 && all < kNoLimit);  // the machine's memory is a limit too
  return limit;
}

const std::string kSelf = "proc/self/cgroup", kMount = "sys/fs/cgroup/", kMax = "/memory.max",
                  kBytes = "/memory.limit_in_bytes";

}  // namespace

int main() {
  // None: no cgroups, files that are missing or say "max" or nonsense, lines that are none.
  CHECK(limit_of({}) == kNoLimit);
  CHECK(limit_of({{kSelf, "0::/a/b\n"}}) == kNoLimit);
  CHECK(limit_of({{kSelf, "0::/a\n"}, {kMount + "a" + kMax, "max\n"}}) == kNoLimit);
  CHECK(limit_of({{kSelf, "0::/a\n"}, {kMount + "a" + kMax, ""}}) == kNoLimit);
  CHECK(limit_of({{kSelf, "\n::\n0\nx:y\n"}, {kMount + "a" + kMax, "5"}}) == kNoLimit);

  // Version 2: its own limit, that of an ancestor, the lower of both, and not a sibling's.
  const std::string self = "0::/a/b/c\n";
  CHECK(limit_of({{kSelf, self}, {kMount + "a/b/c" + kMax, "1000\n"}}) == 1000);
  CHECK(limit_of({{kSelf, self}, {kMount + "a/b" + kMax, "2000\n"}}) == 2000);
  CHECK(limit_of({{kSelf, self}, {kMount + "a" + kMax, "3000\n"}}) == 3000);
  CHECK(limit_of({{kSelf, self},
                  {kMount + "a/b/c" + kMax, "9000"},
                  {kMount + "a/b" + kMax, "max"},
                  {kMount + "a" + kMax, "4000"}}) == 4000);
  CHECK(limit_of({{kSelf, self}, {kMount + "a/x" + kMax, "7"}, {kMount + "b" + kMax, "8"}}) ==
        kNoLimit);
  CHECK(limit_of({{kSelf, "0::/a/b c/\n"}, {kMount + "a/b c" + kMax, "5000"}}) == 5000);

  // In a container the mount begins at its own cgroup, whether it sees a path from the host or not.
  CHECK(limit_of({{kSelf, "0::/\n"}, {"sys/fs/cgroup" + kMax, "6000"}}) == 6000);
  CHECK(limit_of({{kSelf, "0::/docker/1\n"}, {"sys/fs/cgroup" + kMax, "6000"}}) == 6000);
  CHECK(limit_of({{kSelf, "0::/../1\n"}, {"sys/fs/cgroup" + kMax, "6000"}}) == 6000);

  // Version 1, alone and beside version 2; a number beyond any memory is no limit of importance.
  const std::string both = "12:cpu,cpuacct:/x\n5:devices,memory:/d/e\n0::/s\n";
  CHECK(limit_of({{kSelf, both}, {kMount + "memory/d/e" + kBytes, "700\n"}}) == 700);
  CHECK(limit_of({{kSelf, both}, {kMount + "memory/d" + kBytes, "800\n"}}) == 800);
  CHECK(limit_of({{kSelf, both}, {kMount + "memory" + kBytes, "900\n"}}) == 900);
  CHECK(limit_of({{kSelf, both}, {kMount + "memory/x" + kBytes, "1\n"}}) == kNoLimit);
  CHECK(limit_of({{kSelf, both},
                  {kMount + "memory/d/e" + kBytes, "9223372036854771712\n"},
                  {kMount + "unified/s" + kMax, "600\n"}}) == 600);
  CHECK(limit_of({{kSelf, "3:memory_x:/d\n"}, {kMount + "memory/d" + kBytes, "1"}}) == kNoLimit);
  return 0;
}
