// The scores of the edges of a row, which all passes of edge attention compute.
#pragma once

#include "attention.cuh"

namespace gat::cuda {

// What a lane loads for the edges that it stages.
template <class Score, class T, class Layout, bool RowIsDst>
struct EdgeTerms {
  using A = Acc<T>;
  template <class X>
  using Each = typename Layout::template Each<X>;

  // b + e where rows are destinations; otherwise e, while a is in `ends`.
  Each<A> term, bias;
  // Of dropout: 0, or the factor of the weights that it keeps. Negative for edges past the end and
  // those that top-k drops.
  Each<A> multiplier;
  Each<NodeStats<A>> ends;  // of the destinations, in the source pass

  __device__ __forceinline__ EdgeTerms(const Attention<T>& a, const Walk& walk, const Task& task,
                                       const Stage<Layout>& stage) {
    const EdgeAttentionInputs<T>& in = a.in;
#pragma unroll
    for (int e = 0; e < Layout::kPerLane; ++e) {
      term[e] = bias[e] = A(0), multiplier[e] = A(-1);
      if constexpr (!RowIsDst) ends[e] = {};
      if (!stage.valid(task, e)) continue;
      const std::int64_t other = a.at(stage.columns[e], task.head);
      multiplier[e] = A(1);
      if constexpr (!RowIsDst) ends[e] = load_stats(a.stats + other);
      if constexpr (RowIsDst && Score::has_node_terms) term[e] = widen(in.src_term[other]);
      if (a.has_edge_terms) load_edge(a, walk, task, stage.position(task, e), e);
    }
  }

  __device__ __forceinline__ bool live(int e) const { return multiplier[e] >= A(0); }

 private:
  __device__ __forceinline__ void load_edge(const Attention<T>& a, const Walk& walk,
                                            const Task& task, std::int64_t k, int e) {
    const EdgeAttentionInputs<T>& in = a.in;
    const std::int64_t id = walk.csr.id(k);
    if (in.edge_term) term[e] += widen(in.edge_term[a.at(id, task.head)]);
    if (in.bias) bias[e] = widen(in.bias[a.at(id, task.head)]);
    if (in.dropout.active()) {
      const bool kept = in.dropout.kept(in.dropout.draw(id, task.head / 4), task.head);
      multiplier[e] = kept ? a.keep : A(0);
    }
    if (in.selected && in.selected[a.at(walk.position_of(k), task.head)] == 0)
      multiplier[e] = A(-1);
  }
};

// The scores of the edges of a row. RowIsDst: the row of the task is the destination, x is loaded
// once per row and y is gathered; otherwise the reverse.
template <class Score, class T, class V, bool RowIsDst>
struct EdgeScores {
  using A = Acc<T>;
  using Layout = StagingOf<T, V>;
  using Terms = EdgeTerms<Score, T, Layout, RowIsDst>;
  static constexpr int n = Layout::n, C = V::C;
  template <class X>
  using Each = typename Layout::template Each<X>;
  Fragment<T, C> own;  // of the row: x, or y
  A own_term{};        // a, or b

  __device__ __forceinline__ static const T* own_rows(const Attention<T>& a) {
    return RowIsDst ? a.in.query : a.in.key;
  }
  __device__ __forceinline__ static const T* other_rows(const Attention<T>& a) {
    return RowIsDst ? a.in.key : a.in.query;
  }
  __device__ __forceinline__ A x(const Fragment<T, C>& other, int c, int i) const {
    return RowIsDst ? own(c, i) : other(c, i);
  }
  __device__ __forceinline__ A y(const Fragment<T, C>& other, int c, int i) const {
    return RowIsDst ? other(c, i) : own(c, i);
  }

  __device__ __forceinline__ void begin_row(const Attention<T>& a, const Task& task) {
    if constexpr (Score::has_term) {
      own = load_own<T, C>(own_rows(a), a.score, task, own_block(task, a.score_blocks));
    }
    if constexpr (Score::has_node_terms) {
      const T* const terms = RowIsDst ? a.in.dst_term : a.in.src_term;
      own_term = widen(terms[a.at(task.row, task.head)]);
    }
  }

  // Gathers the rows of the other ends of a group, and adds up the terms of this
  // lane's channels.
  __device__ __forceinline__ void gather_terms(const Attention<T>& a, const Walk& walk,
                                               const Task& task, const EdgeBatch<n>& batch,
                                               Fragment<T, C> (&other)[n], A (&sums)[n]) {
    for_each_block(a.score, a.score_blocks, task, batch, own_rows(a), other_rows(a), own, other,
                   [&](int block) { add_terms(a, walk, task, batch, block, other, sums); });
  }

  // Adds the terms of a block of channels.
  __device__ __forceinline__ void add_terms(const Attention<T>& a, const Walk& walk,
                                            const Task& task, const EdgeBatch<n>& batch, int block,
                                            const Fragment<T, C> (&other)[n], A (&sums)[n]) const {
    Fragment<T, C> w;
    if constexpr (Score::has_weight)
      w = load_fragment<T, C>(opaque(a.in.att), task.head, a.score, task.team, block);
#pragma unroll
    for (int u = 0; u < n; ++u) {
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const EdgeRow<T, C> e(a, walk.csr, task, a.score, batch.first + u, batch.valid(u), block,
                              c);
#pragma unroll
        for (int i = 0; i < kPack<T>; ++i) {
          A wi{}, yi = y(other[u], c, i);
          if constexpr (Score::has_weight) wi = w(c, i);
          if constexpr (V::kGeneral) yi += e[i];
          sums[u] += Score::term(x(other[u], c, i), yi, wi, a.in.params);
        }
      }
    }
  }

  // The scores of the edges that a lane stages; -inf for edges past the end and those that top-k
  // drops.
  __device__ __forceinline__ void finish(const Attention<T>& a, const Terms& terms,
                                         const Each<A>& raw, Each<A>& score) const {
#pragma unroll
    for (int e = 0; e < Layout::kPerLane; ++e) {
      const A s = Score::finish(raw[e], dst_term(terms, e), src_term(terms, e), a.in.params);
      score[e] = terms.live(e) ? s + terms.bias[e] : negative_infinity<A>();
    }
  }

  __device__ __forceinline__ FinishGrad<A> finish_grad(const Attention<T>& a, const Terms& terms,
                                                       int e, A raw, A ds) const {
    return Score::finish_vjp(ds, raw, dst_term(terms, e), src_term(terms, e), a.in.params);
  }

 private:
  __device__ __forceinline__ A dst_term(const Terms& terms, int e) const {
    if constexpr (RowIsDst) {
      return own_term;
    } else {
      return terms.ends[e].term;
    }
  }
  __device__ __forceinline__ A src_term(const Terms& terms, int e) const {
    return RowIsDst ? terms.term[e] : own_term + terms.term[e];
  }
};

}  // namespace gat::cuda
