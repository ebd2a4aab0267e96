// Memory as a kernel sees it, with checks.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "block.h"

namespace gat_emulation {

[[noreturn, gnu::cold]] inline void refuse_index(long index, long size, const char* what) {
  throw std::runtime_error(std::string(what) + ": index " + std::to_string(index) + " of " +
                           std::to_string(size));
}
[[noreturn, gnu::cold]] inline void refuse_address(std::size_t bytes) {
  throw std::runtime_error("an access of " + std::to_string(bytes) +
                           " bytes at an address that is not a multiple of it");
}

inline void check_index(long index, long size, const char* what) {
  if (index < 0 || index >= size) refuse_index(index, size, what);
}

inline void check_alignment(const void* p, std::size_t bytes) {
  asm("" : "+r"(p));  // or the compiler takes the alignment for granted
  if (reinterpret_cast<std::uintptr_t>(p) % bytes != 0) refuse_address(bytes);
}

// An array in shared memory, to be declared __shared__. Indices are checked; all bytes are 0xff
// when a block begins.
template <class T, int N>
struct SharedArray {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>,
                "shared memory holds plain data");
  T data[N];
  std::uint64_t block;  // for which the data was last poisoned

  T& operator[](long i) {
    check_index(i, N, "shared array");
    if (block != blocks_begun) {
      block = blocks_begun;
      std::memset(static_cast<void*>(data), 0xff, sizeof(data));
    }
    return data[i];
  }
};

}  // namespace gat_emulation

// Vectors are loaded and stored whole, so that their addresses must be aligned to their size.
struct alignas(8) uint2 {
  unsigned x, y;

  uint2() = default;
  uint2(unsigned vx, unsigned vy) : x(vx), y(vy) {}
  uint2(const uint2&) = default;
  uint2& operator=(const uint2& v) {
    gat_emulation::check_alignment(this, sizeof(*this));
    x = v.x, y = v.y;
    return *this;
  }
};

struct alignas(16) uint4 {
  unsigned x, y, z, w;

  uint4() = default;
  uint4(unsigned vx, unsigned vy, unsigned vz, unsigned vw) : x(vx), y(vy), z(vz), w(vw) {}
  uint4(const uint4&) = default;
  uint4& operator=(const uint4& v) {
    gat_emulation::check_alignment(this, sizeof(*this));
    x = v.x, y = v.y, z = v.z, w = v.w;
    return *this;
  }
};

struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};

inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
