// The instruction sets on which a test runs.
#pragma once

#include "cpu/isa.h"

// Calls f with the tag of every instruction set that is built and that this machine supports.
template <class F>
void for_every_isa(const F& f) {
  using namespace gat::cpu;
  f(Baseline{});
#if defined(__x86_64__)
#if !defined(GAT_FEW_KERNELS)
  if (widest_isa() >= Isa::avx2) f(Avx2{});
#endif
  if (widest_isa() >= Isa::avx512) f(Avx512{});
#endif
}
