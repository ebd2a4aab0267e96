#include "waiting.h"

#include <omp.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <limits>
#include <system_error>
#include <thread>

#include "cpu_quota.h"
#include "loop_end.h"

namespace gat::cpu {
namespace {

constexpr std::int64_t kMillisecond = 1'000'000, kSecond = 1'000 * kMillisecond;
// A wait is long if it has this length, a fraction of a time slice, and that of several work items.
constexpr std::int64_t kLongWait = kMillisecond, kItems = 8;
// Three long waits within this time begin a period of brief spinning.
constexpr std::int64_t kWithin = kSecond / 2;
// A period lasts this long at least, and twice the last one's time if it follows soon.
constexpr std::int64_t kShortest = kSecond / 2, kLongest = 16 * kSecond;
// A period ends when there are fewer preemptions in a second. Without other work there are some
// tens; beside a busy process, threads that wake each other are preempted thousands of times.
constexpr std::int64_t kPreemptions = 100;

constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::min() / 2;

std::int64_t nanoseconds() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

std::int64_t preemptions_of_process() {
  rusage usage{};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_nivcsw : 0;
}

}  // namespace

// A team of OpenMP that has run a loop and now sleeps. A forked process has none of its threads.
class SleepingThreads {
 public:
  explicit SleepingThreads(int number) : process_(getpid()) {
    thread_ = std::thread([this, number] {
      std::atomic<int> ran{0};
#pragma omp parallel num_threads(number)
      ++ran;
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return end_; });
    });
  }
  ~SleepingThreads() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      end_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  bool of_this_process() const { return process_ == getpid(); }

 private:
  const pid_t process_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool end_ = false;
  std::thread thread_;
};

Waiting::Waiting(std::int64_t (*preemptions)())
    : preemptions_(preemptions),
      long_waits_{kNever, kNever},
      last_end_(kNever),
      duration_(kShortest) {}

Waiting::~Waiting() = default;

void Waiting::loop_ended(std::int64_t now, std::int64_t waited, std::int64_t item,
                         int num_threads) {
  const bool brief = is_brief();
  const bool is_long = waited > std::max(kLongWait, kItems * item);
  if (brief ? now < next_review_.load(std::memory_order_relaxed) : !is_long) return;
  std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock() || brief != is_brief()) return;
  if (brief) {
    review(now);
  } else if (now - long_waits_[0] <= kWithin) {
    const bool soon = now - last_end_ < 2 * duration_;
    duration_ = soon ? std::min(2 * duration_, kLongest) : kShortest;
    preemptions_before_ = preemptions_();
    counted_at_ = now;
    begin(num_threads, now + duration_);
  } else {
    long_waits_ = {long_waits_[1], now};
  }
}

void Waiting::stay_brief(int num_threads) {
  begin(num_threads, std::numeric_limits<std::int64_t>::max());
}

void Waiting::begin(int num_threads, std::int64_t next_review) {
  // The calling thread's team has num_threads threads; the new one counts without its first.
  const int number = std::max(2, omp_get_num_procs() - num_threads + 2);
  try {
    sleeping_ = std::make_unique<SleepingThreads>(number);
  } catch (const std::system_error&) {  // no more threads are allowed
    return;
  }
  next_review_ = next_review;
  brief_ = true;
}

void Waiting::review(std::int64_t now) {
  const std::int64_t preemptions = preemptions_(),
                     passed = std::max<std::int64_t>(now - counted_at_, 1);
  const double in_second =
      1e9 * static_cast<double>(preemptions - preemptions_before_) / static_cast<double>(passed);
  preemptions_before_ = preemptions;
  counted_at_ = now;
  next_review_ = now + kShortest;
  if (in_second > static_cast<double>(kPreemptions)) return;
  if (sleeping_->of_this_process()) {
    sleeping_.reset();
  } else {
    static_cast<void>(sleeping_.release());
  }
  long_waits_ = {kNever, kNever};
  last_end_ = now;
  brief_ = false;
}

Waiting* process_waiting() {
  // Never deleted: its threads may sleep when the process ends.
  static Waiting* const waiting = []() -> Waiting* {
    if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return nullptr;
    auto* const of_process = new Waiting(preemptions_of_process);
    const int threads = omp_get_max_threads();
    if (cpu_quota() < threads) of_process->stay_brief(threads);
    return of_process;
  }();
  return waiting;
}

bool waits_briefly() { return process_waiting() != nullptr && process_waiting()->is_brief(); }

LoopEnd::LoopEnd(int num_threads)
    : num_threads_(process_waiting() == nullptr ? 1 : num_threads),
      start_(num_threads_ > 1 ? nanoseconds() : 0) {}

void LoopEnd::arrive() {
  if (num_threads_ <= 1 || first_arrival_.load(std::memory_order_relaxed) != 0) return;
  std::int64_t none = 0;
  first_arrival_.compare_exchange_strong(none, nanoseconds(), std::memory_order_relaxed);
}

void LoopEnd::finish(std::int64_t num_items) const {
  if (num_threads_ <= 1) return;
  const std::int64_t now = nanoseconds(), first = first_arrival_.load(std::memory_order_relaxed);
  const std::int64_t item = (first - start_) * num_threads_ / std::max<std::int64_t>(num_items, 1);
  process_waiting()->loop_ended(now, now - first, item, num_threads_);
}

}  // namespace gat::cpu
