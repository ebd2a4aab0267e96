// How long threads of OpenMP spin before they sleep, while they wait for one another.
//
// libgomp's threads spin for some milliseconds. On a quiet machine that makes short loops fast.
// Beside another busy process a spinning thread keeps a CPU from the thread that it waits for, and
// every loop may last a time slice of the scheduler. The environment sets the time for good, before
// the process starts. But while there are more threads of OpenMP than CPUs, libgomp spins for some
// microseconds only (its manual, GOMP_SPINCOUNT). So, once threads have waited for long at the ends
// of a few loops, further threads are started, which sleep; they end when the scheduler no longer
// takes the CPU from this process. torch's loops run on the same libgomp and wait as ours do.
//
// Nothing is done where OMP_WAIT_POLICY or GOMP_SPINCOUNT is set. No result depends on any of this.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

namespace gat::cpu {

class SleepingThreads;

class Waiting {
 public:
  // preemptions(): how often the scheduler has taken a CPU from a thread of this process.
  explicit Waiting(std::int64_t (*preemptions)());
  ~Waiting();

  // A loop of several threads ended at `now`. The first of them to find no work left waited for the
  // others; item is the mean time of a work item. All in nanoseconds.
  void loop_ended(std::int64_t now, std::int64_t waited, std::int64_t item, int num_threads);

  // From now on, threads spin for microseconds only.
  void stay_brief(int num_threads);

  // Whether they do so now.
  bool is_brief() const { return brief_.load(std::memory_order_relaxed); }

 private:
  void begin(int num_threads, std::int64_t next_review);
  void review(std::int64_t now);

  std::int64_t (*const preemptions_)();
  std::atomic<bool> brief_{false};
  std::atomic<std::int64_t> next_review_{0};
  std::mutex mutex_;  // of what follows; held for short times, and never waited for
  std::array<std::int64_t, 2> long_waits_;  // when the last ones were
  std::int64_t last_end_, duration_, preemptions_before_ = 0, counted_at_ = 0;
  std::unique_ptr<SleepingThreads> sleeping_;
};

// That of this process; null where the environment says how threads wait.
Waiting* process_waiting();

// Whether threads of this process spin for microseconds only, because they waited for long.
__attribute__((visibility("default"))) bool waits_briefly();

}  // namespace gat::cpu
