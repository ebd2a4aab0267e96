// Base of all passes of edge attention: the scores of a few edges of one row.
#pragma once

#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <type_traits>

#include "../core/online_softmax.h"
#include "../core/scores/all.h"
#include "edge_attention.h"
#include "edge_batch.cuh"
#include "pack.cuh"

namespace gat::cuda {

// The inputs with the layout of their rows.
template <class T>
struct Attention {
  EdgeAttentionInputs<T> in;
  Channels score, value;  // of x, y, w, e and of v, g
  int score_blocks, value_blocks;
  int heads;

  // The offset of a head of a node or edge in [N, H] or [E, H].
  __device__ __forceinline__ std::int64_t at(std::int64_t node, int head) const {
    return node * heads + head;
  }
};

// Every pass has two variants: one for rows of one pack per lane, which is the common case; and a
// general one for longer rows (in blocks if necessary), for edge features, and for rows of 16-bit
// channels aligned to less than 8 bytes.
inline constexpr int kGeneralPacks = 2;
template <int C>
inline constexpr bool kGeneral = C > 1;
// Edges that a team processes at a time; fewer where their channels take many registers.
template <class T, int C>
inline constexpr int kEdges = !kGeneral<C>     ? 4
                              : sizeof(T) == 4 ? 2
                                               : 1;

// Thread blocks per multiprocessor: as many as its registers hold without spills, which keeps
// enough loads in flight.
template <int C>
inline constexpr int kBlocksAtOnce = kGeneral<C> ? 2 : 3;
// In a backward pass: one fewer in float64 for scores with both a term and node terms.
template <class Score, class T, int C>
inline constexpr int kBackwardBlocksAtOnce =
    Score::has_term && Score::has_node_terms && sizeof(T) == 8 ? 2 : kBlocksAtOnce<C>;

// What an edge adds to pack c of y and v: see Note [linear edge features]. Nothing in the variant
// for short rows, which inputs with edge features do not use.
template <class T, int C>
struct EdgeRow {
  using A = Acc<T>;
  A values[kPack<T>] = {};

  // k is a position in csr; channels are those of y or of v.
  __device__ __forceinline__ EdgeRow(const Attention<T>& a, const CsrView& csr, const Task& task,
                                     const Channels& channels, std::int64_t k, bool valid,
                                     int block, int c) {
    if constexpr (kGeneral<C>) {
      if (!valid) return;
      if (a.in.edge_feat) {
        const Pack<T> pack = load_pack<T, C>(a.in.edge_feat, a.at(csr.id(k), task.head), channels,
                                             task.team, block, c);
#pragma unroll
        for (int i = 0; i < kPack<T>; ++i) values[i] = pack[i];
      } else if (a.in.edge_attr) {
        const std::int64_t K = a.in.edge_channels;
        const int first = first_channel<T, C>(task.team, block, c);
        const T* const attr = a.in.edge_attr + csr.id(k) * K;
        const A* map =
            a.in.edge_map + static_cast<std::int64_t>(task.head) * channels.count + first;
#pragma unroll 1
        for (std::int64_t term = 0; term < K; ++term, map += channels.stride) {
          const A e = widen(attr[term]);
#pragma unroll
          for (int i = 0; i < kPack<T>; ++i) {
            if (first + i < channels.count) values[i] += map[i] * e;
          }
        }
      }
    }
  }
  __device__ __forceinline__ A operator[](int i) const { return values[i]; }
};

// The graph over which a pass runs: rows are destinations, or with `position` the sources of the
// transpose.
struct Walk {
  CsrView csr;
  IndexArray position;  // in the CSR by destination; null where rows are destinations

  __device__ __forceinline__ std::int64_t position_of(std::int64_t k) const {
    return position ? position[k] : k;
  }
};

// The block of channels whose fragments a task keeps. Where x and v differ in size, one may have
// fewer blocks than there are tasks: such a task then keeps a block without channels, which is
// never stored.
__device__ __forceinline__ int own_block(const Task& task, int blocks) {
  return blocks == 1 ? 0 : task.block;
}

template <class T, int C>
__device__ __forceinline__ Fragment<T, C> load_own(const T* base, const Channels& channels,
                                                   const Task& task, int block) {
  const T* const head = base + static_cast<std::int64_t>(task.head) * channels.count;
  Fragment<T, C> out;
#pragma unroll
  for (int c = 0; c < C; ++c) {
    const int first = first_channel<T, C>(task.team, block, c);
    with_access<T, C>(channels.access, [&](auto bytes) {
      load_units<decltype(bytes)::value>(head + task.row * channels.stride + first,
                                         channels.count - first, out.pack[c]);
    });
  }
  return out;
}

// Calls f(block) for each block of channels, with the fragments of the task's row and of its
// neighbours. At the end the registers hold those of the task's own block. The order is the same
// for all tasks: see Note [summation order].
template <class T, int C, int n, class F>
__device__ __forceinline__ void for_each_block(const Channels& channels, int blocks,
                                               const Task& task, const EdgeBatch<n>& batch,
                                               const T* own, const T* other,
                                               Fragment<T, C>& own_fragment,
                                               Fragment<T, C> (&fragments)[n], F&& f) {
  if constexpr (kGeneral<C>) {
    // One more step loads the task's own block again, unless it was the last.
    const int steps = blocks > 1 && task.block != blocks - 1 ? blocks + 1 : blocks;
    for (int step = 0; step < steps; ++step) {
      const int block = step < blocks ? step : task.block;
      gather(other, batch, channels, task, block, fragments);
      if (blocks > 1) own_fragment = load_own<T, C>(own, channels, task, block);
      if (step < blocks) f(block);
    }
  } else {
    gather(other, batch, channels, task, 0, fragments);
    f(0);
  }
}

// The scores of a few edges. RowIsDst: the row of the task is the destination, x is loaded once per
// row and y is gathered; otherwise the reverse.
template <class Score, class T, int C, bool RowIsDst>
struct EdgeScores {
  using A = Acc<T>;
  static constexpr int n = kEdges<T, C>;
  Fragment<T, C> own;          // of the row: x, or y
  Fragment<T, C> gathered[n];  // of the other ends: y, or x
  // The sum of the terms; the finished score, -inf for edges past the end and those that top-k
  // drops.
  A raw[n], score[n];

  __device__ __forceinline__ const T* own_rows(const Attention<T>& a) const {
    return RowIsDst ? a.in.query : a.in.key;
  }
  __device__ __forceinline__ A x(int u, int c, int i) const {
    return RowIsDst ? own(c, i) : gathered[u](c, i);
  }
  __device__ __forceinline__ A y(int u, int c, int i) const {
    return RowIsDst ? gathered[u](c, i) : own(c, i);
  }
  __device__ __forceinline__ std::int64_t dst(const Task& task, const EdgeBatch<n>& batch,
                                              int u) const {
    return RowIsDst ? task.row : batch.neighbor[u];
  }
  __device__ __forceinline__ std::int64_t src(const Task& task, const EdgeBatch<n>& batch,
                                              int u) const {
    return RowIsDst ? batch.neighbor[u] : task.row;
  }

  __device__ __forceinline__ void begin_row(const Attention<T>& a, const Task& task) {
    if constexpr (Score::has_term) {
      own = load_own<T, C>(own_rows(a), a.score, task, own_block(task, a.score_blocks));
    }
  }

  __device__ __forceinline__ void sum_terms(const Attention<T>& a, const Walk& walk,
                                            const Task& task, const EdgeBatch<n>& batch) {
    const auto add_block = [&](int block) {
      Fragment<T, C> w;
      if constexpr (Score::has_weight)
        w = load_fragment<T, C>(a.in.att, task.head, a.score, task.team, block);
#pragma unroll
      for (int u = 0; u < n; ++u) {
#pragma unroll
        for (int c = 0; c < C; ++c) {
          const EdgeRow<T, C> e(a, walk.csr, task, a.score, batch.first + u, batch.valid(u), block,
                                c);
#pragma unroll
          for (int i = 0; i < kPack<T>; ++i) {
            A wi{}, yi = y(u, c, i);
            if constexpr (Score::has_weight) wi = w(c, i);
            if constexpr (kGeneral<C>) yi += e[i];
            raw[u] += Score::term(x(u, c, i), yi, wi, a.in.params);
          }
        }
      }
    };
    for_each_block(a.score, a.score_blocks, task, batch, own_rows(a),
                   RowIsDst ? a.in.key : a.in.query, own, gathered, add_block);
    task.team.sum(raw);
  }

  __device__ __forceinline__ void node_terms(const Attention<T>& a, const Walk& walk,
                                             const Task& task, const EdgeBatch<n>& batch, int u,
                                             A& dst_term, A& src_term) const {
    if constexpr (Score::has_node_terms) {
      dst_term = widen(a.in.dst_term[a.at(dst(task, batch, u), task.head)]);
      src_term = widen(a.in.src_term[a.at(src(task, batch, u), task.head)]);
      if (a.in.edge_term)
        src_term += widen(a.in.edge_term[a.at(walk.csr.id(batch.first + u), task.head)]);
    }
  }

  __device__ __forceinline__ void compute(const Attention<T>& a, const Walk& walk, const Task& task,
                                          const EdgeBatch<n>& batch) {
#pragma unroll
    for (int u = 0; u < n; ++u) raw[u] = A(0);
    if constexpr (Score::has_term) sum_terms(a, walk, task, batch);
#pragma unroll
    for (int u = 0; u < n; ++u) {
      score[u] = negative_infinity<A>();
      if (!batch.valid(u)) continue;
      A dst_term{}, src_term{};
      node_terms(a, walk, task, batch, u, dst_term, src_term);
      A s = Score::finish(raw[u], dst_term, src_term, a.in.params);
      const std::int64_t k = batch.first + u;
      if (a.in.bias) s += widen(a.in.bias[a.at(walk.csr.id(k), task.head)]);
      if (!a.in.selected || a.in.selected[a.at(walk.position_of(k), task.head)]) score[u] = s;
    }
  }

  // The gradients of finish for edge u.
  __device__ __forceinline__ FinishGrad<A> finish_grad(const Attention<T>& a, const Walk& walk,
                                                       const Task& task, const EdgeBatch<n>& batch,
                                                       int u, A ds) const {
    A dst_term{}, src_term{};
    node_terms(a, walk, task, batch, u, dst_term, src_term);
    return Score::finish_vjp(ds, raw[u], dst_term, src_term, a.in.params);
  }
};

// The dropout multipliers of a batch of edges of csr. Each lane of a team draws for other edges.
template <class A, int n>
__device__ __forceinline__ void dropout_multipliers(const Dropout& dropout, const CsrView& csr,
                                                    const Task& task, const EdgeBatch<n>& batch,
                                                    A (&multiplier)[n]) {
#pragma unroll
  for (int u = 0; u < n; ++u) multiplier[u] = A(1);
  if (!dropout.active()) return;
  const int lanes = task.team.lanes, first_lane = lane_id() - task.team.lane;
  for (int base = 0; base < n; base += lanes) {
    const std::int64_t mine = batch.first + base + task.team.lane;
    const std::int64_t id = mine < task.end ? csr.id(mine) : 0;
    const int kept = dropout.kept(dropout.draw(id, task.head / 4), task.head);
#pragma unroll
    for (int u = 0; u < n; ++u) {
      const int from = u - base;
      const int theirs = __shfl_sync(kFullWarp, kept, first_lane + (from & (lanes - 1)));
      if (from >= 0 && from < lanes)
        multiplier[u] = theirs ? static_cast<A>(dropout.keep_scale) : A(0);
    }
  }
}

// ---- on the host

inline int common_access(int access, const void* p) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  while (address % static_cast<unsigned>(access) != 0) access /= 2;
  return access;
}

// How rows of `count` channels of T are accessed, given all arrays of such rows.
template <class T, class... Pointers>
Channels row_channels(std::int64_t heads, std::int64_t count, const Pointers*... p) {
  int access = 16;
  while (static_cast<std::int64_t>(sizeof(T)) * count % access != 0) access /= 2;
  ((access = common_access(access, p)), ...);
  return {checked_int(count, "the number of channels"),
          checked_int(heads * count, "heads times channels"), access};
}

// How the channels of a row and head are distributed: lanes of a team, packs per lane (1 or
// kGeneralPacks), blocks of channels.
struct RowShape {
  int lanes, packs, blocks;

  // For rows of up to `channels` channels. general: they need the general variant at any length.
  template <class T>
  static RowShape of(std::int64_t channels, bool general) {
    const std::int64_t packs = ceil_div(channels, kPack<T>);
    if (packs <= kWarp && !general) return {power_of_two_at_least(packs), 1, 1};
    const std::int64_t lanes = packs <= kWarp * kGeneralPacks
                                   ? power_of_two_at_least(ceil_div(packs, kGeneralPacks))
                                   : kWarp;
    const RowShape shape{static_cast<int>(lanes), kGeneralPacks, 1};
    return {shape.lanes, shape.packs, shape.blocks_of<T>(channels)};
  }
  template <class T>
  static RowShape of(const Channels& channels) {
    return of<T>(channels.count, is_narrow<T>(channels.access));
  }
  // The number of blocks of rows of `channels` channels in this shape, at least one.
  template <class T>
  int blocks_of(std::int64_t channels) const {
    const std::int64_t n = ceil_div(channels, static_cast<std::int64_t>(lanes) * packs * kPack<T>);
    return n > 1 ? static_cast<int>(n) : 1;
  }
};

// The inputs of a pass, and how their channels are distributed.
template <class T>
struct AttentionLayout {
  Attention<T> attention;
  RowShape shape;
};

// like_score and like_value are the other arrays that the pass accesses, with rows like those of x
// and y, and of v. scores_only: the pass reads no values, so the channels of the scores alone
// determine the shape.
template <class T>
AttentionLayout<T> lay_out(const EdgeAttentionInputs<T>& in, const EdgeAttentionSizes& sizes,
                           std::initializer_list<const void*> like_score,
                           std::initializer_list<const void*> like_value,
                           bool scores_only = false) {
  checked_int(sizes.num_src, kNodes), checked_int(in.csr.num_rows, kNodes);
  Attention<T> a;
  a.in = in;
  a.score =
      row_channels<T>(in.num_heads, in.score_channels, in.query, in.key, in.att, in.edge_feat);
  a.value = row_channels<T>(in.num_heads, in.value_channels, in.value,
                            in.edge_in_value ? in.edge_feat : nullptr);
  for (const void* p : like_score) a.score.access = common_access(a.score.access, p);
  for (const void* p : like_value) a.value.access = common_access(a.value.access, p);
  a.heads = checked_int(in.num_heads, "the number of heads");
  const bool narrow =
      is_narrow<T>(a.score.access) || (!scores_only && is_narrow<T>(a.value.access));
  const std::int64_t longest =
      scores_only || in.score_channels > in.value_channels ? in.score_channels : in.value_channels;
  const RowShape shape = RowShape::of<T>(longest, narrow || in.edge_feat || in.edge_attr);
  a.score_blocks = shape.blocks_of<T>(in.score_channels);
  a.value_blocks = shape.blocks_of<T>(in.value_channels);
  return {a, shape};
}

// Calls f with the type of score number `index`.
template <class F, class... Ss>
void with_score(TypeList<Ss...>, int index, F&& f) {
  int i = 0;
  ((i++ == index ? f(Ss{}) : void()), ...);
}

// Calls f with the number of packs per lane as a constant.
template <class F>
void with_packs(int packs, F&& f) {
  if (packs == 1) {
    f(std::integral_constant<int, 1>{});
  } else {
    f(std::integral_constant<int, kGeneralPacks>{});
  }
}

}  // namespace gat::cuda
