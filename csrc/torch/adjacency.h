// The sorted edges that adjacency_attention keeps.
#pragma once

#include <cstddef>

namespace gat::binding {

// Drops them all. The Python module is another library than this function's.
__attribute__((visibility("default"))) void empty_graph_cache();

// How many there are, those of tensors that died since the last was added included.
__attribute__((visibility("default"))) std::size_t graph_cache_size();

}  // namespace gat::binding
