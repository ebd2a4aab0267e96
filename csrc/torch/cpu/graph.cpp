// Graph building on the CPU. Indices are not checked here: the Graph that calls this has checked
// them.
#include <torch/library.h>

#include <tuple>
#include <type_traits>

#include "../../cpu/counting_sort.h"
#include "../../cpu/self_loops.h"
#include "../allocate.h"
#include "../checks.h"
#include "../threads.h"

namespace gat::binding {
namespace {

// Calls f with a pointer to the indices, int32 or int64.
template <class F>
void with_indices(const at::Tensor& t, const char* name, F&& f) {
  const IndexArray array = index_array(t, name);
  if (array.wide) {
    f(static_cast<const std::int64_t*>(array.data));
  } else {
    f(static_cast<const std::int32_t*>(array.data));
  }
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> csr_of_edges(const at::Tensor& src,
                                                            const at::Tensor& dst,
                                                            std::int64_t num_dst) {
  check_shape(dst, src.sizes(), "dst");
  TORCH_CHECK_TYPE(src.scalar_type() == dst.scalar_type(), "src has dtype ", src.scalar_type(),
                   ", dst ", dst.scalar_type(), "; expected the same dtype");
  const at::Tensor rowptr = allocate({num_dst + 1}, src.options().dtype(at::kLong));
  const at::Tensor col = allocate_like(src), edge_id = allocate_like(src);
  with_indices(src, "src", [&](auto* sources) {
    using Index = std::remove_const_t<std::remove_pointer_t<decltype(sources)>>;
    const auto* const rows = dst.const_data_ptr<Index>();
    auto* const to_col = col.mutable_data_ptr<Index>();
    auto* const to_id = edge_id.mutable_data_ptr<Index>();
    cpu::counting_sort(
        src.numel(), num_dst, num_threads(), rowptr.mutable_data_ptr<std::int64_t>(),
        [rows](std::int64_t k) { return rows[k]; },
        [=](std::int64_t position, std::int64_t k) {
          to_col[position] = sources[k];
          to_id[position] = static_cast<Index>(k);
        });
  });
  return {rowptr, col, edge_id};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> csr_transpose(const at::Tensor& rowptr,
                                                             const at::Tensor& col,
                                                             std::int64_t num_src) {
  const at::Tensor t_rowptr = allocate({num_src + 1}, rowptr.options());
  const at::Tensor row = allocate_like(col), t_col = allocate_like(col), pos = allocate_like(col);
  with_indices(col, "col", [&](auto* columns) {
    using Index = std::remove_const_t<std::remove_pointer_t<decltype(columns)>>;
    const auto* const begin = rowptr.const_data_ptr<std::int64_t>();
    auto* const rows = row.mutable_data_ptr<Index>();
    for (std::int64_t i = 0; i + 1 < rowptr.numel(); ++i)
      std::fill(rows + begin[i], rows + begin[i + 1], static_cast<Index>(i));
    auto* const to_col = t_col.mutable_data_ptr<Index>();
    auto* const to_pos = pos.mutable_data_ptr<Index>();
    cpu::counting_sort(
        col.numel(), num_src, num_threads(), t_rowptr.mutable_data_ptr<std::int64_t>(),
        [columns](std::int64_t k) { return columns[k]; },
        [=](std::int64_t position, std::int64_t k) {
          to_col[position] = rows[k];
          to_pos[position] = static_cast<Index>(k);
        });
  });
  return {t_rowptr, t_col, pos};
}

// The CSR with its self-loops replaced by one for each of the first num_loops nodes, and the
// positions of the kept edges, which are empty where all edges are kept.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> csr_with_loops(
    const at::Tensor& rowptr, const at::Tensor& col, const OptionalTensor& edge_id,
    std::int64_t num_loops) {
  const CsrView csr = csr_view(rowptr, col, edge_id, col.numel(), at::kCPU);
  TORCH_CHECK_VALUE(0 <= num_loops && num_loops <= csr.num_rows, "num_loops is ", num_loops,
                    "; expected a number from 0 to ", csr.num_rows);
  cpu::SelfLoops loops(csr, num_loops, num_threads());
  const at::Tensor out_rowptr = allocate(rowptr.sizes(), rowptr.options());
  auto* const begin = out_rowptr.mutable_data_ptr<std::int64_t>();
  loops.count(begin);
  const at::Tensor kept = allocate({loops.keeps_all() ? 0 : loops.num_kept()}, rowptr.options());
  if (!loops.keeps_all()) loops.find_kept(kept.mutable_data_ptr<std::int64_t>());
  const at::Tensor out_col = allocate({begin[csr.num_rows]}, col.options()),
                   out_id = allocate_like(out_col);
  with_indices(col, "col", [&](auto* columns) {
    using Index = std::remove_const_t<std::remove_pointer_t<decltype(columns)>>;
    loops.fill(begin, out_col.mutable_data_ptr<Index>(), out_id.mutable_data_ptr<Index>());
  });
  return {out_rowptr, out_col, out_id, kept};
}

}  // namespace

TORCH_LIBRARY_IMPL(gat_ext, CPU, m) {
  m.impl("csr_of_edges", &csr_of_edges);
  m.impl("csr_transpose", &csr_transpose);
  m.impl("csr_with_loops", &csr_with_loops);
}

}  // namespace gat::binding
