// Edge softmax, SDDMM, SpMM, and dropout of features.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../../core/online_softmax.h"
#include "../sparse.h"
#include "edge_tile.h"
#include "for_each_row.h"

namespace gat::cpu {

inline constexpr std::int64_t kRows = 256;  // per work item of a thread

GAT_HD int threads_for_rows(const CsrView& csr, std::int64_t work, int num_threads) {
  return threads_for(work, (csr.num_rows + kRows - 1) / kRows, num_threads);
}

// Rows are not split: softmax and its gradient read the [degree, H] numbers of a row twice, which
// is little compared with a feature row.
template <class Isa, class T>
void edge_softmax(const CsrView& csr, std::int64_t H, const T* scores, T* alpha, int num_threads) {
  using A = Acc<T>;
  const int threads = threads_for_rows(csr, 32 * csr.num_edges() * H, num_threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic, kRows)
  for (std::int64_t row = 0; row < csr.num_rows; ++row) {
    const std::int64_t begin = csr.rowptr[row], end = csr.rowptr[row + 1];
    for (std::int64_t h = 0; h < H; ++h) {
      A top = negative_infinity<A>();
      for (std::int64_t k = begin; k < end; ++k)
        top = std::max(top, read(scores + csr.id(k) * H + h));
      const A shift = safe_max(top);
      A sum{};
      for (std::int64_t k = begin; k < end; ++k)
        sum += exp_of<A, A>(read(scores + csr.id(k) * H + h) - shift);
      const A scale = normalizer(sum);
      for (std::int64_t k = begin; k < end; ++k) {
        const std::int64_t e = csr.id(k) * H + h;
        store(alpha + e, A(exp_of<A, A>(read(scores + e) - shift) * scale));
      }
    }
  }
}

template <class Isa, class T>
void edge_softmax_backward(const CsrView& csr, std::int64_t H, const T* grad, const T* alpha,
                           T* grad_scores, int num_threads) {
  using A = Acc<T>;
  const int threads = threads_for_rows(csr, 8 * csr.num_edges() * H, num_threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic, kRows)
  for (std::int64_t row = 0; row < csr.num_rows; ++row) {
    const std::int64_t begin = csr.rowptr[row], end = csr.rowptr[row + 1];
    for (std::int64_t h = 0; h < H; ++h) {
      A sum{};
      for (std::int64_t k = begin; k < end; ++k) {
        const std::int64_t e = csr.id(k) * H + h;
        sum += read(alpha + e) * read(grad + e);
      }
      for (std::int64_t k = begin; k < end; ++k) {
        const std::int64_t e = csr.id(k) * H + h;
        store(grad_scores + e, A(read(alpha + e) * (read(grad + e) - sum)));
      }
    }
  }
}

// The indices of a tile, and a number for each edge and head.
template <class A>
struct SparseScratch : TileIndices {
  std::vector<A> number;  // [H, kTile]
  explicit SparseScratch(std::int64_t num_heads)
      : number(static_cast<std::size_t>(num_heads * kTile), A(1)) {}
};

template <class Isa, class T>
struct SddmmPass : NothingShared {
  using Scalar = Acc<T>;
  using A = Scalar;
  using Scratch = SparseScratch<A>;
  const CsrView& csr;
  std::int64_t H, F;
  const T *x, *y;
  T* out;

  SddmmPass(const CsrView& c, std::int64_t h, std::int64_t f, const T* x_, const T* y_, T* o)
      : csr(c), H(h), F(f), x(x_), y(y_), out(o) {}
  std::int64_t state_size() const { return 0; }
  Scratch make_scratch() const { return Scratch(H); }
  void init(A*) const {}
  void merge(A*, const A*) const {}
  void finish(std::int64_t, const A*) const {}
  void accumulate(std::int64_t row, std::int64_t begin, std::int64_t end, A*, A*,
                  Scratch& s) const {
    for (std::int64_t k = begin; k < end; k += kTile) {
      const int n = static_cast<int>(std::min<std::int64_t>(kTile, end - k));
      load_tile(csr, k, true, s);
      reduce_rows<Isa, A>(RowTile<T, Ahead::yes>{y, s.neighbor, n, H, F},
                          DotWith<T>{x + row * H * F}, s.number.data());
      scatter_heads<Isa>(s.number.data(), s.id, n, H, out);
    }
  }
};

template <class Isa, class T>
void sddmm(const CsrView& csr, std::int64_t H, std::int64_t F, const T* x, const T* y, T* out,
           int num_threads) {
  for_each_row(csr.rowptr, partition_rows(csr.rowptr, csr.num_rows), num_threads,
               SddmmPass<Isa, T>(csr, H, F, x, y, out));
}

// State of a row: [H, F].
template <class Isa, class T>
struct SpmmPass : NothingShared {
  using Scalar = Acc<T>;
  using A = Scalar;
  using Scratch = SparseScratch<A>;
  const CsrView& csr;
  std::int64_t H, F;
  const T *weight, *x;
  T* out;

  // Without weights the heads are treated as one long row.
  SpmmPass(const CsrView& c, std::int64_t h, std::int64_t f, const T* w, const T* x_, T* o)
      : csr(c), H(w ? h : 1), F(w ? f : h * f), weight(w), x(x_), out(o) {}
  std::int64_t state_size() const { return H * F; }
  Scratch make_scratch() const { return Scratch(H); }
  void init(A* state) const { std::fill(state, state + H * F, A(0)); }
  void merge(A* state, const A* other) const { add_states(state, other, H * F); }
  void prepare(std::int64_t row) const { prefetch_for_write(out + row * H * F, H * F); }
  void finish(std::int64_t row, const A* state) const {
    store_scaled<Isa, A>(out + row * H * F, state, A(1), H * F);
  }
  void accumulate(std::int64_t, std::int64_t begin, std::int64_t end, A* state, A*,
                  Scratch& s) const {
    for (std::int64_t k = begin; k < end; k += kTile) {
      const int n = static_cast<int>(std::min<std::int64_t>(kTile, end - k));
      load_tile(csr, k, weight != nullptr, s);
      if (weight) gather_heads<Isa>(weight, s.id, n, H, s.number.data());
      accumulate_rows<Isa, A>(RowTile<T, Ahead::yes>{x, s.neighbor, n, H, F}, s.number.data(),
                              Scaled{}, state);
    }
  }
};

template <class Isa, class T>
void spmm(const CsrView& csr, std::int64_t H, std::int64_t F, const T* weight, const T* x, T* out,
          int num_threads) {
  for_each_row(csr.rowptr, partition_rows(csr.rowptr, csr.num_rows), num_threads,
               SpmmPass<Isa, T>(csr, H, F, weight, x, out));
}

// ---- edge features that the heads share

// Buffers of a row: query [K, H], so that loops over the heads are innermost, and a number for each
// head.
template <class A>
struct SharedEdgeScratch {
  std::vector<A> query, number;
  SharedEdgeScratch(std::int64_t num_heads, std::int64_t channels)
      : query(static_cast<std::size_t>(num_heads * channels)),
        number(static_cast<std::size_t>(num_heads)) {}
};

// Prefetches the edge features of a following edge of the row.
template <class T>
GAT_HD void prefetch_edge(const CsrView& csr, std::int64_t k, std::int64_t end,
                          std::int64_t channels, const T* edge_attr) {
  prefetch(edge_attr + csr.id(std::min(k + kAhead, end - 1)) * channels,
           channels * static_cast<std::int64_t>(sizeof(T)));
}

template <class Isa, class T>
struct EdgeDotPass : NothingShared {
  using Scalar = Acc<T>;
  using A = Scalar;
  using Scratch = SharedEdgeScratch<A>;
  const CsrView& csr;
  std::int64_t H, K;
  const T *query, *edge_attr;
  T* out;

  EdgeDotPass(const CsrView& c, std::int64_t h, std::int64_t k, const T* q, const T* e, T* o)
      : csr(c), H(h), K(k), query(q), edge_attr(e), out(o) {}
  std::int64_t state_size() const { return 0; }
  Scratch make_scratch() const { return Scratch(H, K); }
  void init(A*) const {}
  void merge(A*, const A*) const {}
  void finish(std::int64_t, const A*) const {}
  void accumulate(std::int64_t row, std::int64_t begin, std::int64_t end, A*, A*,
                  Scratch& s) const {
    A *const q = s.query.data(), *const sum = s.number.data();
    for (std::int64_t h = 0; h < H; ++h) {
      for (std::int64_t c = 0; c < K; ++c) q[c * H + h] = read(query + (row * H + h) * K + c);
    }
    with_heads(H, [&](auto heads) {
      for (std::int64_t k = begin; k < end; ++k) {
        prefetch_edge(csr, k, end, K, edge_attr);
        const std::int64_t id = csr.id(k);
        std::fill_n(sum, heads, A(0));
        for (std::int64_t c = 0; c < K; ++c) {
          const A e = read(edge_attr + id * K + c);
          for (std::int64_t h = 0; h < heads; ++h) sum[h] += e * q[c * heads + h];
        }
        for (std::int64_t h = 0; h < heads; ++h) store(out + id * heads + h, sum[h]);
      }
    });
  }
};

template <class Isa, class T>
void edge_dot(const CsrView& csr, std::int64_t H, std::int64_t K, const T* query,
              const T* edge_attr, T* out, int num_threads) {
  for_each_row(csr.rowptr, partition_rows(csr.rowptr, csr.num_rows), num_threads,
               EdgeDotPass<Isa, T>(csr, H, K, query, edge_attr, out));
}

// State of a row: [H, K].
template <class Isa, class T>
struct EdgeSumPass : NothingShared {
  using Scalar = Acc<T>;
  using A = Scalar;
  using Scratch = SharedEdgeScratch<A>;
  const CsrView& csr;
  std::int64_t H, K;
  const T *weight, *edge_attr;
  T* out;

  EdgeSumPass(const CsrView& c, std::int64_t h, std::int64_t k, const T* w, const T* e, T* o)
      : csr(c), H(h), K(k), weight(w), edge_attr(e), out(o) {}
  std::int64_t state_size() const { return H * K; }
  Scratch make_scratch() const { return Scratch(H, 0); }
  void init(A* state) const { std::fill(state, state + H * K, A(0)); }
  void merge(A* state, const A* other) const { add_states(state, other, H * K); }
  void finish(std::int64_t row, const A* state) const {
    store_scaled<Isa, A>(out + row * H * K, state, A(1), H * K);
  }
  void accumulate(std::int64_t, std::int64_t begin, std::int64_t end, A* state, A*,
                  Scratch& s) const {
    A* const w = s.number.data();
    for (std::int64_t k = begin; k < end; ++k) {
      prefetch_edge(csr, k, end, K, edge_attr);
      const std::int64_t id = csr.id(k);
      for (std::int64_t h = 0; h < H; ++h) w[h] = read(weight + id * H + h);
      for_lanes<Isa, A>(K, [&](std::int64_t c, auto lanes) {
        using V = typename decltype(lanes)::V;
        const V e = load<V>(edge_attr + id * K + c);
        for (std::int64_t h = 0; h < H; ++h) {
          A* const to = state + h * K + c;
          store(to, V(load<V>(to) + e * w[h]));
        }
      });
    }
  }
};

template <class Isa, class T>
void edge_sum(const CsrView& csr, std::int64_t H, std::int64_t K, const T* weight,
              const T* edge_attr, T* out, int num_threads) {
  for_each_row(csr.rowptr, partition_rows(csr.rowptr, csr.num_rows), num_threads,
               EdgeSumPass<Isa, T>(csr, H, K, weight, edge_attr, out));
}

template <class Isa, class T>
void spmm_extremum(const CsrView& csr, std::int64_t H, std::int64_t F, int sign, const T* weight,
                   const T* x, T* out, MutableIndexArray arg, int num_threads) {
  using A = Acc<T>;
  const int threads =
      threads_for_rows(csr, 4 * (csr.num_rows + csr.num_edges()) * H * F, num_threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic, kRows)
  for (std::int64_t row = 0; row < csr.num_rows; ++row) {
    const std::int64_t begin = csr.rowptr[row], end = csr.rowptr[row + 1];
    for (std::int64_t h = 0; h < H; ++h) {
      for (std::int64_t d = h * F; d < (h + 1) * F; ++d) {
        A best{};
        std::int64_t from = -1;
        for (std::int64_t k = begin; k < end; ++k) {
          const std::int64_t id = csr.id(k);
          const A w = weight ? read(weight + id * H + h) : A(1);
          const A v = w * read(x + csr.col[k] * H * F + d);
          const bool better = sign > 0 ? v > best : v < best;
          if (from < 0 || better || (v != v && best == best)) {
            best = v;
            from = id;
          }
        }
        store(out + row * H * F + d, best);
        arg.set(row * H * F + d, from);
      }
    }
  }
}

template <class Isa, class T>
void spmm_extremum_backward(const CsrView& csr, std::int64_t H, std::int64_t F, const T* weight,
                            const T* grad, IndexArray arg, T* grad_x, int num_threads) {
  using A = Acc<T>;
  const int threads =
      threads_for_rows(csr, 4 * (csr.num_rows + csr.num_edges()) * H * F, num_threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic, kRows)
  for (std::int64_t row = 0; row < csr.num_rows; ++row) {
    for (std::int64_t h = 0; h < H; ++h) {
      for (std::int64_t d = h * F; d < (h + 1) * F; ++d) {
        A sum{};
        for (std::int64_t k = csr.rowptr[row]; k < csr.rowptr[row + 1]; ++k) {
          const std::int64_t id = csr.id(k), other = csr.col[k] * H * F + d;
          if (arg[other] == id)
            sum += read(grad + other) * (weight ? read(weight + id * H + h) : A(1));
        }
        store(grad_x + row * H * F + d, sum);
      }
    }
  }
}

// A row's winners are among its own edges, so that no two threads add to the same number.
template <class Isa, class T>
void winner_sum(const CsrView& csr, std::int64_t H, std::int64_t F, const T* values, IndexArray arg,
                Acc<T>* out, int num_threads) {
  const int threads =
      threads_for_rows(csr, 4 * (csr.num_rows * F + csr.num_edges()) * H, num_threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic, kRows)
  for (std::int64_t row = 0; row < csr.num_rows; ++row) {
    for (std::int64_t k = csr.rowptr[row]; k < csr.rowptr[row + 1]; ++k)
      std::fill_n(out + csr.id(k) * H, H, Acc<T>(0));
    for (std::int64_t h = 0; h < H; ++h) {
      for (std::int64_t d = (row * H + h) * F; d < (row * H + h + 1) * F; ++d) {
        const std::int64_t id = arg[d];  // -1 in a row without edges
        if (id >= 0 && id < csr.num_edges()) out[id * H + h] += read(values + d);
      }
    }
  }
}

inline constexpr std::int64_t kDropoutCounters = 16, kDropoutBlock = 4 * kDropoutCounters;

// The multipliers of the elements of a block: element 64 b + 16 w + c of a tensor uses word w of
// counter 16 b + c.
template <class Isa, class A>
GAT_HD void dropout_block(const Dropout& dropout, std::int64_t block, A* multiplier) {
  using U = Vec<std::uint64_t, kLanes<Isa, std::uint64_t>>;
  using V = Vec<A, kLanesOf<U, std::uint64_t>>;
  const V keep = V{} + static_cast<A>(dropout.keep_scale);
  std::int64_t counter[kDropoutCounters];
  std::iota(counter, counter + kDropoutCounters, kDropoutCounters * block);
  philox_lanes<Isa>(
      static_cast<std::uint64_t>(*dropout.seed), counter, kDropoutCounters, 0,
      [&](int c, U w0, U w1, U w2, U w3) {
        const auto store_word = [&](int word, U number) {
          const auto kept = convert<
              Vec<std::conditional_t<sizeof(A) == 8, std::int64_t, std::int32_t>, kLanesOf<V, A>>>(
              (number & 0xffffffffu) >= dropout.threshold);
          store(multiplier + kDropoutCounters * word + c, V(kept ? keep : V{}));
        };
        store_word(0, w0), store_word(1, w1), store_word(2, w2), store_word(3, w3);
      });
}

// Row r has the elements of row number[r] of a larger tensor.
template <class Isa, class T>
void dropout(const Dropout& dropout, std::int64_t rows, std::int64_t channels, const T* x, T* out,
             int num_threads) {
  using A = Acc<T>;
  // Without numbers, each block is a row of its own.
  const std::int64_t n = rows * channels, width = dropout.number ? channels : kDropoutBlock;
  const std::int64_t count = width == 0 ? 0 : (n + width - 1) / width;
  const int threads = threads_for(8 * n, count, num_threads);
  A multiplier[kDropoutBlock];
  std::int64_t drawn = -1;  // the block whose multipliers these are
#pragma omp parallel for num_threads(threads) schedule(static) private(multiplier) \
    firstprivate(drawn)
  for (std::int64_t row = 0; row < count; ++row) {
    const std::int64_t start = (dropout.number ? dropout.number[row] : row) * width,
                       end = start + std::min(width, n - row * width);
    for (std::int64_t at = start; at < end;) {
      const std::int64_t skip = at % kDropoutBlock, left = std::min(kDropoutBlock - skip, end - at);
      if (drawn != at / kDropoutBlock) {
        drawn = at / kDropoutBlock;
        dropout_block<Isa>(dropout, drawn, multiplier);
      }
      const std::int64_t first = row * width + at - start;
      for_lanes<Isa, A>(left, [&](std::int64_t i, auto lanes) {
        using L = typename decltype(lanes)::V;
        store(out + first + i, L(load<L>(x + first + i) * load<L>(multiplier + skip + i)));
      });
      at += left;
    }
  }
}

template <class Isa, class T>
SparseKernels<T> sparse_kernels() {
  return {&edge_softmax<Isa, T>,  &edge_softmax_backward<Isa, T>,
          &sddmm<Isa, T>,         &spmm<Isa, T>,
          &spmm_extremum<Isa, T>, &spmm_extremum_backward<Isa, T>,
          &winner_sum<Isa, T>,    &edge_dot<Isa, T>,
          &edge_sum<Isa, T>,      &dropout<Isa, T>};
}

}  // namespace gat::cpu
