// Each function registers the CUDA kernels of one file under the dispatch key of the given library.
#pragma once

namespace torch {
class Library;
}

namespace gat::binding {

void register_adjacency_cuda(torch::Library&);
void register_edge_attention_cuda(torch::Library&);
void register_head_terms_cuda(torch::Library&);
void register_sparse_cuda(torch::Library&);
void register_walk_cuda(torch::Library&);

}  // namespace gat::binding
