// Included last by few_kernels_*.cpp, which have defined the alias ThisIsa.
#include "cpu/kernels/edge_attention.h"
#include "cpu/kernels/sparse.h"
#include "cpu/kernels/walk.h"

namespace gat::cpu {
template EdgeAttentionKernels<float> edge_attention_kernels<ThisIsa, float>(int);
template SparseKernels<float> sparse_kernels<ThisIsa, float>();
template WalkStepKernels<float> walk_step_kernels<ThisIsa, float>();
template WalkStepKernels<double> walk_step_kernels<ThisIsa, double>();
template RandomWalkKernels random_walk_kernels<ThisIsa>();
}  // namespace gat::cpu
