// edge_attention over the edges of a traced function: an edge_index, or the CSR of a graph.
// Replacing self-loops, sorting and transposing depend on the data, so Python, which does them
// before the operator of an eager layer, cannot do them in a trace: here they are part of the
// operator. It is written with torch's operators and runs on every device.
//
// Note [slots]. Edge tensors have a row for each slot: first the given edges in their order, then,
// where self-loops are replaced, one loop for each node that is both source and destination. The
// slot of a replaced loop is not read, and its results are 0. Only the slots that are edges are
// sorted, and numbered for dropout, in their order. gat_ext/ops/slots.py has the same slots.
#include <ATen/core/Tensor.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "../core/fingerprint.h"
#include "../cpu/memory_limit.h"
#include "adjacency.h"
#include "checks.h"
#include "fingerprint.h"
#include "schema.h"

namespace gat::binding {
namespace {

using at::Tensor;
using Optional = OptionalTensor;
using Csr = std::tuple<Tensor, Tensor, Tensor>;

// ---- sorting, for devices without a kernel for it

Tensor row_pointers(const Tensor& ascending, std::int64_t num_rows) {
  return at::searchsorted(ascending, at::arange(num_rows + 1, ascending.options()));
}

Tensor expand_rows(const Tensor& rowptr, std::int64_t num_edges) {
  // Not repeat_interleave, which starts all threads even for a few edges.
  const Tensor starts = at::zeros({num_edges + 1}, rowptr.options()),
               inner = rowptr.slice(0, 1, -1);
  starts.index_add_(0, inner, at::ones_like(inner));
  return starts.cumsum_(0).narrow(0, 0, num_edges);
}

Csr csr_of_edges(const Tensor& src, const Tensor& dst, std::int64_t num_dst) {
  const auto [ascending, order] = at::sort(dst, /*stable=*/true, 0, false);
  return {row_pointers(ascending, num_dst), src.index_select(0, order),
          order.to(src.scalar_type())};
}

Csr csr_transpose(const Tensor& rowptr, const Tensor& col, std::int64_t num_src) {
  const auto [ascending, order] = at::sort(col, /*stable=*/true, 0, false);
  const Tensor rows = expand_rows(rowptr, col.numel()).index_select(0, order);
  return {row_pointers(ascending, num_src), rows.to(col.scalar_type()),
          order.to(col.scalar_type())};
}

// ---- the graph that the operator attends over

// The size of the memory of a tensor; 0 where it is absent.
std::size_t bytes(const Optional& tensor) {
  return tensor.has_value() && tensor->defined() ? tensor->nbytes() : 0;
}

struct Sorted : SortedGraph {
  Optional kept;  // [E'], the slots that are edges; absent: all of them

  void transpose(std::int64_t num_src) {
    if (t_rowptr.has_value()) return;
    static const auto op =
        find_operator<Csr(const Tensor&, const Tensor&, c10::SymInt)>("gat_ext::csr_transpose");
    std::tie(t_rowptr, t_col, t_pos) = op.call(rowptr, col, num_src);
    if (edge_id.has_value()) t_edge_id = edge_id->index_select(0, *t_pos);
  }

  std::size_t nbytes() const {
    std::size_t sum = bytes(rowptr) + bytes(col);
    for (const Optional* const part : {&edge_id, &kept, &t_rowptr, &t_col, &t_pos, &t_edge_id})
      sum += bytes(*part);
    return sum;
  }
};

void check_form(const Tensor& edges) {
  TORCH_CHECK_TYPE(edges.scalar_type() == at::kInt || edges.scalar_type() == at::kLong,
                   "edge_index has dtype ", edges.scalar_type(), "; expected int32 or int64");
  TORCH_CHECK_VALUE(edges.dim() == 2 && edges.size(0) == 2, "edge_index has shape ", edges.sizes(),
                    "; expected [2, E]");
}

void check(const Edges& e) {
  const Tensor& edges = e.edges;
  check_form(edges);
  if (edges.size(1) == 0) return;
  // One row at a time: a reduction over a dimension starts all threads, even for a few edges.
  const auto [low_src, high_src] = at::aminmax(edges[0]);
  const auto [low_dst, high_dst] = at::aminmax(edges[1]);
  const Tensor bounds = at::stack({low_src, low_dst, high_src, high_dst}).to(at::kCPU, at::kLong);
  const auto* const bound = bounds.const_data_ptr<std::int64_t>();
  const std::int64_t count[] = {e.num_src, e.num_dst};
  for (const int row : {0, 1}) {
    const char* const name = row == 0 ? "num_src" : "num_dst";
    TORCH_CHECK_INDEX(bound[row] >= 0, "edge_index[", row, "] contains ", bound[row],
                      "; expected node numbers of at least 0");
    TORCH_CHECK_INDEX(bound[2 + row] < count[row], "edge_index[", row, "] contains ",
                      bound[2 + row], "; expected node numbers below ", name, "=", count[row],
                      ", counted from 0");
  }
}

Tensor edge_index_of(const Edges& e) {
  if (!e.col.has_value()) return e.edges;
  const Tensor by_position =
      at::stack({e.col->to(at::kLong), expand_rows(e.edges, e.col->numel())});
  if (!e.edge_id.has_value()) return by_position;
  return at::empty_like(by_position).index_copy_(1, e.edge_id->to(at::kLong), by_position);
}

// The slots that are edges, or none where all of them are, and the edges.
std::pair<Optional, Tensor> replace_loops(const Edges& e, const Tensor& edge_index) {
  const std::int64_t num_given = edge_index.size(1), num_loops = e.num_slots() - num_given;
  const Tensor loops = at::arange(num_loops, edge_index.options()).expand({2, -1});
  const Tensor others = edge_index[0].ne(edge_index[1]).nonzero().flatten();
  if (others.numel() == num_given) return {std::nullopt, at::cat({edge_index, loops}, 1)};
  const Tensor own = at::arange(num_given, e.num_slots(), others.options());
  return {at::cat({others, own}), at::cat({edge_index.index_select(1, others), loops}, 1)};
}

Sorted sort(const Edges& e) {
  if (!e.col.has_value()) check(e);
  if (e.col.has_value() && !e.self_loops) return {{e.edges, *e.col, e.edge_id, {}, {}, {}, {}}, {}};
  Tensor edge_index = edge_index_of(e);
  Sorted sorted;
  if (e.self_loops) std::tie(sorted.kept, edge_index) = replace_loops(e, edge_index);
  const std::int64_t largest = std::max({e.num_src, e.num_dst, edge_index.size(1)});
  const bool narrow = largest < std::numeric_limits<std::int32_t>::max();
  const Tensor ends = edge_index.to(narrow ? at::kInt : at::kLong).contiguous();
  static const auto op =
      find_operator<Csr(const Tensor&, const Tensor&, c10::SymInt)>("gat_ext::csr_of_edges");
  std::tie(sorted.rowptr, sorted.col, sorted.edge_id) = op.call(ends[0], ends[1], e.num_dst);
  return sorted;
}

// ---- the cache of sorted edges

std::uint64_t fingerprint(const Edges& e) {
  std::uint64_t all = binding::fingerprint(e.edges);
  for (const Optional* const part : {&e.col, &e.edge_id})
    all = finalize(all + kFingerprintStep) + (part->has_value() ? binding::fingerprint(**part) : 0);
  return all;
}

// Caches the sorted edges of a tensor during its lifetime. The identity of the tensor is not
// enough, because compiled programs modify their buffers without torch noticing: the contents must
// be equal too, and reading them once takes a small part of the time of sorting. Above limit_ bytes
// the least recently used entries are dropped, except the kRecent used last, so that a step on one
// huge graph always finds its graph. The cache of Python, gat_ext/graph/cache.py, has the same
// limits.
class Memo {
 public:
  Sorted find(const Edges& e, bool with_transpose) {
    if (is_sorted(e) && !with_transpose) return sort(e);
    const Tensor& tensor = e.edges;
    if (!e.col.has_value()) check_form(tensor);
    const Key key{tensor.unsafeGetTensorImpl(), e.num_src, e.num_dst, e.self_loops};
    const State state{fingerprint(e), tensor.sizes().vec()};
    std::optional<Sorted> sorted = look_up(key, state);
    const bool found = sorted.has_value();
    // Outside the lock, because torch's operators may wait for Python.
    if (!found) sorted = sort(e);
    if (is_sorted(e))
      std::tie(sorted->rowptr, sorted->col, sorted->edge_id) = std::tie(e.edges, *e.col, e.edge_id);
    if (found && (sorted->t_rowptr.has_value() || !with_transpose)) return *std::move(sorted);
    if (with_transpose) sorted->transpose(e.num_src);
    keep(key, Entry{Weak(tensor.getIntrusivePtr()), state, *sorted, 0, 0}, is_sorted(e));
    return *std::move(sorted);
  }

  void clear() {
    const std::lock_guard lock(mutex_);
    entries_.clear();
    bytes_ = 0;
  }

  std::size_t size() {
    const std::lock_guard lock(mutex_);
    return entries_.size();
  }

 private:
  static constexpr std::size_t kRecent = 16;
  static constexpr std::size_t kOverhead = 4096;  // bytes of an entry besides its tensors

  using Weak = c10::weak_intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl>;
  using Key = std::tuple<const void*, std::int64_t, std::int64_t, bool>;
  using State = std::tuple<std::uint64_t, std::vector<std::int64_t>>;
  struct Entry {
    Weak tensor;
    State state;
    Sorted sorted;
    std::size_t bytes;
    std::uint64_t last_use;
  };

  std::optional<Sorted> look_up(const Key& key, const State& state) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    const bool valid =
        found != entries_.end() && !found->second.tensor.expired() && found->second.state == state;
    if (!valid) return std::nullopt;
    found->second.last_use = ++uses_;
    return found->second.sorted;
  }

  // True if the edges are a CSR that is used unchanged.
  static bool is_sorted(const Edges& e) { return e.col.has_value() && !e.self_loops; }

  void keep(const Key& key, Entry entry, bool given) {
    // An entry that holds the tensor it depends on would never expire, and the caller may modify
    // given tensors in place.
    if (given) {
      entry.sorted.rowptr.reset();
      entry.sorted.col.reset();
      entry.sorted.edge_id.reset();
    }
    entry.bytes = entry.sorted.nbytes() + kOverhead;
    const std::lock_guard lock(mutex_);
    for (auto each = entries_.begin(); each != entries_.end();) {
      each = each->second.tensor.expired() || each->first == key ? erase(each) : std::next(each);
    }
    entry.last_use = ++uses_;
    bytes_ += entry.bytes;
    entries_.emplace(key, std::move(entry));
    while (bytes_ > limit_ && entries_.size() > kRecent) {
      erase(std::min_element(entries_.begin(), entries_.end(), [](const auto& a, const auto& b) {
        return a.second.last_use < b.second.last_use;
      }));
    }
  }

  std::map<Key, Entry>::iterator erase(std::map<Key, Entry>::iterator entry) {
    bytes_ -= entry->second.bytes;
    return entries_.erase(entry);
  }

  std::mutex mutex_;
  std::map<Key, Entry> entries_;
  std::size_t bytes_ = 0, limit_ = std::min(std::size_t{1} << 30, cpu::memory_limit() / 16);
  std::uint64_t uses_ = 0;
};

Memo& memo() {
  // Never destroyed: at the end of the process the allocators of the devices are destroyed first,
  // and tensors must not be freed after them.
  static Memo& memo = *new Memo;
  return memo;
}

Sorted sorted_of(const Edges& e, bool with_transpose) { return memo().find(e, with_transpose); }

// ---- between slots and edges

Optional to_edges(const Optional& by_slot, const Sorted& s) {
  return by_slot.has_value() && s.kept.has_value() ? by_slot->index_select(0, *s.kept) : by_slot;
}

Inputs to_edges(Inputs inputs, const Sorted& s) {
  for (std::size_t i = 1; i < kNumInputs; ++i) {
    if (kInputs[i].is_per_edge()) inputs.optional[i - 1] = to_edges(inputs.optional[i - 1], s);
  }
  inputs.edge_number = to_edges(inputs.edge_number, s);
  return inputs;
}

Tensor to_slots(const Tensor& by_edge, const Sorted& s, std::int64_t num_slots) {
  if (!s.kept.has_value() || is_absent(by_edge)) return by_edge;
  auto shape = by_edge.sizes().vec();
  shape[0] = num_slots;
  return at::zeros(shape, by_edge.options()).index_copy_(0, *s.kept, by_edge);
}

// Pads `selected`, which is in CSR order, with rows of zeros behind those of the edges.
Tensor pad(const Tensor& by_position, std::int64_t num_slots) {
  if (is_absent(by_position) || by_position.size(0) == num_slots) return by_position;
  const Tensor padded = at::zeros({num_slots, by_position.size(1)}, by_position.options());
  padded.narrow(0, 0, by_position.size(0)).copy_(by_position);
  return padded;
}

// ---- the operators

Attention adjacency_attention(const Edges& e, const ForBackward& for_backward, const Inputs& inputs,
                              const Constants& constants, const Wanted& wanted) {
  const Sorted s = sorted_of(e, for_backward.value);
  SortedGraph graph = s;
  // With a cached transpose, out_acc would be allocated.
  if (!for_backward.value) graph.t_rowptr.reset();
  auto [out, lse, softmax, out_acc, selected, weights] =
      ops::EdgeAttention::call(graph, to_edges(inputs, s), constants, wanted);
  return {out,
          lse,
          softmax,
          out_acc,
          pad(selected, e.num_slots()),
          to_slots(weights, s, e.num_slots())};
}

Gradients adjacency_attention_backward(const Edges& e, const Inputs& inputs,
                                       const Constants& constants, const Upstream& upstream) {
  const Sorted s = sorted_of(e, true);
  Upstream given = upstream;
  given.grad_weights = to_edges(given.grad_weights, s);
  if (!is_absent(given.selected)) given.selected = given.selected.narrow(0, 0, s.col.numel());
  if (!is_absent(given.weights)) given.weights = *to_edges(given.weights, s);
  Gradients found = ops::EdgeAttentionBackward::call(s, to_edges(inputs, s), constants, given);
  std::size_t i = 0;
  const auto widen = [&](Tensor& grad) {
    if (kInputs[i++].is_per_edge()) grad = to_slots(grad, s, e.num_slots());
  };
  std::apply([&](auto&... grad) { (widen(grad), ...); }, found);
  return found;
}

// The CSR by destination of edges that have not been checked yet, with 32-bit or 64-bit indices.
Csr checked_csr(const Tensor& edge_index, std::int64_t num_src, std::int64_t num_dst, bool narrow) {
  check({edge_index, std::nullopt, std::nullopt, num_src, num_dst, false});
  static const auto op =
      find_operator<Csr(const Tensor&, const Tensor&, c10::SymInt)>("gat_ext::csr_of_edges");
  const Tensor ends = edge_index.to(narrow ? at::kInt : at::kLong).contiguous();
  return op.call(ends[0], ends[1], num_dst);
}

// The slots that are edges, [E'].
Tensor edge_slots(const Edges& e) {
  const Sorted s = sorted_of(e, false);
  return s.kept.has_value() ? s.kept->clone()
                            : at::arange(e.num_slots(), e.edges.options().dtype(at::kLong));
}

}  // namespace

void empty_graph_cache() { memo().clear(); }

std::size_t graph_cache_size() { return memo().size(); }

TORCH_LIBRARY_IMPL(gat_ext, CompositeExplicitAutograd, m) {
  m.impl("csr_of_edges", &csr_of_edges);
  m.impl("csr_transpose", &csr_transpose);
  m.impl("adjacency_attention", &ops::AdjacencyAttention::flat<&adjacency_attention>);
  m.impl("adjacency_attention_backward",
         &ops::AdjacencyAttentionBackward::flat<&adjacency_attention_backward>);
  m.impl("checked_csr", &checked_csr);
  m.impl("edge_slots", &ops::EdgeSlots::flat<&edge_slots>);
}

}  // namespace gat::binding
