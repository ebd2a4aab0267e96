// As few_kernels_avx512.cpp, for what every machine has.
#include "cpu/isa/baseline.h"
#include "few_kernels.h"
