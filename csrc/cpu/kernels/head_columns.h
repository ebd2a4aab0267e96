// Numbers of the heads of edges, between rows of H numbers, as tensors hold them, and the columns
// [H, kTile] of a tile, in which an operation is done for a vector of edges of one head. Four edges
// and four heads are moved at a time: one number at a time takes a load and a store each.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "../simd.h"
#include "../tile.h"

namespace gat::cpu {

// Calls f(number of heads), as a constant for common numbers.
template <class F>
GAT_HD void with_heads(std::int64_t num_heads, F&& f) {
  switch (num_heads) {
    case 1:
      return f(std::integral_constant<std::int64_t, 1>{});
    case 4:
      return f(std::integral_constant<std::int64_t, 4>{});
    case 8:
      return f(std::integral_constant<std::int64_t, 8>{});
    default:
      return f(num_heads);
  }
}

// to(i)[j] = from(j)[i] of 4 x 4 elements.
template <class A, class From, class To>
GAT_HD void transpose_four(const From& from, const To& to) {
  using V = Vec<A, 4>;
  const V a = load<V>(from(0)), b = load<V>(from(1)), c = load<V>(from(2)), d = load<V>(from(3));
  const V ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5),
          ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7),
          cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5),
          cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store(to(0), V(__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5)));
  store(to(1), V(__builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7)));
  store(to(2), V(__builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5)));
  store(to(3), V(__builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)));
}

// The rows base[index[e] * stride] of H numbers of the edges e of a tile. ahead: how many edges
// before it is read a row is prefetched, with `prefetched` numbers; 0 for not at all. index has as
// many more elements.
template <class T>
struct HeadRows {
  T* base;
  const std::int64_t* index;
  std::int64_t stride;
  int ahead = 0;
  std::int64_t prefetched = 0;
  GAT_HD T* operator()(int e) const { return base + index[e] * stride; }
};

// columns[h, e] = rows(e)[h].
template <class Isa, class T, class A>
__attribute__((noinline)) void rows_to_columns(const HeadRows<const T>& rows, int n,
                                               std::int64_t num_heads, A* columns) {
  with_heads(num_heads, [&](auto heads) {
    const std::int64_t whole = heads / 4 * 4;
    for (int e = 0; e < n; e += 4) {
      if (rows.ahead > 0) {
        const auto bytes = rows.prefetched * static_cast<std::int64_t>(sizeof(T));
        for (int i = 0; i < 4; ++i) prefetch(rows(e + rows.ahead + i), bytes);
      }
      const T* row[4];  // behind the tile, its last row again
      for (int i = 0; i < 4; ++i) row[i] = rows(std::min(e + i, n - 1));
      for (std::int64_t h = 0; h < whole; h += 4) {
        transpose_four<A>([&](int i) { return row[i] + h; },
                          [&](int j) { return columns + (h + j) * kTile + e; });
      }
      for (std::int64_t h = whole; h < heads; ++h) {
        for (int i = 0; i < 4; ++i) columns[h * kTile + e + i] = read(row[i] + h);
      }
    }
  });
}

// rows(e)[h] = columns[h, e].
template <class Isa, class T, class A>
__attribute__((noinline)) void columns_to_rows(const A* columns, int n, std::int64_t num_heads,
                                               const HeadRows<T>& rows) {
  with_heads(num_heads, [&](auto heads) {
    const std::int64_t whole = heads / 4 * 4;
    int e = 0;
    for (; e + 4 <= n; e += 4) {
      for (std::int64_t h = 0; h < whole; h += 4) {
        transpose_four<A>([&](int j) { return columns + (h + j) * kTile + e; },
                          [&](int i) { return rows(e + i) + h; });
      }
      for (std::int64_t h = whole; h < heads; ++h) {
        for (int i = 0; i < 4; ++i) store(rows(e + i) + h, columns[h * kTile + e + i]);
      }
    }
    for (; e < n; ++e) {
      for (std::int64_t h = 0; h < heads; ++h) store(rows(e) + h, columns[h * kTile + e]);
    }
  });
}

// columns[h, e] = x[index[e], h].
template <class Isa, class T, class A>
GAT_HD void gather_heads(const T* x, const std::int64_t* index, int n, std::int64_t num_heads,
                         A* columns) {
  rows_to_columns<Isa, T>({x, index, num_heads}, n, num_heads, columns);
}

// columns[h, e] += factor * x[index[e], h].
template <class T, class A>
GAT_HD void gather_add_heads(const T* x, const std::int64_t* index, int n, std::int64_t num_heads,
                             A* columns, A factor = A(1)) {
  for (int e = 0; e < n; ++e) {
    for (std::int64_t h = 0; h < num_heads; ++h)
      columns[h * kTile + e] += factor * read(x + index[e] * num_heads + h);
  }
}

// x[index[e], h] = columns[h, e].
template <class Isa, class T, class A>
GAT_HD void scatter_heads(const A* columns, const std::int64_t* index, int n,
                          std::int64_t num_heads, T* x) {
  columns_to_rows<Isa, T>(columns, n, num_heads, {x, index, num_heads});
}

}  // namespace gat::cpu
