// Sampled neighbourhoods; there are no kernels for other devices, because graphs to sample from are
// on the host.
#include "../neighbor_sample.h"

namespace gat::binding {

TORCH_LIBRARY_IMPL(gat_ext, CPU, m) { m.impl("neighbor_sample", &neighbor_sample); }

}  // namespace gat::binding
