// As few_kernels_baseline.cpp, for the widest vectors, whose tails reach furthest over the end of a
// row.
#include "core/fingerprint.h"
#include "cpu/fingerprint.h"
#include "cpu/isa/faces.h"
#include "cpu/walk.h"

#if defined(__x86_64__)
#pragma GCC target("arch=x86-64-v4")

namespace gat::cpu {
using ThisIsa = Avx512;
}

#include "few_kernels.h"

#endif
