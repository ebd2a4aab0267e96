#include "../../core/fingerprint.h"
#include "../fingerprint.h"
#include "faces.h"

namespace gat::cpu {
using ThisIsa = Baseline;
}

#include "instantiate_fingerprint.h"
