// Everything the kernels stand on, to be included before the instruction set is widened: the
// standard library and the plain parts of the project must be compiled for every machine, for the
// linker keeps one copy of their inline functions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <type_traits>
#include <vector>

#include "../../core/online_softmax.h"
#include "../../core/scores/all.h"
#include "../edge_attention.h"
#include "../isa.h"
#include "../lane_math.h"
#include "../partition.h"
#include "../sparse.h"
#include "../threads.h"
#include "../tile.h"
