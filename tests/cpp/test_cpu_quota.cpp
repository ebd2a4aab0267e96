// CPU quotas of cgroups, in a file system of the test.
#include "cpu/cpu_quota.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "check.h"

namespace {

namespace fs = std::filesystem;
using gat::cpu::kNoQuota;

double quota_of(const std::map<std::string, std::string>& files) {
  const fs::path root = fs::temp_directory_path() / ("gat_ext_quota_" + std::to_string(getpid()));
  for (const auto& [name, content] : files) {
    const fs::path path = root / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << content;
  }
  const double quota = gat::cpu::cpu_quota(root.string());
  fs::remove_all(root);
  return quota;
}

const std::string kSelf = "proc/self/cgroup", kMount = "sys/fs/cgroup/", kMax = "/cpu.max",
                  kQuota = "/cpu.cfs_quota_us", kPeriod = "/cpu.cfs_period_us";

}  // namespace

int main() {
  CHECK(quota_of({}) == kNoQuota);
  CHECK(quota_of({{kSelf, "0::/a\n"}, {kMount + "a" + kMax, "max 100000\n"}}) == kNoQuota);
  CHECK(quota_of({{kSelf, "0::/a\n"}, {kMount + "a" + kMax, "nonsense"}}) == kNoQuota);

  // Version 2: the lower of its own and those above.
  const std::string self = "0::/a/b\n";
  CHECK(quota_of({{kSelf, self}, {kMount + "a/b" + kMax, "150000 100000\n"}}) == 1.5);
  CHECK(quota_of({{kSelf, self},
                  {kMount + "a/b" + kMax, "max 100000"},
                  {kMount + "a" + kMax, "50000 100000"}}) == 0.5);
  CHECK(quota_of({{kSelf, "0::/docker/1\n"}, {"sys/fs/cgroup" + kMax, "200000 100000"}}) == 2);

  // Version 1: by the name of the controller, or of all that are mounted together.
  for (const std::string folder : {"cpu", "cpu,cpuacct"}) {
    CHECK(quota_of({{kSelf, "4:cpu,cpuacct:/x\n"},
                    {kMount + folder + "/x" + kQuota, "300000\n"},
                    {kMount + folder + "/x" + kPeriod, "100000\n"}}) == 3);
    CHECK(quota_of({{kSelf, "4:cpu,cpuacct:/x\n"},
                    {kMount + folder + "/x" + kQuota, "-1\n"},
                    {kMount + folder + "/x" + kPeriod, "100000\n"}}) == kNoQuota);
  }
  CHECK(quota_of({{kSelf, "4:cpuset:/x\n"},
                  {kMount + "cpu/x" + kQuota, "1\n"},
                  {kMount + "cpu/x" + kPeriod, "1\n"}}) == kNoQuota);
  return 0;
}
