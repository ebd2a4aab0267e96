// What the threads of a warp or block do together.
#pragma once

#include "block.h"
#include "intrinsics.h"

namespace gat_emulation {

inline std::uint64_t vote(Collective kind, unsigned mask, int predicate) {
  return current_block->rendezvous(kind, mask, predicate != 0, 0, current_block->lane());
}

// Lane `source` of those that take part; -1 stands for the calling lane.
template <class T>
auto shuffle(Collective kind, unsigned mask, T given, int source) {
  const auto value = +given;  // bool and short travel as int
  using V = std::remove_const_t<decltype(value)>;
  static_assert(std::is_arithmetic_v<V> && (sizeof(V) == 4 || sizeof(V) == 8),
                "shuffles take numbers of 4 or 8 bytes");
  using Bits = std::conditional_t<sizeof(V) == 4, std::uint32_t, std::uint64_t>;
  Block& block = *current_block;
  const std::uint64_t bits = block.rendezvous(kind, mask, same_bits<Bits>(value), sizeof(V),
                                              source < 0 ? block.lane() : source);
  return same_bits<V>(static_cast<Bits>(bits));
}

[[noreturn, gnu::cold]] inline void refuse(Collective kind, const char* what, long given,
                                           const char* expected) {
  throw std::runtime_error(std::string(name_of(kind)) + ": the " + what + " is " +
                           std::to_string(given) + "; expected " + expected);
}

inline void check_width(Collective kind, int width) {
  if (width < 1 || width > 32 || (width & (width - 1)) != 0)
    refuse(kind, "width", width, "a power of two up to 32");
}

inline void check_distance(Collective kind, long distance) {
  if (distance < 0 || distance > 31) refuse(kind, "distance", distance, "0 to 31");
}

// A lane at a distance, or -1 where that lies beyond the group of `width` lanes.
inline int lane_within(int lane, int source, int width) {
  return ((source ^ lane) & -width) == 0 ? source : -1;
}

}  // namespace gat_emulation

inline void __syncthreads() { gat_emulation::current_block->barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  gat_emulation::vote(gat_emulation::Collective::kSync, mask, 0);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return static_cast<unsigned>(
      gat_emulation::vote(gat_emulation::Collective::kBallot, mask, predicate));
}
inline int __any_sync(unsigned mask, int predicate) {
  return static_cast<int>(gat_emulation::vote(gat_emulation::Collective::kAny, mask, predicate));
}
inline int __all_sync(unsigned mask, int predicate) {
  return static_cast<int>(gat_emulation::vote(gat_emulation::Collective::kAll, mask, predicate));
}

template <class T>
auto __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
  constexpr auto kind = gat_emulation::Collective::kShuffle;
  gat_emulation::check_width(kind, width);
  const int group = gat_emulation::current_block->lane() & -width;
  return gat_emulation::shuffle(kind, mask, value, group | (source & (width - 1)));
}

template <class T>
auto __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  constexpr auto kind = gat_emulation::Collective::kShuffleUp;
  gat_emulation::check_width(kind, width);
  gat_emulation::check_distance(kind, delta);
  const int lane = gat_emulation::current_block->lane();
  return gat_emulation::shuffle(
      kind, mask, value, gat_emulation::lane_within(lane, lane - static_cast<int>(delta), width));
}

template <class T>
auto __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  constexpr auto kind = gat_emulation::Collective::kShuffleDown;
  gat_emulation::check_width(kind, width);
  gat_emulation::check_distance(kind, delta);
  const int lane = gat_emulation::current_block->lane();
  return gat_emulation::shuffle(
      kind, mask, value, gat_emulation::lane_within(lane, lane + static_cast<int>(delta), width));
}

template <class T>
auto __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize) {
  constexpr auto kind = gat_emulation::Collective::kShuffleXor;
  gat_emulation::check_width(kind, width);
  gat_emulation::check_distance(kind, lane_mask);
  const int lane = gat_emulation::current_block->lane(), source = lane ^ lane_mask;
  // Lanes of earlier groups can be read, those of later groups cannot.
  return gat_emulation::shuffle(kind, mask, value,
                                (source & -width) <= (lane & -width) ? source : -1);
}
