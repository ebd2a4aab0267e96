// The CUDA kernels of every operator.
#include <torch/library.h>

#include "register.h"

TORCH_LIBRARY_IMPL(gat_ext, CUDA, m) {
  gat::binding::register_adjacency_cuda(m);
  gat::binding::register_edge_attention_cuda(m);
  gat::binding::register_head_terms_cuda(m);
  gat::binding::register_sparse_cuda(m);
  gat::binding::register_walk_cuda(m);
}
