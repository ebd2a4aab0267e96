// Measures how long threads wait for one another at the end of a loop; waiting.h acts on it.
#pragma once

#include <atomic>
#include <cstdint>

namespace gat::cpu {

class LoopEnd {
 public:
  explicit LoopEnd(int num_threads);
  // Called by each thread that finds no work item left.
  void arrive();
  // Called once, after the last thread.
  void finish(std::int64_t num_items) const;

 private:
  const int num_threads_;
  const std::int64_t start_;
  std::atomic<std::int64_t> first_arrival_{0};
};

}  // namespace gat::cpu
