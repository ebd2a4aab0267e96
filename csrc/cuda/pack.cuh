// Rows of channels in registers: each lane of a team holds packs of 16 bytes of the storage type.
//
// The alignment of the rows determines at run time how memory is accessed: whole packs where rows
// are aligned to 16 bytes, otherwise halves, quarters or single elements. Channels beyond the end
// of a row read as zero and are not written.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "../core/types.h"
#include "warp.cuh"

namespace gat::cuda {

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(bf16 x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
__device__ __forceinline__ float widen(fp16 x) { return __half2float(__ushort_as_half(x.bits)); }

template <class T>
__device__ __forceinline__ T narrow(Acc<T> x) {
  if constexpr (std::is_same_v<T, bf16>) {
    return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
  } else if constexpr (std::is_same_v<T, fp16>) {
    return {__half_as_ushort(__float2half_rn(x))};
  } else {
    return x;
  }
}

// Channels in a pack.
template <class T>
inline constexpr int kPack = 16 / static_cast<int>(sizeof(T));

// 16 bytes of channels, kept as 32-bit words, the size of a register.
template <class T>
struct Pack {
  unsigned word[4] = {0, 0, 0, 0};

  __device__ __forceinline__ Acc<T> operator[](int i) const {
    if constexpr (sizeof(T) == 8) {
      return __longlong_as_double(
          static_cast<long long>(static_cast<std::uint64_t>(word[2 * i + 1]) << 32 | word[2 * i]));
    } else if constexpr (sizeof(T) == 4) {
      return __uint_as_float(word[i]);
    } else {
      return widen(T{static_cast<std::uint16_t>(i % 2 == 0 ? word[i / 2] : word[i / 2] >> 16)});
    }
  }

  __device__ __forceinline__ void set(int i, Acc<T> value) {
    if constexpr (sizeof(T) == 8) {
      const auto bits = static_cast<std::uint64_t>(__double_as_longlong(value));
      word[2 * i] = static_cast<unsigned>(bits),
               word[2 * i + 1] = static_cast<unsigned>(bits >> 32);
    } else if constexpr (sizeof(T) == 4) {
      word[i] = __float_as_uint(value);
    } else {
      const unsigned bits = narrow<T>(value).bits;
      word[i / 2] = i % 2 == 0 ? bits : word[i / 2] | bits << 16;  // set in ascending order
    }
  }
};

// Loads the first `channels` channels with accesses of `bytes` bytes; the others keep their values.
template <int bytes, class T>
__device__ __forceinline__ void load_units(const T* p, int channels, Pack<T>& pack) {
  constexpr int per_unit = bytes / static_cast<int>(sizeof(T));
#pragma unroll
  for (int i = 0; i < 16 / bytes; ++i) {
    if (i * per_unit >= channels) continue;
    if constexpr (bytes == 16) {
      const uint4 unit = __ldg(reinterpret_cast<const uint4*>(p));
      pack.word[0] = unit.x, pack.word[1] = unit.y, pack.word[2] = unit.z, pack.word[3] = unit.w;
    } else if constexpr (bytes == 8) {
      const uint2 unit = __ldg(reinterpret_cast<const uint2*>(p) + i);
      pack.word[2 * i] = unit.x, pack.word[2 * i + 1] = unit.y;
    } else if constexpr (bytes == 4) {
      pack.word[i] = __ldg(reinterpret_cast<const unsigned*>(p) + i);
    } else {
      pack.word[i / 2] |=
          static_cast<unsigned>(__ldg(reinterpret_cast<const unsigned short*>(p) + i))
          << (i % 2 * 16);
    }
  }
}

template <int bytes, class T>
__device__ __forceinline__ void store_units(T* p, int channels, const Pack<T>& pack) {
  constexpr int per_unit = bytes / static_cast<int>(sizeof(T));
#pragma unroll
  for (int i = 0; i < 16 / bytes; ++i) {
    if (i * per_unit >= channels) continue;
    if constexpr (bytes == 16) {
      *reinterpret_cast<uint4*>(p) =
          make_uint4(pack.word[0], pack.word[1], pack.word[2], pack.word[3]);
    } else if constexpr (bytes == 8) {
      reinterpret_cast<uint2*>(p)[i] = make_uint2(pack.word[2 * i], pack.word[2 * i + 1]);
    } else if constexpr (bytes == 4) {
      reinterpret_cast<unsigned*>(p)[i] = pack.word[i];
    } else {
      reinterpret_cast<unsigned short*>(p)[i] =
          static_cast<unsigned short>(pack.word[i / 2] >> (i % 2 * 16));
    }
  }
}

// Rows of 16-bit channels aligned to less than 8 bytes use the general variant of a pass (C > 1):
// composing words of such accesses takes registers that the other variant needs.
template <class T>
__device__ __host__ constexpr bool is_narrow(int access) {
  return sizeof(T) == 2 && access < 8;
}

// Calls f with the access width as a constant.
template <class T, int C, class F>
__device__ __forceinline__ void with_access(int access, F&& f) {
  if (access == 16) {
    f(std::integral_constant<int, 16>{});
  } else if (access == 8 || sizeof(T) == 8 || (sizeof(T) == 2 && C == 1)) {
    f(std::integral_constant<int, 8>{});
  } else if constexpr (sizeof(T) == 4) {
    f(std::integral_constant<int, 4>{});
  } else if constexpr (sizeof(T) == 2 && C > 1) {
    if (access == 4) {
      f(std::integral_constant<int, 4>{});
    } else {
      f(std::integral_constant<int, 2>{});
    }
  }
}

// The channels of a row and head.
struct Channels {
  int count = 0;
  int stride = 0;  // channels of a node: heads * count
  int access = 4;  // bytes that may be accessed at once: 16, 8, 4 or 2
};

// The first channel of pack c of a lane, which holds C packs of a block.
template <class T, int C>
__device__ __forceinline__ int first_channel(const Team& team, int block, int c) {
  return ((block * C + c) * team.lanes + team.lane) * kPack<T>;
}

// A lane's part of a block of channels of one row and head.
template <class T, int C>
struct Fragment {
  Pack<T> pack[C];

  __device__ __forceinline__ Acc<T> operator()(int c, int i) const { return pack[c][i]; }

  // Makes the compiler widen 16-bit channels again where they are used next: it would keep the
  // widened ones, which take twice the registers.
  __device__ __forceinline__ void forget_widened() {
#if defined(__CUDA_ARCH__)
    if constexpr (sizeof(T) == 2) {
#pragma unroll
      for (int c = 0; c < C; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) asm("" : "+r"(pack[c].word[i]));
      }
    }
#endif
  }
};

template <class T, int C, int n>
__device__ __forceinline__ void forget_widened(Fragment<T, C> (&rows)[n]) {
#pragma unroll
  for (int u = 0; u < n; ++u) rows[u].forget_widened();
}

// Pack c of one row and head.
template <class T, int C>
__device__ __forceinline__ Pack<T> load_pack(const T* base, std::int64_t row,
                                             const Channels& channels, const Team& team, int block,
                                             int c) {
  Pack<T> pack;
  const int first = first_channel<T, C>(team, block, c);
  with_access<T, C>(channels.access, [&](auto bytes) {
    load_units<decltype(bytes)::value>(base + row * channels.count + first, channels.count - first,
                                       pack);
  });
  return pack;
}

template <class T, int C>
__device__ __forceinline__ void store_pack(T* base, std::int64_t row, const Channels& channels,
                                           const Team& team, int block, int c,
                                           const Pack<T>& pack) {
  const int first = first_channel<T, C>(team, block, c);
  with_access<T, C>(channels.access, [&](auto bytes) {
    store_units<decltype(bytes)::value>(base + row * channels.count + first, channels.count - first,
                                        pack);
  });
}

template <class T, int C>
__device__ __forceinline__ Fragment<T, C> load_fragment(const T* base, std::int64_t row,
                                                        const Channels& channels, const Team& team,
                                                        int block) {
  Fragment<T, C> out;
#pragma unroll
  for (int c = 0; c < C; ++c) out.pack[c] = load_pack<T, C>(base, row, channels, team, block, c);
  return out;
}

// Writes scale * values, rounded, to one row and head.
template <class T, int C>
__device__ __forceinline__ void store_fragment(T* base, std::int64_t row, const Channels& channels,
                                               const Team& team, int block,
                                               const Acc<T> (&values)[C * kPack<T>],
                                               Acc<T> scale = Acc<T>(1)) {
  with_access<T, C>(channels.access, [&](auto bytes) {
#pragma unroll
    for (int c = 0; c < C; ++c) {
      Pack<T> pack;
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) pack.set(i, values[c * kPack<T> + i] * scale);
      const int first = first_channel<T, C>(team, block, c);
      store_units<decltype(bytes)::value>(base + row * channels.count + first,
                                          channels.count - first, pack);
    }
  });
}

}  // namespace gat::cuda
