// Long waits at the ends of loops make waits brief, until nothing takes the CPU from the process.
#include "cpu/waiting.h"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <thread>

#include "check.h"

namespace {

using gat::cpu::Waiting;

std::int64_t preemptions = 0;

std::int64_t threads_of_process() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return std::distance(begin(tasks), end(tasks));
}

constexpr std::int64_t kMs = 1'000'000;

}  // namespace

int main() {
  std::thread([] {}).join();  // a sanitizer may start one of its own beside the first
  const std::int64_t before = threads_of_process();
  Waiting waiting([] { return preemptions; });
  std::int64_t now = 1000 * kMs;
  const auto loop = [&](std::int64_t waited, std::int64_t item, std::int64_t passed) {
    now += passed * kMs;
    waiting.loop_ended(now, waited, item, 2);
    return waiting.is_brief();
  };

  CHECK(!loop(kMs / 2, 1000, 1) && !loop(kMs / 2, 1000, 1));          // short waits
  CHECK(!loop(20 * kMs, 4 * kMs, 1) && !loop(20 * kMs, 4 * kMs, 1));  // waits of a few items
  CHECK(!loop(3 * kMs, 1000, 1) && !loop(3 * kMs, 1000, 900));        // long waits, far apart
  CHECK(!loop(3 * kMs, 1000, 10) && loop(3 * kMs, 1000, 10));         // three long waits
  CHECK(threads_of_process() > before);                               // further threads

  CHECK(loop(0, 1000, 100));  // a period lasts
  preemptions += 10'000;
  CHECK(loop(0, 1000, 500));  // a busy process at its end
  preemptions += 10;
  CHECK(!loop(0, 1000, 600));  // none at its end
  for (int i = 0; threads_of_process() > before; ++i) {
    CHECK(i < 1000);  // their threads end
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }

  for (int i = 0; i < 2; ++i) CHECK(!loop(3 * kMs, 1000, 10));
  CHECK(loop(3 * kMs, 1000, 10));  // again
  CHECK(loop(0, 1000, 700));       // a period that follows soon lasts twice as long
  CHECK(!loop(0, 1000, 400));      // and ends

  Waiting always([] { return preemptions; });
  always.stay_brief(2);
  always.loop_ended(now + 3'600'000 * kMs, 0, 1000, 2);
  CHECK(always.is_brief());
}
