// Forward of fused edge attention, selection of the top-k edges, and the attention weights.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "edge_tile.h"
#include "for_each_row.h"

namespace gat::cpu {

// State of a row: max [H], sum [H], weighted sum [H, F]; with `of_sums` also that of the edge
// features, [H, padded_terms(K)].
template <class Isa, class Score, class T>
struct ForwardPass : NothingShared {
  using Scalar = Acc<T>;
  using Scratch = TileScratch<Scalar>;
  using A = Scalar;
  const EdgeAttentionForward<T>& args;
  const EdgeAttentionInputs<T>& in = args.in;
  std::int64_t H = in.num_heads, F = in.value_channels;

  // Linear edge features add to values, by their sums.
  bool of_sums = kIsProduct<Score> && in.edge_attr && in.edge_in_value;
  std::int64_t terms = of_sums ? padded_terms(in.edge_channels) : 0;

  explicit ForwardPass(const EdgeAttentionForward<T>& a) : args(a) {}
  std::int64_t state_size() const { return H * (F + 2 + terms); }
  Scratch make_scratch() const { return make_tile_scratch<Score>(in); }

  void init(A* state) const {
    std::fill(state, state + H, negative_infinity<A>());
    std::fill(state + H, state + state_size(), A(0));
  }

  // Updates the running max and sum with the scores of one head of a tile, and writes exp(s - max)
  // to s.weight.
  void absorb(std::int64_t h, int n, A* state, Scratch& s) const {
    const A* const score = s.score.data() + h * kTile;
    auto top = load<Vec<A, kLanes<Isa, A>>>(score);
    for_edges<Isa, A>(n, [&](int e, auto zero) {
      const auto v = load<decltype(zero)>(score + e);
      top = v > top ? v : top;
    });
    const A old_max = state[h];
    const A new_max = std::max(old_max, max_lanes<A>(top));
    const A shift = safe_max(new_max);
    const A sum = exp_tile<Isa, A>(score, shift, n, s.weight.data() + h * kTile);
    // While the maximum is -inf, the sums are 0.
    if (new_max != old_max && old_max != negative_infinity<A>()) {
      const A factor = exp_of<A, A>(old_max - shift);
      state[H + h] *= factor;
      A* const acc = state + 2 * H + h * F;
      store_scaled<Isa, A, A>(acc, acc, factor, F);
      A* const sums = state + H * (F + 2) + h * terms;
      for (std::int64_t k = 0; k < terms; ++k) sums[k] *= factor;
    }
    state[h] = new_max;
    state[H + h] += sum;
  }

  void accumulate(std::int64_t row, std::int64_t begin, std::int64_t end, A* state, A*,
                  Scratch& s) const {
    for (std::int64_t k = begin; k < end; k += kTile) {
      const int n = static_cast<int>(std::min<std::int64_t>(kTile, end - k));
      load_tile(in.csr, k, reads_edges(in), s);
      score_tile<Isa, Score, T>(in, row, k, n, s);
      if (args.scores) scatter_heads<Isa>(s.score.data(), s.own, n, H, args.scores + k * H);
      for (std::int64_t h = 0; h < H; ++h) absorb(h, n, state, s);
      if (in.dropout.active()) {
        draw_multipliers<Isa>(in.dropout, H, n, s);
        apply_multipliers(H, n, s, s.weight.data());
      }
      with_value_rows<Isa, Score>(in, n, s, [&](auto rows) {
        accumulate_rows<Isa, A>(rows, s.weight.data(), Scaled{}, state + 2 * H);
      });
      if (of_sums) {
        LinearEdges<Isa, T>(in).sum_edges(s.weight.data(), n, s, s.edge_sum.data());
        add_states(state + H * (F + 2), s.edge_sum.data(), H * terms);
      }
    }
  }

  void merge(A* state, const A* other) const {
    for (std::int64_t h = 0; h < H; ++h) {
      const auto f = merge_factors(state[h], other[h]);
      state[h] = f.max;
      state[H + h] = state[H + h] * f.left + other[H + h] * f.right;
      A* const acc = state + 2 * H + h * F;
      for (std::int64_t d = 0; d < F; ++d)
        acc[d] = acc[d] * f.left + other[2 * H + h * F + d] * f.right;
      const std::int64_t sums = H * (F + 2) + h * terms;
      for (std::int64_t k = 0; k < terms; ++k)
        state[sums + k] = state[sums + k] * f.left + other[sums + k] * f.right;
    }
  }

  // out = the sums of v plus W times those of e.
  void finish_sums(std::int64_t row, std::int64_t h, A scale, const A* state) const {
    const std::int64_t K = in.edge_channels, row_size = H * F;
    const A *const acc = state + 2 * H + h * F, *const sums = state + H * (F + 2) + h * terms;
    for_lanes<Isa, A>(F, [&](std::int64_t d, auto lanes) {
      using V = typename decltype(lanes)::V;
      V sum = load<V>(acc + d);
      for (std::int64_t k = 0; k < K; ++k)
        sum += load<V>(in.edge_map + k * row_size + h * F + d) * sums[k];
      store(args.out + (row * H + h) * F + d, V(sum * scale));
    });
    if (args.edge_sums) store_scaled<Isa, A>(args.edge_sums + (row * H + h) * K, sums, scale, K);
  }

  void prepare(std::int64_t row) const { prefetch_for_write(args.out + row * H * F, H * F); }
  void finish(std::int64_t row, const A* state) const {
    for (std::int64_t h = 0; h < H; ++h) {
      const A scale = normalizer(state[H + h]);
      const std::int64_t offset = (row * H + h) * F;
      if (of_sums) {
        finish_sums(row, h, scale, state);
      } else {
        store_scaled<Isa, A>(args.out + offset, state + 2 * H + h * F, scale, F);
      }
      if (args.out_acc)
        store_scaled<Isa, A>(args.out_acc + offset, state + 2 * H + h * F, scale, F);
      args.softmax[row * H + h] = RowSoftmax<A>::of(state[h], state[H + h]);
      if (args.lse) args.lse[row * H + h] = log_sum_exp(state[h], state[H + h]);
    }
  }
};

template <class Isa, class Score, class T>
void edge_attention_forward(const EdgeAttentionForward<T>& args) {
  const CsrView& csr = args.in.csr;
  for_each_row(csr.rowptr, partition_rows(csr.rowptr, csr.num_rows), args.in.num_threads,
               ForwardPass<Isa, Score, T>(args));
}

// Rows are not split, because the selection needs all edges of a row. All memory is allocated
// before threads start: a thread could not report that an allocation failed.
template <class Isa, class Score, class T>
struct SelectPass : NothingShared {
  using Scalar = Acc<T>;
  using A = Scalar;
  struct Candidate {
    A score;
    std::int64_t position;  // in the row
  };
  struct Scratch {
    TileScratch<A> tile;
    // [H, capacity]: edges seen so far that may be among the largest.
    std::unique_ptr<Candidate[]> candidates;
    std::vector<std::int64_t> count;  // [H]
    // [H]: later candidates must exceed it; NaN lets every edge in.
    std::vector<A> bar;
  };
  const EdgeAttentionInputs<T>& in;
  std::int64_t top_k;
  std::uint8_t* selected;
  std::int64_t H = in.num_heads, capacity = 0;

  SelectPass(const EdgeAttentionInputs<T>& i, std::int64_t k, std::uint8_t* s)
      : in(i), top_k(k), selected(s) {
    std::int64_t longest = 0;
    for (std::int64_t row = 0; row < in.csr.num_rows; ++row) {
      longest = std::max(longest, in.csr.rowptr[row + 1] - in.csr.rowptr[row]);
    }
    // Twice the number that is kept, so that most edges are compared with the bar only.
    if (longest > top_k) capacity = std::min(longest, top_k + std::max<std::int64_t>(top_k, kTile));
  }
  std::int64_t state_size() const { return 0; }
  Scratch make_scratch() const {
    const auto heads = static_cast<std::size_t>(H);
    return {make_tile_scratch<Score>(in),
            std::unique_ptr<Candidate[]>(new Candidate[heads * static_cast<std::size_t>(capacity)]),
            std::vector<std::int64_t>(heads), std::vector<A>(heads)};
  }
  void init(A*) const {}
  void merge(A*, const A*) const {}
  void finish(std::int64_t, const A*) const {}

  // NaN counts as larger than any number, so that it is selected and stays visible.
  static bool before(const Candidate& a, const Candidate& b) {
    const bool nan_a = a.score != a.score, nan_b = b.score != b.score;
    if (nan_a != nan_b) return nan_a;
    if (!nan_a && a.score != b.score) return a.score > b.score;
    return a.position < b.position;
  }

  // Drops all candidates of a head except the top_k largest.
  void drop(std::int64_t h, Scratch& s) const {
    const auto head = static_cast<std::size_t>(h);
    Candidate *const first = s.candidates.get() + h * capacity, *const last = first + top_k - 1;
    std::nth_element(first, last, first + s.count[head], &before);
    s.count[head] = top_k;
    s.bar[head] = last->score;
  }

  // Adds the edges of a tile, which starts at `position` of the row, to the candidates.
  void absorb(std::int64_t h, std::int64_t position, int n, Scratch& s) const {
    const auto head = static_cast<std::size_t>(h);
    Candidate* const first = s.candidates.get() + h * capacity;
    const A* const score = s.tile.score.data() + h * kTile;
    for (int e = 0; e < n; ++e) {
      if (score[e] <= s.bar[head]) continue;  // of equal scores the earlier edge is kept
      first[s.count[head]++] = {score[e], position + e};
      if (s.count[head] == capacity) drop(h, s);
    }
  }

  void accumulate(std::int64_t row, std::int64_t begin, std::int64_t end, A*, A*,
                  Scratch& s) const {
    if (end - begin <= top_k) {
      std::fill(selected + begin * H, selected + end * H, std::uint8_t{1});
      return;
    }
    std::fill(selected + begin * H, selected + end * H, std::uint8_t{0});
    std::fill(s.count.begin(), s.count.end(), 0);
    std::fill(s.bar.begin(), s.bar.end(), std::numeric_limits<A>::quiet_NaN());
    for (std::int64_t k = begin; k < end; k += kTile) {
      const int n = static_cast<int>(std::min<std::int64_t>(kTile, end - k));
      load_tile(in.csr, k, reads_edges(in), s.tile);
      score_tile<Isa, Score, T>(in, row, k, n, s.tile);
      for (std::int64_t h = 0; h < H; ++h) absorb(h, k - begin, n, s);
    }
    for (std::int64_t h = 0; h < H; ++h) {
      drop(h, s);
      const Candidate* const first = s.candidates.get() + h * capacity;
      for (std::int64_t k = 0; k < top_k; ++k) selected[(begin + first[k].position) * H + h] = 1;
    }
  }
};

template <class Isa, class Score, class T>
void edge_attention_select(const EdgeAttentionInputs<T>& in, std::int64_t top_k,
                           std::uint8_t* selected) {
  for_each_row(in.csr.rowptr, partition_rows(in.csr.rowptr, in.csr.num_rows, false), in.num_threads,
               SelectPass<Isa, Score, T>(in, top_k, selected));
}

// Writes alpha m of every edge. It gathers no rows: the forward has written the scores.
template <class Isa, class T>
struct WeightsPass : NothingShared {
  using Scalar = Acc<T>;
  using Scratch = TileScratch<Scalar>;
  using A = Scalar;
  const EdgeAttentionInputs<T>& in;
  const A* scores;
  const RowSoftmax<A>* softmax;
  T* weights;
  std::int64_t H = in.num_heads;

  WeightsPass(const EdgeAttentionInputs<T>& i, const A* s, const RowSoftmax<A>* r, T* w)
      : in(i), scores(s), softmax(r), weights(w) {}
  std::int64_t state_size() const { return 0; }
  Scratch make_scratch() const { return {in.num_heads, 0, 0}; }
  void init(A*) const {}
  void merge(A*, const A*) const {}
  void finish(std::int64_t, const A*) const {}

  void accumulate(std::int64_t row, std::int64_t begin, std::int64_t end, A*, A*,
                  Scratch& s) const {
    for (std::int64_t k = begin; k < end; k += kTile) {
      const int n = static_cast<int>(std::min<std::int64_t>(kTile, end - k));
      load_tile(in.csr, k, true, s);
      gather_heads<Isa>(scores + k * H, s.own, n, H, s.score.data());
      weights_tile<Isa>(softmax + row * H, H, n, s);
      if (in.dropout.active()) {
        draw_multipliers<Isa>(in.dropout, H, n, s);
        apply_multipliers(H, n, s, s.weight.data());
      }
      scatter_heads<Isa>(s.weight.data(), s.id, n, H, weights);
    }
  }
};

template <class Isa, class T>
void edge_attention_weights(const EdgeAttentionInputs<T>& in, const Acc<T>* scores,
                            const RowSoftmax<Acc<T>>* softmax, T* weights) {
  for_each_row(in.csr.rowptr, partition_rows(in.csr.rowptr, in.csr.num_rows), in.num_threads,
               WeightsPass<Isa, T>(in, scores, softmax, weights));
}

}  // namespace gat::cpu
