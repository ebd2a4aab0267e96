#include "baseline.h"
#include "edge_attention.h"
