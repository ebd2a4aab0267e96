// Included last by each walk_*.cpp, which has defined the alias ThisIsa.
#include "../kernels/walk.h"

namespace gat::cpu {
template WalkStepKernels<float> walk_step_kernels<ThisIsa, float>();
template WalkStepKernels<double> walk_step_kernels<ThisIsa, double>();
template RandomWalkKernels random_walk_kernels<ThisIsa>();
}  // namespace gat::cpu
