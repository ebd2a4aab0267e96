// Replaces csrc/cpu/isa in builds with a sanitizer, which compile many times as long: only the
// kernels that the tests call. These are the baseline's, with a 16-bit storage type.
#include "cpu/isa/baseline.h"
#include "few_kernels.h"

namespace gat::cpu {
template EdgeAttentionKernels<bf16> edge_attention_kernels<ThisIsa, bf16>(int);
template SparseKernels<bf16> sparse_kernels<ThisIsa, bf16>();
}  // namespace gat::cpu
