// The dot products of every head of a row with vectors of that head, and their gradients: bound by
// reading x, and in the backward pass by writing its gradient, once each.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../head_terms.h"
#include "edge_tile.h"

namespace gat::cpu {

// Rows of a work item. The sums over all rows are added item by item, so that they do not depend on
// the number of threads.
GAT_HD std::int64_t rows_of_item(std::int64_t rows) {
  constexpr std::int64_t kFewest = 16 * kTile, kMostItems = 256;
  const std::int64_t most = (rows + kMostItems - 1) / kMostItems;
  return std::max(kFewest, (most + kTile - 1) / kTile * kTile);
}

// Calls f(first row, number of rows) for the tiles of an item.
template <class F>
GAT_HD void for_each_row_tile(std::int64_t item, std::int64_t rows_per_item, std::int64_t rows,
                              F&& f) {
  const std::int64_t end = std::min(rows, (item + 1) * rows_per_item);
  for (std::int64_t row = item * rows_per_item; row < end; row += kTile)
    f(row, static_cast<int>(std::min<std::int64_t>(kTile, end - row)));
}

// The index of a tile of n adjacent rows. Behind it is the last row again, because reduce_rows
// reads up to a multiple of four.
struct AdjacentRows {
  std::int64_t index[kTile];
  explicit AdjacentRows(int n) {
    for (int e = 0; e < kTile; ++e) index[e] = std::min(e, n - 1);
  }
};

template <class Isa, class T>
void head_terms(const HeadTerms<T>& in, T* out, int num_threads) {
  using A = Acc<T>;
  const std::int64_t N = in.rows, H = in.num_heads, C = in.channels, K = in.num_vectors;
  const std::int64_t per_item = rows_of_item(N), items = (N + per_item - 1) / per_item;
  const int threads = threads_for(N * H * C * K, items, num_threads);
#pragma omp parallel num_threads(threads)
  {
    std::vector<A> number(static_cast<std::size_t>(H * kTile));
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t item = 0; item < items; ++item) {
      for_each_row_tile(item, per_item, N, [&](std::int64_t row, int n) {
        const AdjacentRows adjacent(n);
        const RowTile<T, Ahead::no> rows{in.x + row * H * C, adjacent.index, n, H, C};
        for (std::int64_t k = 0; k < K; ++k) {
          reduce_rows<Isa, A>(rows, DotWith<T>{in.att + k * H * C}, number.data());
          scatter_heads<Isa>(number.data(), adjacent.index, n, H, out + (k * N + row) * H);
        }
      });
    }
  }
}

// grad_x of a tile; number [K, H, kTile] is the gradient of its terms.
template <class Isa, class T>
void write_row_gradients(const HeadTerms<T>& in, const Acc<T>* number, int n, T* grad_x) {
  using A = Acc<T>;
  const std::int64_t H = in.num_heads, C = in.channels, K = in.num_vectors;
  for (std::int64_t h = 0; h < H; ++h) {
    for_lanes<Isa, A>(C, [&](std::int64_t c, auto lanes) {
      using V = typename decltype(lanes)::V;
      for (int e = 0; e < n; ++e) {
        V sum{};
        for (std::int64_t k = 0; k < K; ++k)
          sum += load<V>(in.att + (k * H + h) * C + c) * number[(k * H + h) * kTile + e];
        store(grad_x + (e * H + h) * C + c, sum);
      }
    });
  }
}

template <class Isa, class T>
void head_terms_backward(const HeadTerms<T>& in, const T* grad, T* grad_x, T* grad_att,
                         int num_threads) {
  using A = Acc<T>;
  const std::int64_t N = in.rows, H = in.num_heads, C = in.channels, K = in.num_vectors;
  const std::int64_t per_item = rows_of_item(N), items = (N + per_item - 1) / per_item;
  const std::int64_t size = K * H * C;  // of grad_att
  const int threads = threads_for(2 * N * size, items, num_threads);
  std::vector<A> sums(grad_att ? static_cast<std::size_t>(items * size) : 0);
#pragma omp parallel num_threads(threads)
  {
    std::vector<A> number(static_cast<std::size_t>(K * H * kTile));
#pragma omp for schedule(dynamic, 1)
    for (std::int64_t item = 0; item < items; ++item) {
      for_each_row_tile(item, per_item, N, [&](std::int64_t row, int n) {
        const AdjacentRows adjacent(n);
        const RowTile<T, Ahead::no> rows{in.x + row * H * C, adjacent.index, n, H, C};
        for (std::int64_t k = 0; k < K; ++k) {
          A* const of_vector = number.data() + k * H * kTile;
          gather_heads<Isa>(grad + (k * N + row) * H, adjacent.index, n, H, of_vector);
          if (grad_att)
            accumulate_rows<Isa, A>(rows, of_vector, Scaled{},
                                    sums.data() + item * size + k * H * C);
        }
        if (grad_x) write_row_gradients<Isa>(in, number.data(), n, grad_x + row * H * C);
      });
    }
  }
  if (!grad_att) return;
  for (std::int64_t d = 0; d < size; ++d) {
    A sum{};
    for (std::int64_t item = 0; item < items; ++item)
      sum += sums[static_cast<std::size_t>(item * size + d)];
    store(grad_att + d, sum);
  }
}

template <class Isa, class T>
HeadTermsKernels<T> head_terms_kernels() {
  return {&head_terms<Isa, T>, &head_terms_backward<Isa, T>};
}

}  // namespace gat::cpu
