// Puts the CUDA kernels, emulated, in the place of the CPU's: once this library is loaded, CPU
// tensors run on them.
#include <cuda_runtime.h>
#include <torch/library.h>

#include "../../csrc/torch/cuda/register.h"

namespace {

// The dispatcher warns that kernels are replaced, which is what this library is for.
struct Silence : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

}  // namespace

TORCH_LIBRARY_IMPL(gat_ext, CPU, m) {
  Silence silence;
  const c10::WarningUtils::WarningHandlerGuard guard(&silence);
  gat::binding::register_adjacency_cuda(m);
  gat::binding::register_edge_attention_cuda(m);
  gat::binding::register_head_terms_cuda(m);
  gat::binding::register_sparse_cuda(m);
  gat::binding::register_walk_cuda(m);
}

// Sets the function that sees every launch, before and after it runs; null for none.
extern "C" __attribute__((visibility("default"))) void gat_emulation_observe(
    gat_emulation::Observer see) {
  gat_emulation::observer = see;
}
