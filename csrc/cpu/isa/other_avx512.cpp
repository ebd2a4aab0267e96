#include "avx512.h"
#if defined(__x86_64__)
#include "other.h"
#endif
