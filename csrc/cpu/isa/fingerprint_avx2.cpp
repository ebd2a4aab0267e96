#include "../../core/fingerprint.h"
#include "../fingerprint.h"
#include "faces.h"

#if defined(__x86_64__)
#pragma GCC target("arch=x86-64-v3")

namespace gat::cpu {
using ThisIsa = Avx2;
}

#include "instantiate_fingerprint.h"

#endif
