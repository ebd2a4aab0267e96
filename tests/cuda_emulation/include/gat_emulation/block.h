// One block of threads, run on one thread of the host: every CUDA thread is a fiber that runs until
// it has to wait.
//
// A warp runs until none of its lanes can go on: all have exited or wait at __syncthreads. Where
// lanes wait at a warp collective then, it can never complete, which is an error; so is a
// __syncthreads that only some threads of the block reach.
#pragma once

#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "../cuda_runtime_api.h"
#include "fiber.h"

// Of the thread that runs. They change while it waits, and are global so that the compiler reads
// them again.
#define GAT_EMULATION_THREAD_LOCAL inline thread_local __attribute__((tls_model("initial-exec")))

GAT_EMULATION_THREAD_LOCAL uint3 threadIdx{};
GAT_EMULATION_THREAD_LOCAL uint3 blockIdx{};
GAT_EMULATION_THREAD_LOCAL dim3 blockDim{};
GAT_EMULATION_THREAD_LOCAL dim3 gridDim{};
inline constexpr int warpSize = 32;

namespace gat_emulation {

enum class Collective : std::uint8_t {
  kShuffle,
  kShuffleUp,
  kShuffleDown,
  kShuffleXor,
  kBallot,
  kAny,
  kAll,
  kSync
};

inline const char* name_of(Collective kind) {
  constexpr const char* kNames[] = {"__shfl_sync",     "__shfl_up_sync", "__shfl_down_sync",
                                    "__shfl_xor_sync", "__ballot_sync",  "__any_sync",
                                    "__all_sync",      "__syncwarp"};
  return kNames[static_cast<int>(kind)];
}

inline std::string hex(unsigned mask) {
  std::string digits = "0x";
  for (int shift = 28; shift >= 0; shift -= 4) digits += "0123456789abcdef"[mask >> shift & 15];
  return digits;
}

inline std::string triple(unsigned x, unsigned y, unsigned z) {
  return "(" + std::to_string(x) + ", " + std::to_string(y) + ", " + std::to_string(z) + ")";
}
template <class V>
std::string triple(const V& v) {
  return triple(v.x, v.y, v.z);
}

// What a lane brings to a collective: a value of so many bytes, and which lane's it wants.
struct Call {
  Collective kind;
  std::uint8_t bytes;
  std::uint8_t source;
  unsigned mask;
  std::uint64_t value;
};

struct Lane {
  Context context;
  Stack* stack = nullptr;
  uint3 index{};
};

// Sets of lanes are bit masks. A lane is ready, or has exited, or waits: at a collective, or at
// __syncthreads.
struct Warp {
  unsigned ready = 0, started = 0, exited = 0, at_collective = 0;
  Call call[32];
  std::uint64_t result[32];
};

// A launch whose parameter types are forgotten: call(kernel, args) runs one thread.
struct Launch {
  void (*call)(void (*kernel)(), void** args);
  void (*kernel)();
  void** args;
  dim3 grid, block;
};

class Block {
 public:
  // Throws std::runtime_error, saying where and what, if a thread does something that CUDA leaves
  // undefined.
  void run(const Launch& launch, uint3 index);

  // For the thread that runs.
  std::uint64_t rendezvous(Collective kind, unsigned mask, std::uint64_t value, int bytes,
                           int source);
  void barrier();
  int lane() const { return lane_; }

 private:
  void set_up(const Launch& launch);
  void run_warp(std::size_t warp);
  void run_threads();
  void complete(unsigned mask);
  std::uint64_t vote(Collective kind, unsigned mask) const;

  Lane& running() { return lanes_[warp_index_ * 32 + static_cast<std::size_t>(lane_)]; }
  void choose_next();
  void suspend();
  void enter_chosen(Context& from);
  void call_kernel();
  [[noreturn]] static void worker_main();
  [[noreturn]] void work();

  [[noreturn, gnu::cold]] static void fail(Collective kind, int lane, const char* what,
                                           unsigned mask);
  [[gnu::cold]] std::string describe(std::size_t warp, int lane) const;
  [[gnu::cold]] std::string stuck_warp(std::size_t warp) const;
  [[gnu::cold]] std::string stuck_block() const;

  const Launch* launch_ = nullptr;
  dim3 shape_{0, 0, 0};  // that lanes_ was filled for
  std::size_t num_threads_ = 0, num_exited_ = 0, num_at_barrier_ = 0;
  std::vector<Lane> lanes_;  // of all warps
  std::vector<Warp> warps_;
  StackPool stacks_;
  std::size_t warp_index_ = 0;
  Warp* warp_ = nullptr;
  int lane_ = 0;
  Context host_, ended_;
  std::string error_;  // of a thread, not empty once one failed
};

// The block that runs on this thread of the host, and how many have begun there.
GAT_EMULATION_THREAD_LOCAL Block* current_block = nullptr;
GAT_EMULATION_THREAD_LOCAL std::uint64_t blocks_begun = 0;

}  // namespace gat_emulation

#include "block_run.h"
