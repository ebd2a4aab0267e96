#include "baseline.h"
#include "other.h"
