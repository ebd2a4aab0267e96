// All kernels except edge attention for ThisIsa, which the header of an instruction set has
// selected.
#include "../kernels/fingerprint.h"
#include "../kernels/head_terms.h"
#include "../kernels/sparse.h"
#include "../kernels/walk.h"

namespace gat::cpu {
template SparseKernels<float> sparse_kernels<ThisIsa, float>();
template SparseKernels<double> sparse_kernels<ThisIsa, double>();
template SparseKernels<bf16> sparse_kernels<ThisIsa, bf16>();
template SparseKernels<fp16> sparse_kernels<ThisIsa, fp16>();
template HeadTermsKernels<float> head_terms_kernels<ThisIsa, float>();
template HeadTermsKernels<double> head_terms_kernels<ThisIsa, double>();
template HeadTermsKernels<bf16> head_terms_kernels<ThisIsa, bf16>();
template HeadTermsKernels<fp16> head_terms_kernels<ThisIsa, fp16>();
template WalkStepKernels<float> walk_step_kernels<ThisIsa, float>();
template WalkStepKernels<double> walk_step_kernels<ThisIsa, double>();
template RandomWalkKernels random_walk_kernels<ThisIsa>();
template std::uint64_t fingerprint<ThisIsa>(const IntegerMatrix&, int);
}  // namespace gat::cpu
