// Base of all passes of edge attention: their inputs, and how they distribute channels.
#pragma once

#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <type_traits>

#include "../core/online_softmax.h"
#include "../core/scores/all.h"
#include "edge_attention.h"
#include "edge_stage.cuh"
#include "pack.cuh"

namespace gat::cuda {

// What the backward reads of a destination and head, in one access: its node term, its softmax,
// and delta.
template <class A>
struct alignas(16) NodeStats {
  A term, shift, scale, delta;
};
static_assert(sizeof(NodeStats<float>) == kNodeStats * sizeof(float));

template <class A>
__device__ __forceinline__ NodeStats<A> load_stats(const NodeStats<A>* p) {
  // The four numbers of a NodeStats<A> are one pack of floats, or two packs of doubles.
  constexpr int packs = kNodeStats / kPack<A>;
  A words[kNodeStats];
#pragma unroll
  for (int c = 0; c < packs; ++c) {
    Pack<A> pack;
    load_units<16>(reinterpret_cast<const A*>(p) + c * kPack<A>, kPack<A>, pack);
#pragma unroll
    for (int i = 0; i < kPack<A>; ++i) words[c * kPack<A> + i] = pack[i];
  }
  return {words[0], words[1], words[2], words[3]};
}

// The inputs with the layout of their rows.
template <class T>
struct Attention {
  EdgeAttentionInputs<T> in;
  Channels score, value;  // of x, y, w, e and of v, g
  int score_blocks, value_blocks;
  int heads;
  bool key_is_value = false;                 // y and v are one tensor
  bool has_edge_terms = false;               // any of the numbers that an edge may have
  Acc<T> keep = 1;                           // the factor of the weights that dropout keeps
  const NodeStats<Acc<T>>* stats = nullptr;  // [N_dst, H], in the backward

  // The offset of a head of a node or edge in [N, H] or [E, H].
  __device__ __forceinline__ std::int64_t at(std::int64_t node, int head) const {
    return node * heads + head;
  }
};

// Every pass has three variants. Two are for rows of one pack per lane: for teams of four lanes and
// more, which is the common case, and for smaller teams. The third is general: for longer rows (in
// blocks if necessary), for edge features, and for rows of 16-bit channels aligned to less than 8
// bytes.
inline constexpr int kGeneralPacks = 2;
template <int packs, bool wide_team>
struct Variant {
  static constexpr int C = packs;
  static constexpr bool kGeneral = packs > 1, kWideTeam = wide_team;
};

// Edges of a group: as many as fit into registers.
template <class T, class V>
inline constexpr int kEdges = V::kGeneral                       ? (sizeof(T) == 4 ? 2 : 1)
                              : sizeof(T) == 8 && !V::kWideTeam ? 2
                                                                : 4;
template <class T, class V>
using StagingOf = Staging<kEdges<T, V>, V::kWideTeam>;

// Warps per multiprocessor that the registers of a pass allow: as many as possible without spills.
// A score with a term keeps the rows of a group until its sums are known.
template <class Score, class T, class V>
inline constexpr int kForwardWarps = sizeof(T) == 8 && !V::kWideTeam   ? 12
                                     : sizeof(T) == 8 || !V::kWideTeam ? 16
                                     : Score::has_term                 ? 24
                                                                       : 32;
template <class Score, class T, class V>
inline constexpr int kBackwardWarps = Score::has_term ? (!V::kWideTeam    ? 8
                                                         : sizeof(T) == 8 ? 12
                                                                          : 16)
                                                      : (!V::kWideTeam || sizeof(T) == 8 ? 12 : 20);

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
    if constexpr (C > 1) {
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
  if constexpr (C > 1) {
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
  checked_int(heads * count * static_cast<std::int64_t>(sizeof(T)), "the bytes of a node's row");
  return {static_cast<int>(count), static_cast<int>(heads * count), access};
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

inline GraphRows destination_rows(const CsrView& csr, const EdgeAttentionSizes& sizes) {
  return {csr.rowptr, csr.num_rows, sizes.num_edges, sizes.largest_row};
}

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
  a.key_is_value = in.key == in.value && in.score_channels == in.value_channels;
  a.has_edge_terms = in.edge_term || in.bias || in.selected || in.dropout.active();
  if (in.dropout.active()) a.keep = static_cast<Acc<T>>(in.dropout.keep_scale);
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

// Calls f with the variant for rows of this shape.
template <class F>
void with_variant(const RowShape& shape, F&& f) {
  if (shape.packs > 1) {
    f(Variant<kGeneralPacks, false>{});
  } else if (shape.lanes >= 4) {
    f(Variant<1, true>{});
  } else {
    f(Variant<1, false>{});
  }
}

}  // namespace gat::cuda
