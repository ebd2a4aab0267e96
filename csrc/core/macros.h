// GAT_HD marks the functions of csrc/core that host and device share.
//
// On the host they are always inlined: each instruction-set variant of a CPU kernel gets its own
// copy, and the linker cannot choose a copy compiled for a wider instruction set for code that runs
// on a narrower one.
#pragma once

#if defined(__CUDACC__)
#define GAT_HD __host__ __device__ __forceinline__
#else
#define GAT_HD inline __attribute__((always_inline))
#endif
