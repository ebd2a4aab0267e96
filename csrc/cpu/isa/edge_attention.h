// The kernels of edge attention for ThisIsa, which the header of an instruction set has selected.
#include "../kernels/edge_attention.h"

namespace gat::cpu {
template EdgeAttentionKernels<float> edge_attention_kernels<ThisIsa, float>(int);
template EdgeAttentionKernels<double> edge_attention_kernels<ThisIsa, double>(int);
template EdgeAttentionKernels<bf16> edge_attention_kernels<ThisIsa, bf16>(int);
template EdgeAttentionKernels<fp16> edge_attention_kernels<ThisIsa, fp16>(int);
}  // namespace gat::cpu
