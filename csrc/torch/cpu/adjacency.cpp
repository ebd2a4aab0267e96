// adjacency_csr on the CPU: by counting sorts, which many edges are spared if they are known.
#include "../adjacency.h"

#include <torch/library.h>

#include <algorithm>
#include <type_traits>

#include "../../cpu/counting_sort.h"
#include "../../cpu/slots.h"
#include "../allocate.h"
#include "../checks.h"
#include "../threads.h"
#include "adjacency_cache.h"

namespace gat::binding {
namespace {

using at::Tensor;

template <class Index>
void read(const Edges& e, const cpu::SlotSizes& sizes, const cpu::Slots<Index>& slots) {
  if (e.col.has_value()) {
    const CsrView csr = csr_view(e.edges, *e.col, e.edge_id, e.num_given(), at::kCPU);
    cpu::read_csr(csr, sizes, slots);
    return;
  }
  cpu::Bounds bounds[2];
  const auto read_as = [&](auto* edges) {
    cpu::read_edges(edges, e.edges.stride(0), e.edges.stride(1), sizes, num_threads(), slots,
                    bounds);
  };
  if (e.edges.scalar_type() == at::kLong) {
    read_as(e.edges.const_data_ptr<std::int64_t>());
  } else {
    read_as(e.edges.const_data_ptr<std::int32_t>());
  }
  if (sizes.num_given > 0)
    check_bounds({{bounds[0].low, bounds[1].low}, {bounds[0].high, bounds[1].high}}, e.num_src,
                 e.num_dst);
}

template <class Index>
AdjacencyCsr sorted(const Edges& e, const Sorting& sorting) {
  const at::TensorOptions options = e.edges.options().dtype(sorting.dtype()),
                          wide = options.dtype(at::kLong);
  const cpu::SlotSizes sizes{e.num_given(), e.num_loops(), e.num_dst, e.self_loops};
  const std::int64_t num_slots = e.num_slots(), num_dst = e.num_dst, num_src = e.num_src;
  const Tensor source = allocate({num_slots}, options), row = allocate({num_slots}, options);
  const cpu::Slots<Index> slots{source.mutable_data_ptr<Index>(), row.mutable_data_ptr<Index>()};
  read(e, sizes, slots);

  // The slots that are no edges have a row of their own, behind the last.
  const Tensor starts = allocate({num_dst + 2}, wide), rowptr = allocate({num_dst + 1}, wide),
               col = allocate({num_slots}, options), edge_id = allocate({num_slots}, options);
  auto* const begin = starts.mutable_data_ptr<std::int64_t>();
  auto* const to_col = col.mutable_data_ptr<Index>();
  auto* const to_id = edge_id.mutable_data_ptr<Index>();
  cpu::counting_sort(
      num_slots, num_dst + 1, num_threads(), begin, [=](std::int64_t k) { return slots.row[k]; },
      [=](std::int64_t position, std::int64_t k) {
        to_col[position] = slots.source[k];
        to_id[position] = static_cast<Index>(k);
      });
  std::copy(begin, begin + num_dst + 1, rowptr.mutable_data_ptr<std::int64_t>());
  if (!sorting.transpose) {
    return {rowptr,
            col,
            edge_id,
            at::empty({0}, wide),
            at::empty({0}, options),
            at::empty({0}, options),
            at::empty({0}, options)};
  }

  const std::int64_t num_edges = begin[num_dst];
  for (std::int64_t i = 0; i < num_dst; ++i)
    std::fill(slots.row + begin[i], slots.row + begin[i + 1], static_cast<Index>(i));
  const Tensor t_rowptr = allocate({num_src + 1}, wide), t_col = allocate({num_slots}, options),
               t_pos = allocate({num_slots}, options), t_id = allocate({num_slots}, options);
  auto* const rows = slots.row;
  auto* const to_row = t_col.mutable_data_ptr<Index>();
  auto* const to_pos = t_pos.mutable_data_ptr<Index>();
  auto* const to_t_id = t_id.mutable_data_ptr<Index>();
  const auto place = [=](std::int64_t position, std::int64_t k) {
    to_row[position] = rows[k];
    to_pos[position] = static_cast<Index>(k);
    to_t_id[position] = to_id[k];
  };
  cpu::counting_sort(
      num_edges, num_src, num_threads(), t_rowptr.mutable_data_ptr<std::int64_t>(),
      [=](std::int64_t k) { return to_col[k]; }, place);
  for (std::int64_t k = num_edges; k < num_slots; ++k) {
    rows[k] = 0;
    place(k, k);
  }
  return {rowptr, col, edge_id, t_rowptr, t_col, t_pos, t_id};
}

// Edges whose sort takes longer than what the cache spares.
constexpr std::int64_t kManyEdges = 1 << 14;

AdjacencyCache& cache() {
  static AdjacencyCache& cache = *new AdjacencyCache;  // torch's allocator may be destroyed first
  return cache;
}

AdjacencyCsr adjacency_csr(const Edges& e, const Sorting& sorting) {
  check_form(e, sorting);
  const auto sort = [&] {
    return sorting.narrow ? sorted<std::int32_t>(e, sorting) : sorted<std::int64_t>(e, sorting);
  };
  return e.num_given() < kManyEdges ? sort() : cache().get(e, sorting, sort);
}

}  // namespace

void empty_graph_cache() { cache().clear(); }

std::size_t graph_cache_size() { return cache().size(); }

TORCH_LIBRARY_IMPL(gat_ext, CPU, m) {
  m.impl("adjacency_csr", &ops::AdjacencyCsr::flat<&adjacency_csr>);
}

}  // namespace gat::binding
