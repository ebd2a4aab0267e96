#include "../../core/fingerprint.h"
#include "../fingerprint.h"
#include "faces.h"

#if defined(__x86_64__)
#pragma GCC target("arch=x86-64-v4")

namespace gat::cpu {
using ThisIsa = Avx512;
}

#include "instantiate_fingerprint.h"

#endif
