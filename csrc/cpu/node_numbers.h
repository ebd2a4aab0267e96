// Numbers nodes in the order of their first occurrence: a table of all keys where there are few,
// and a hash table otherwise. Keys are in [0, num_keys).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gat::cpu {

inline constexpr std::int32_t kNoNumber = -1;

// The largest number of keys of a table; 16 MiB for each thread that samples.
inline constexpr std::int64_t kLargestTable = std::int64_t{1} << 22;

// A number for every possible key. The memory is kept for the next call of the thread.
class KeyTable {
 public:
  explicit KeyTable(std::int64_t num_keys) : slots_(memory()) {
    if (slots_.size() < static_cast<std::size_t>(num_keys))
      slots_.resize(static_cast<std::size_t>(num_keys), kNoNumber);
  }
  void reserve(std::int64_t) {}
  void prefetch(std::int64_t key) const { __builtin_prefetch(&slots_[index(key)], 1); }
  // The number of the key, which is `next` where it has none yet.
  std::int32_t number(std::int64_t key, std::int32_t next) {
    std::int32_t& slot = slots_[index(key)];
    slot = slot == kNoNumber ? next : slot;
    return slot;
  }
  // Must be called before the table is dropped.
  void forget(const std::int64_t* keys, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) slots_[index(keys[i])] = kNoNumber;
  }

 private:
  static std::size_t index(std::int64_t key) { return static_cast<std::size_t>(key); }
  static std::vector<std::int32_t>& memory() {
    thread_local std::vector<std::int32_t> slots;
    return slots;
  }
  std::vector<std::int32_t>& slots_;
};

// Open addressing with linear probing, at most half full.
class KeyHash {
 public:
  explicit KeyHash(std::int64_t) { resize(kSmallest); }

  // Makes room for `more` keys.
  void reserve(std::int64_t more) {
    const auto needed = static_cast<std::size_t>(2 * (used_ + more));
    if (needed <= slots_.size()) return;
    std::size_t size = slots_.size();
    while (size < needed) size *= 2;
    std::vector<Slot> before;
    before.swap(slots_);
    resize(size);
    for (const Slot& slot : before) {
      if (slot.key != kFree) find(slot.key) = slot;
    }
  }
  void prefetch(std::int64_t key) const { __builtin_prefetch(&slots_[place(key)], 1); }
  std::int32_t number(std::int64_t key, std::int32_t next) {
    Slot& slot = find(key);
    if (slot.key == kFree) {
      slot = {key, next};
      ++used_;
    }
    return slot.number;
  }
  void forget(const std::int64_t*, std::int64_t) {}

 private:
  static constexpr std::int64_t kFree = -1;
  static constexpr std::size_t kSmallest = 1024;
  struct Slot {
    std::int64_t key = kFree;
    std::int32_t number = kNoNumber;
  };

  void resize(std::size_t size) {
    slots_.assign(size, Slot{});
    shift_ = 64;
    while ((std::size_t{1} << (64 - shift_)) < size) --shift_;
  }
  std::size_t place(std::int64_t key) const {  // Fibonacci hashing
    return static_cast<std::size_t>(static_cast<std::uint64_t>(key) * 0x9E3779B97F4A7C15u >>
                                    shift_);
  }
  Slot& find(std::int64_t key) {
    std::size_t i = place(key);
    while (slots_[i].key != key && slots_[i].key != kFree) i = (i + 1) & (slots_.size() - 1);
    return slots_[i];
  }

  std::vector<Slot> slots_;
  std::int64_t used_ = 0;
  int shift_ = 64;
};

}  // namespace gat::cpu
