// The cache of the edges that adjacency_attention has sorted.
#pragma once

#include <cstddef>

namespace gat::binding {

// Drops all entries. Exported because the Python module is a separate library.
__attribute__((visibility("default"))) void empty_graph_cache();

// The number of entries, including those of tensors freed since the last entry was added.
__attribute__((visibility("default"))) std::size_t graph_cache_size();

}  // namespace gat::binding
