// In place of csrc/cpu/isa in a build with a sanitizer, which takes many times as long to compile:
// the kernels that the tests call, and no others. Here those of the baseline, with a 16-bit storage
// type.
#include "core/fingerprint.h"
#include "cpu/fingerprint.h"
#include "cpu/isa/faces.h"
#include "cpu/walk.h"

namespace gat::cpu {
using ThisIsa = Baseline;
}

#include "few_kernels.h"

namespace gat::cpu {
template EdgeAttentionKernels<bf16> edge_attention_kernels<ThisIsa, bf16>(int);
template SparseKernels<bf16> sparse_kernels<ThisIsa, bf16>();
}  // namespace gat::cpu
