// Replaces csrc/cpu/isa in builds with a sanitizer, which compile many times as long: only the
// kernels that the tests call. These have the widest vectors, whose tails reach furthest beyond the
// end of a row.
#include "cpu/isa/avx512.h"
#if defined(__x86_64__)
#include "few_kernels.h"
#endif
