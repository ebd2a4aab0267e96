// The kernels that the tests call, for ThisIsa, which the header of an instruction set has
// selected.
#include "cpu/kernels/edge_attention.h"
#include "cpu/kernels/fingerprint.h"
#include "cpu/kernels/head_terms.h"
#include "cpu/kernels/sparse.h"
#include "cpu/kernels/walk.h"

namespace gat::cpu {
template EdgeAttentionKernels<float> edge_attention_kernels<ThisIsa, float>(int);
template SparseKernels<float> sparse_kernels<ThisIsa, float>();
template HeadTermsKernels<float> head_terms_kernels<ThisIsa, float>();
template WalkStepKernels<float> walk_step_kernels<ThisIsa, float>();
template WalkStepKernels<double> walk_step_kernels<ThisIsa, double>();
template RandomWalkKernels random_walk_kernels<ThisIsa>();
template std::uint64_t fingerprint<ThisIsa>(const IntegerMatrix&, int);
}  // namespace gat::cpu
