// Launches: the grid runs at once, block after block, before the launch returns.
//
// GAT_EMULATION_THREADS threads of the host (default 1) share the blocks. With a number other than
// 0 in GAT_EMULATION_ORDER they run in an order that it draws, in which a block that reads what
// another one writes finds other values. Everything a kernel does
// that CUDA leaves undefined and the emulation notices is thrown out of the launch as
// std::runtime_error; later launches are not affected.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>
#include <type_traits>
#include <utility>

#include "block.h"

namespace gat_emulation {

// The blocks that are not running, kept for their stacks.
class BlockPool {
 public:
  static BlockPool& instance() {
    static BlockPool pool;
    return pool;
  }
  std::unique_ptr<Block> take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.empty()) return std::make_unique<Block>();
    std::unique_ptr<Block> block = std::move(free_.back());
    free_.pop_back();
    return block;
  }
  void give_back(std::unique_ptr<Block> block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(std::move(block));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Block>> free_;
};

inline std::uint64_t num_blocks(const dim3& grid) {
  return std::uint64_t{grid.x} * grid.y * grid.z;
}

inline void check_configuration(const dim3& grid, const dim3& block, std::size_t shared_bytes) {
  const auto refuse = [&](const char* expected) {
    throw std::runtime_error("CUDA emulation: a launch with grid " + triple(grid) + " and block " +
                             triple(block) + "; expected " + expected);
  };
  if (num_blocks(grid) == 0) refuse("a grid that is not empty");
  if (grid.x > 0x7fffffffu) refuse("at most 2147483647 blocks along x");
  if (grid.y > 65535 || grid.z > 65535) refuse("at most 65535 blocks along y and z");
  if (num_blocks(block) == 0) refuse("a block that is not empty");
  if (block.x > 1024 || block.y > 1024 || block.z > 64)
    refuse("at most 1024 threads along x and y and 64 along z");
  if (num_blocks(block) > 1024) refuse("at most 1024 threads a block");
  if (shared_bytes != 0) refuse("no dynamic shared memory, which is not emulated");
}

inline unsigned host_threads() {
  const char* const given = std::getenv("GAT_EMULATION_THREADS");
  const int count = given ? std::atoi(given) : 1;
  return count > 1 ? static_cast<unsigned>(count) : 1u;
}

// An order of the blocks: block i of it is (factor i + offset) mod count, for a factor prime to
// count.
class BlockOrder {
 public:
  BlockOrder(std::uint64_t count, std::uint64_t seed) : count_(count) {
    if (seed == 0 || count < 2) return;
    std::mt19937_64 generator(seed);
    offset_ = generator() % count;
    do factor_ = 1 + generator() % (count - 1);
    while (std::gcd(factor_, count) != 1);
  }
  std::uint64_t operator()(std::uint64_t i) const {
    // count < 2^63, so a sum of two remainders does not overflow.
    std::uint64_t product = 0;
    for (std::uint64_t bits = factor_, term = i; bits > 0; bits >>= 1, term = 2 * term % count_) {
      if (bits & 1) product = (product + term) % count_;
    }
    return (product + offset_) % count_;
  }

 private:
  std::uint64_t count_, factor_ = 1, offset_ = 0;
};

inline std::uint64_t block_order() {
  const char* const given = std::getenv("GAT_EMULATION_ORDER");
  return given ? std::strtoull(given, nullptr, 10) : 0;
}

inline void run_grid(const Launch& launch) {
  std::atomic<std::uint64_t> next{0};
  const std::uint64_t count = num_blocks(launch.grid);
  const BlockOrder order(count, block_order());
  std::mutex mutex;
  std::exception_ptr error;
  const auto run_blocks = [&] {
    std::unique_ptr<Block> block = BlockPool::instance().take();
    try {
      for (std::uint64_t t; (t = next.fetch_add(1)) < count;) {
        const std::uint64_t i = order(t);
        const std::uint64_t yz = i / launch.grid.x;
        block->run(launch, {static_cast<unsigned>(i % launch.grid.x),
                            static_cast<unsigned>(yz % launch.grid.y),
                            static_cast<unsigned>(yz / launch.grid.y)});
      }
    } catch (...) {
      next = count;
      const std::lock_guard<std::mutex> lock(mutex);
      if (!error) error = std::current_exception();
    }
    BlockPool::instance().give_back(std::move(block));
  };
  std::vector<std::thread> helpers;
  for (unsigned t = 1; t < host_threads() && t < count; ++t) helpers.emplace_back(run_blocks);
  run_blocks();
  for (std::thread& helper : helpers) helper.join();
  if (error) std::rethrow_exception(error);
}

// What an observer sees of a launch, before and after it runs: the parameters lie in order, each
// aligned to its alignment, as in the constant memory of a GPU.
struct Observed {
  void (*kernel)();
  dim3 grid, block;
  void** args;
  const std::size_t *sizes, *alignments;
  std::size_t count;
  bool done;
};
using Observer = void (*)(const Observed*);
inline std::atomic<Observer> observer{nullptr};

template <class... Ps>
void observe(void (*kernel)(Ps...), dim3 grid, dim3 block, void** args, bool done) {
  static constexpr std::size_t sizes[] = {sizeof(Ps)...}, alignments[] = {alignof(Ps)...};
  if (const Observer see = observer) {
    const Observed launch{reinterpret_cast<void (*)()>(kernel),
                          grid,
                          block,
                          args,
                          sizes,
                          alignments,
                          sizeof...(Ps),
                          done};
    see(&launch);
  }
}

template <class... Ps, std::size_t... I>
void call_with(void (*kernel)(Ps...), void** args, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<Ps>*>(args[I])...);
}

}  // namespace gat_emulation

template <class... Ps>
cudaError_t cudaLaunchKernel(void (*kernel)(Ps...), dim3 grid, dim3 block, void** args,
                             std::size_t shared_bytes = 0, cudaStream_t = nullptr) {
  gat_emulation::check_configuration(grid, block, shared_bytes);
  if (gat_emulation::next_error != cudaSuccess)
    return std::exchange(gat_emulation::next_error, cudaSuccess);
  gat_emulation::observe(kernel, grid, block, args, false);
  const auto call = [](void (*forgotten)(), void** values) {
    gat_emulation::call_with(reinterpret_cast<void (*)(Ps...)>(forgotten), values,
                             std::index_sequence_for<Ps...>{});
  };
  gat_emulation::run_grid({call, reinterpret_cast<void (*)()>(kernel), args, grid, block});
  gat_emulation::observe(kernel, grid, block, args, true);
  return cudaSuccess;
}
