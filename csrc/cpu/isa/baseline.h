// Selects the baseline for the kernels of a source file, which includes this header first.
#pragma once

#include "plain.h"

namespace gat::cpu {
using ThisIsa = Baseline;
}
