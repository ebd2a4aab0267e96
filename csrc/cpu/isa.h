// Instruction sets. Every kernel is a template over one of these tags and is instantiated for each
// of them in csrc/cpu/isa. The tag is part of the symbol's name, so the linker never merges two
// variants. The widest instruction set that the machine supports is chosen at run time.
#pragma once

#include <cstdlib>
#include <cstring>

namespace gat::cpu {

struct Baseline {  // what every x86-64 or aarch64 machine has
  static constexpr const char* name = "baseline";
  static constexpr int vector_bytes = 16;
};
struct Avx2 {  // x86-64-v3
  static constexpr const char* name = "avx2";
  static constexpr int vector_bytes = 32;
};
struct Avx512 {  // x86-64-v4
  static constexpr const char* name = "avx512";
  static constexpr int vector_bytes = 64;
};

enum class Isa { baseline, avx2, avx512 };

inline Isa widest_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  return v4 ? Isa::avx512 : v3 ? Isa::avx2 : Isa::baseline;
#else
  return Isa::baseline;
#endif
}

// The instruction set in use: the widest that the machine supports, or a narrower one named by the
// environment variable GAT_EXT_ISA.
inline Isa chosen_isa() {
  static const Isa isa = [] {
    const Isa widest = widest_isa();
    const char* wish = std::getenv("GAT_EXT_ISA");
    if (wish == nullptr) return widest;
    if (std::strcmp(wish, Baseline::name) == 0) return Isa::baseline;
    if (std::strcmp(wish, Avx2::name) == 0 && widest >= Isa::avx2) return Isa::avx2;
    return widest;
  }();
  return isa;
}

inline const char* isa_name(Isa isa) {
  return isa == Isa::avx512 ? Avx512::name : isa == Isa::avx2 ? Avx2::name : Baseline::name;
}

// Calls f with the tag of the chosen instruction set.
template <class F>
decltype(auto) with_isa(F&& f) {
#if defined(__x86_64__)
  switch (chosen_isa()) {
    case Isa::avx512:
      return f(Avx512{});
    case Isa::avx2:
      return f(Avx2{});
    case Isa::baseline:
      break;
  }
#endif
  return f(Baseline{});
}

}  // namespace gat::cpu
