// Selects AVX-512 for the kernels of a source file, which includes this header first.
#pragma once

#include "plain.h"

#if defined(__x86_64__)
#pragma GCC target("arch=x86-64-v4")

namespace gat::cpu {
using ThisIsa = Avx512;
}
#endif
