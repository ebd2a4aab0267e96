// CUDA on the CPU: enough of the language and runtime to compile the kernels of gat_ext with the
// host's compiler and to run them, every thread of a block as a fiber. Stricter than a GPU: what is
// undefined there, and can be noticed, is an exception here.
#pragma once

#define GAT_CUDA_EMULATION 1

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
// One object a block, as the blocks of a thread of the host run one after another. It begins as the
// block before left it, unless it is a gat_emulation::SharedArray.
#define __shared__ static thread_local

#include "cuda_runtime_api.h"
#include "gat_emulation/block.h"
#include "gat_emulation/collectives.h"
#include "gat_emulation/intrinsics.h"
#include "gat_emulation/launch.h"
#include "gat_emulation/memory.h"
