// The part of GCC's OpenMP runtime that the kernels call, implemented with std::thread for the
// thread sanitizer, which does not know the fork, the join and the barriers of libgomp and would
// report false races. It is linked instead of libgomp, so the pragmas of the kernels compile as
// usual; an entry point that is missing here is a linker error.
//
// Thread c mod n runs chunk c of a loop with schedule(dynamic). OpenMP allows that order, every
// thread gets a share of short loops too, and no atomic orders accesses that the kernels do not
// order.
#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

namespace {

class Team {
 public:
  explicit Team(int size) : size_(size) {}
  int size() const { return size_; }
  void barrier() {
    std::unique_lock<std::mutex> lock(mutex_);
    const unsigned round = round_;
    if (++arrived_ == size_) {
      arrived_ = 0;
      ++round_;
      all_arrived_.notify_all();
    } else {
      all_arrived_.wait(lock, [&] { return round_ != round; });
    }
  }

 private:
  const int size_;
  int arrived_ = 0;
  unsigned round_ = 0;
  std::mutex mutex_;
  std::condition_variable all_arrived_;
};

// The number of a thread in its team, and its remaining iterations of a loop.
struct Member {
  Team* team = nullptr;
  int number = 0;
  long next = 0, end = 0, chunk = 0, stride = 0;
};

thread_local Member self;

int team_size() { return self.team ? self.team->size() : 1; }

void share_loop(long begin, long end, long step, long chunk) {
  if (step != 1) std::abort();  // the kernels count up by one
  self.chunk = chunk;
  self.stride = chunk * team_size();
  self.next = begin + chunk * self.number;
  self.end = end;
}

bool take_chunk(long* first, long* last) {
  if (self.next >= self.end) return false;
  *first = self.next;
  *last = std::min(self.next + self.chunk, self.end);
  self.next += self.stride;
  return true;
}

template <class Body>
void fork_and_join(unsigned num_threads, const Body& body) {
  Team team(static_cast<int>(std::max(num_threads, 1u)));
  const auto run_as = [&](int number) {
    const Member outside = self;
    self = {&team, number};
    body();
    self = outside;
  };
  std::vector<std::thread> threads;
  for (int number = 1; number < team.size(); ++number) threads.emplace_back(run_as, number);
  run_as(0);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

extern "C" {

int omp_get_num_threads() { return team_size(); }
int omp_get_num_procs() { return static_cast<int>(std::thread::hardware_concurrency()); }
int omp_get_max_threads() { return omp_get_num_procs(); }
int omp_get_thread_num() { return self.number; }

void GOMP_barrier() {
  if (self.team) self.team->barrier();
}

void GOMP_parallel(void (*body)(void*), void* data, unsigned num_threads, unsigned) {
  fork_and_join(num_threads, [=] { body(data); });
}

void GOMP_parallel_loop_nonmonotonic_dynamic(void (*body)(void*), void* data, unsigned num_threads,
                                             long begin, long end, long step, long chunk,
                                             unsigned) {
  fork_and_join(num_threads, [=] {
    share_loop(begin, end, step, chunk);
    body(data);
  });
}

bool GOMP_loop_nonmonotonic_dynamic_start(long begin, long end, long step, long chunk, long* first,
                                          long* last) {
  share_loop(begin, end, step, chunk);
  return take_chunk(first, last);
}
bool GOMP_loop_nonmonotonic_dynamic_next(long* first, long* last) {
  return take_chunk(first, last);
}

void GOMP_loop_end() { GOMP_barrier(); }
void GOMP_loop_end_nowait() {}

}  // extern "C"
