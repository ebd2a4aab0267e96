// Each operator's file registers its CUDA kernels under the dispatch key that the library is given.
#pragma once

namespace torch {
class Library;
}

namespace gat::binding {

void register_edge_attention_cuda(torch::Library&);
void register_sparse_cuda(torch::Library&);
void register_walk_cuda(torch::Library&);

}  // namespace gat::binding
