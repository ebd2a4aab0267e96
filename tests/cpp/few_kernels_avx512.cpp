// As few_kernels_baseline.cpp, for the widest vectors, whose tails reach furthest beyond the end of
// a row.
#include "cpu/isa/avx512.h"
#if defined(__x86_64__)
#include "few_kernels.h"
#endif
