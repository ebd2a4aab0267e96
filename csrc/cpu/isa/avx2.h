// Selects AVX2 for the kernels of a source file, which includes this header first.
#pragma once

#include "plain.h"

#if defined(__x86_64__)
#pragma GCC target("arch=x86-64-v3")

namespace gat::cpu {
using ThisIsa = Avx2;
}
#endif
