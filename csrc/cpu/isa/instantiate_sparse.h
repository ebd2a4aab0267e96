// Included last by each sparse_*.cpp, which has defined the alias ThisIsa.
#include "../kernels/sparse.h"

namespace gat::cpu {
template SparseKernels<float> sparse_kernels<ThisIsa, float>();
template SparseKernels<double> sparse_kernels<ThisIsa, double>();
template SparseKernels<bf16> sparse_kernels<ThisIsa, bf16>();
template SparseKernels<fp16> sparse_kernels<ThisIsa, fp16>();
}  // namespace gat::cpu
