// The kernels of a 16-bit storage type that the tests call.
#include "cpu/isa/baseline.h"
#include "cpu/kernels/edge_attention.h"
#include "cpu/kernels/sparse.h"

namespace gat::cpu {
template EdgeAttentionKernels<bf16> edge_attention_kernels<ThisIsa, bf16>(int);
template SparseKernels<bf16> sparse_kernels<ThisIsa, bf16>();
}  // namespace gat::cpu
