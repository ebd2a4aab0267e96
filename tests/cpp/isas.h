// The instruction sets and storage types on which a test runs.
#pragma once

#include "core/types.h"
#include "cpu/isa.h"

// Calls f with the tag of every instruction set that is built and that this machine supports.
template <class F>
void for_every_isa(const F& f) {
  using namespace gat::cpu;
#if defined(GAT_ONLY_ISA)  // the one that a build with a sanitizer has
  f(GAT_ONLY_ISA{});
#else
  f(Baseline{});
#if defined(__x86_64__)
  if (widest_isa() >= Isa::avx2) f(Avx2{});
  if (widest_isa() >= Isa::avx512) f(Avx512{});
#endif
#endif
}

// Calls f with the tag of an instruction set and a value of a 16-bit storage type, if they are
// built.
template <class F>
void for_sixteen_bits([[maybe_unused]] const F& f) {
#if !defined(GAT_WITHOUT_BF16)
  f(gat::cpu::Baseline{}, gat::bf16{});
#endif
}
