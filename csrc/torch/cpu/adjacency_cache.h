// The edges that adjacency_csr has sorted on the CPU: reading them, and copying what was computed
// from them, takes a small part of the time of sorting.
//
// An entry lives as long as the tensor of its edges. The identity of this tensor is not enough,
// because compiled programs modify their buffers without torch noticing: the contents must be equal
// too. For the same reason nobody else may hold the tensors of an entry. Above limit_ bytes the
// least recently used entries are dropped, except the kRecent used last, so that a step on one huge
// graph always finds its graph; gat_ext/graph/cache.py has the same limits.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>

#include "../../core/fingerprint.h"
#include "../../cpu/memory_limit.h"
#include "../adjacency.h"
#include "../allocate.h"
#include "../fingerprint.h"

namespace gat::binding {

class AdjacencyCache {
 public:
  // The result of sort() for edges of this contents.
  template <class Sort>
  AdjacencyCsr get(const Edges& e, const Sorting& sorting, const Sort& sort) {
    const Key key{e.edges.unsafeGetTensorImpl(), e.num_src, e.num_dst, e.self_loops,
                  sorting.narrow};
    const State state{fingerprint(e), e.num_given()};
    if (const std::optional<AdjacencyCsr> found = look_up(key, state, sorting.transpose))
      return copy(*found, sorting.transpose);
    AdjacencyCsr csr = sort();
    keep(key, {Weak(e.edges.getIntrusivePtr()), state, copy(csr, sorting.transpose), 0, 0});
    return csr;
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
  using Key = std::tuple<const void*, std::int64_t, std::int64_t, bool, bool>;
  using State = std::pair<std::uint64_t, std::int64_t>;
  struct Entry {
    Weak tensor;
    State state;
    AdjacencyCsr csr;
    std::size_t bytes;
    std::uint64_t last_use;
  };

  static std::uint64_t fingerprint(const Edges& e) {
    std::uint64_t all = binding::fingerprint(e.edges);
    for (const OptionalTensor* const part : {&e.col, &e.edge_id})
      all =
          finalize(all + kFingerprintStep) + (part->has_value() ? binding::fingerprint(**part) : 0);
    return all;
  }

  static AdjacencyCsr copy(const AdjacencyCsr& csr, bool transpose) {
    std::size_t i = 0;
    const auto copied = [&](const at::Tensor& tensor) {
      const bool wanted = i++ < kByDestination || transpose;
      return wanted ? allocate_like(tensor).copy_(tensor) : at::empty({0}, tensor.options());
    };
    // In braces, which order the calls.
    return std::apply([&](const auto&... each) { return AdjacencyCsr{copied(each)...}; }, csr);
  }

  std::optional<AdjacencyCsr> look_up(const Key& key, const State& state, bool transpose) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end()) return std::nullopt;
    Entry& entry = found->second;
    const bool has_transpose = std::get<kByDestination>(entry.csr).numel() > 0;
    if (entry.tensor.expired() || entry.state != state || (transpose && !has_transpose))
      return std::nullopt;
    entry.last_use = ++uses_;
    return entry.csr;
  }

  void keep(const Key& key, Entry entry) {
    const auto bytes = [](const auto&... each) { return (each.nbytes() + ...); };
    entry.bytes = std::apply(bytes, entry.csr) + kOverhead;
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

}  // namespace gat::binding
