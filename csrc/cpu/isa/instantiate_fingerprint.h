// Included last by each fingerprint_*.cpp, which has defined the alias ThisIsa.
#include "../kernels/fingerprint.h"

namespace gat::cpu {
template std::uint64_t fingerprint<ThisIsa>(const IntegerMatrix&, int);
}  // namespace gat::cpu
