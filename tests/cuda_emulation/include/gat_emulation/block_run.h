// How a block runs: the fibers of its threads, and what goes wrong.
#pragma once

#include "block.h"

namespace gat_emulation {

inline void Block::set_up(const Launch& launch) {
  const dim3& size = launch.block;
  launch_ = &launch;
  num_threads_ = std::size_t{size.x} * size.y * size.z;
  num_exited_ = num_at_barrier_ = 0;
  const std::size_t num_warps = (num_threads_ + 31) / 32;
  if (shape_.x != size.x || shape_.y != size.y || shape_.z != size.z) {
    shape_ = size;
    warps_.resize(num_warps);
    lanes_.resize(num_warps * 32);
    for (unsigned t = 0; t < num_threads_; ++t)
      lanes_[t].index = {t % size.x, t / size.x % size.y, t / (size.x * size.y)};
  }
  for (std::size_t w = 0; w < num_warps; ++w) {
    const std::size_t count = num_threads_ - w * 32;
    Warp& warp = warps_[w];
    warp.ready = count >= 32 ? ~0u : (1u << count) - 1;
    warp.exited = ~warp.ready;  // lanes that do not exist
    warp.started = warp.at_collective = 0;
  }
}

inline void Block::run(const Launch& launch, uint3 index) {
  set_up(launch);
  gridDim = launch.grid, blockDim = launch.block, blockIdx = index;
  current_block = this;
  ++blocks_begun;
  run_threads();
  current_block = nullptr;
  if (error_.empty()) return;
  const std::string message = "CUDA emulation: block " + triple(index) + ": " + error_;
  error_.clear();
  stacks_.reclaim();
  throw std::runtime_error(message);
}

// Until all threads have exited, or error_ says why not.
inline void Block::run_threads() {
  const std::size_t num_warps = (num_threads_ + 31) / 32;
  while (num_exited_ < num_threads_) {
    for (std::size_t w = 0; w < num_warps; ++w) {
      if (warps_[w].ready != 0) run_warp(w);
      if (!error_.empty()) return;
    }
    if (num_exited_ == num_threads_) return;
    if (num_at_barrier_ < num_threads_) {
      error_ = stuck_block();
      return;
    }
    num_at_barrier_ = 0;
    for (std::size_t w = 0; w < num_warps; ++w) warps_[w].ready = ~warps_[w].exited;
  }
}

inline void Block::run_warp(std::size_t warp) {
  warp_index_ = warp, warp_ = &warps_[warp], lane_ = 31;
  choose_next();
  enter_chosen(host_);
  if (error_.empty() && warp_->at_collective != 0) error_ = stuck_warp(warp);
}

// The ready lane after the running one, in a circle.
inline void Block::choose_next() {
  const unsigned after = warp_->ready & ~((2u << lane_) - 1);
  lane_ = __builtin_ctz(after != 0 ? after : warp_->ready);
  threadIdx = running().index;
}

inline void Block::enter_chosen(Context& from) {
  Lane& lane = running();
  if ((warp_->started >> lane_ & 1) == 0) {
    warp_->started |= 1u << lane_;
    lane.stack = stacks_.take();
    lane.context.start_at(*lane.stack, &Block::worker_main);
  }
  Context::transfer(from, lane.context);
}

// The running lane waits until it is ready again.
inline void Block::suspend() {
  Lane& self = running();
  warp_->ready &= ~(1u << lane_);
  if (warp_->ready == 0) {
    Context::transfer(self.context, host_);
  } else {
    choose_next();
    enter_chosen(self.context);
  }
}

inline void Block::worker_main() {
  Context::arrived();
  current_block->work();
}

inline void Block::call_kernel() {
  try {
    launch_->call(launch_->kernel, launch_->args);
  } catch (const std::exception& e) {
    error_ = "thread " + triple(threadIdx) + ": " + e.what();
  } catch (...) {
    error_ = "thread " + triple(threadIdx) + ": an exception";
  }
}

// Runs lanes on one stack, one after another, for as long as the next has not started elsewhere.
inline void Block::work() {
  for (;;) {
    call_kernel();
    Stack* const stack = running().stack;
    warp_->exited |= 1u << lane_;
    warp_->ready &= ~(1u << lane_);
    ++num_exited_;
    if (!error_.empty() || warp_->ready == 0) {
      stacks_.give_back(stack);
      Context::transfer(ended_, host_, true);
    }
    choose_next();
    if ((warp_->started >> lane_ & 1) != 0) {
      stacks_.give_back(stack);
      Context::transfer(ended_, running().context, true);
    }
    warp_->started |= 1u << lane_;
    running().stack = stack;
  }
}

inline void Block::barrier() {
  ++num_at_barrier_;
  suspend();
}

inline std::uint64_t Block::rendezvous(Collective kind, unsigned mask, std::uint64_t value,
                                       int bytes, int source) {
  Warp& warp = *warp_;
  const int lane = lane_;
  if ((mask >> lane & 1) == 0) fail(kind, lane, "which calls it, is not in its mask", mask);
  if ((mask & warp.exited) != 0)
    fail(kind, __builtin_ctz(mask & warp.exited), "which has exited, is in the mask", mask);
  if ((mask >> source & 1) == 0) fail(kind, source, "which is read, is not in the mask", mask);
  Call& call = warp.call[lane];
  call.kind = kind, call.bytes = static_cast<std::uint8_t>(bytes),
  call.source = static_cast<std::uint8_t>(source);
  call.mask = mask, call.value = value;
  warp.at_collective |= 1u << lane;
  if ((warp.at_collective & mask) == mask) {
    complete(mask);
  } else {
    suspend();
  }
  return warp.result[lane];
}

// All lanes of the mask have arrived: the last of them serves all.
inline void Block::complete(unsigned mask) {
  Warp& warp = *warp_;
  const Call& own = warp.call[lane_];
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const int j = __builtin_ctz(rest);
    const Call& other = warp.call[j];
    if (other.kind != own.kind || other.mask != mask || other.bytes != own.bytes) {
      throw std::runtime_error(describe(warp_index_, lane_) + ", but " + describe(warp_index_, j));
    }
    warp.result[j] = warp.call[other.source].value;
  }
  if (own.kind > Collective::kShuffleXor) {
    const std::uint64_t result = vote(own.kind, mask);
    for (unsigned rest = mask; rest != 0; rest &= rest - 1)
      warp.result[__builtin_ctz(rest)] = result;
  }
  warp.at_collective &= ~mask;
  warp.ready |= mask;
}

inline std::uint64_t Block::vote(Collective kind, unsigned mask) const {
  unsigned ballot = 0;
  for (int j = 0; j < 32; ++j) {
    if ((mask >> j & 1) != 0 && warp_->call[j].value != 0) ballot |= 1u << j;
  }
  if (kind == Collective::kAny) return ballot != 0;
  if (kind == Collective::kAll) return ballot == mask;
  return ballot;
}

// ---- what went wrong

inline void Block::fail(Collective kind, int lane, const char* what, unsigned mask) {
  throw std::runtime_error(std::string(name_of(kind)) + ": lane " + std::to_string(lane) + ", " +
                           what + " " + hex(mask));
}

inline std::string Block::describe(std::size_t w, int lane) const {
  const Warp& warp = warps_[w];
  const unsigned bit = 1u << lane;
  const std::size_t thread = w * 32 + static_cast<std::size_t>(lane);
  std::string text = "lane " + std::to_string(lane);
  if (thread >= num_threads_) return text + " does not exist";
  text += " (thread " + triple(lanes_[thread].index) + ")";
  if ((warp.exited & bit) != 0) return text + " has exited";
  if ((warp.at_collective & bit) == 0) return text + " waits at __syncthreads";
  const Call& call = warp.call[lane];
  text += std::string(" waits at ") + name_of(call.kind) + " with mask " + hex(call.mask);
  return call.bytes == 0 ? text : text + " and a value of " + std::to_string(call.bytes) + " bytes";
}

inline std::string Block::stuck_warp(std::size_t w) const {
  const Warp& warp = warps_[w];
  const int lane = __builtin_ctz(warp.at_collective);
  const unsigned mask = warp.call[lane].mask;
  // A lane that waits elsewhere has arrived only in name.
  int missing = -1;
  for (int j = 31; j >= 0; --j) {
    if ((mask >> j & 1) == 0) continue;
    const Call& other = warp.call[j];
    const bool here = (warp.at_collective >> j & 1) != 0 && other.kind == warp.call[lane].kind &&
                      other.mask == mask;
    if (!here) missing = j;
  }
  return "warp " + std::to_string(w) + " is stuck: " + describe(w, lane) + ", but " +
         describe(w, missing);
}

inline std::string Block::stuck_block() const {
  std::size_t waiting = 0, exited = 0;
  for (std::size_t t = num_threads_; t-- > 0;) {
    const bool gone = (warps_[t / 32].exited >> (t % 32) & 1) != 0;
    (gone ? exited : waiting) = t;
  }
  return "__syncthreads: " + std::to_string(num_at_barrier_) + " of " +
         std::to_string(num_threads_) + " threads wait, thread " + triple(lanes_[waiting].index) +
         " the first; thread " + triple(lanes_[exited].index) + " has exited";
}

}  // namespace gat_emulation
