// Everything that kernels include from outside csrc/cpu/kernels. It is included before the
// instruction set is widened: the linker keeps one copy of each inline function of the standard
// library and of the plain headers, so that copy must be compiled for every machine.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <type_traits>
#include <vector>

#include "../../core/fingerprint.h"
#include "../../core/online_softmax.h"
#include "../../core/scores/all.h"
#include "../edge_attention.h"
#include "../fingerprint.h"
#include "../head_terms.h"
#include "../isa.h"
#include "../lane_math.h"
#include "../loop_end.h"
#include "../partition.h"
#include "../sparse.h"
#include "../threads.h"
#include "../tile.h"
#include "../walk.h"
