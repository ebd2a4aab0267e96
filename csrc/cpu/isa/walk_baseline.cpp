#include "../walk.h"
#include "faces.h"

namespace gat::cpu {
using ThisIsa = Baseline;
}

#include "instantiate_walk.h"
