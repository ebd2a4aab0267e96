// Extrema of gathered rows.
//
// Bytes: for each edge a row of x and a column, and a weight where there is one; for each row, the
// row of the output and the edges of its channels. The gradient reads these edges for every edge,
// and rows of the gradient only where an edge is one of them.
#pragma once

#include "row_sums.cuh"
#include "spmm.cuh"

namespace gat::cuda {

// The best value of each channel, and the offset of its edge in the row.
template <class T, int C>
struct ExtremumSink {
  using A = Acc<T>;
  static constexpr int kChannels = C * kPack<T>;
  static constexpr unsigned kNone = ~0u;
  struct State {
    static constexpr int kWords = 2 * kChannels;
    A best[kChannels];
    unsigned offset[kChannels];  // from the start of the row; kNone where there is no edge yet

    template <class F>
    __device__ __forceinline__ void each(F&& f) {
#pragma unroll
      for (int i = 0; i < kChannels; ++i) {
        f(best[i]);
        f(offset[i]);
      }
    }
  };

  CsrView csr;
  int sign = 1;
  T* out = nullptr;       // [rows, H, F]
  MutableIndexArray arg;  // [rows, H, F]
  std::int64_t num_heads = 1;
  Channels channels;

  __device__ __forceinline__ void init(State& state) const {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) state.best[i] = A(0), state.offset[i] = kNone;
  }

  // Keeps the better of the state and a candidate: NaN before numbers, then the better number, then
  // the earlier edge.
  __device__ __forceinline__ void take(State& state, int i, A value, unsigned offset) const {
    if (offset == kNone) return;
    const A best = state.best[i];
    const bool nan = value != value, had_nan = best != best;
    const bool better = sign > 0 ? value > best : value < best;
    const bool earlier = offset < state.offset[i] && (value == best || (nan && had_nan));
    if (state.offset[i] == kNone || better || (nan && !had_nan) || earlier)
      state.best[i] = value, state.offset[i] = offset;
  }
  __device__ __forceinline__ void merge(State& state, const State& other) const {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) take(state, i, other.best[i], other.offset[i]);
  }
  __device__ __forceinline__ void finish(std::int64_t row, int head, int block, const Team& team,
                                         const State& state) const {
    const std::int64_t r = row * num_heads + head, begin = csr.rowptr[row];
    store_fragment<T, C>(out, r, channels, team, block, state.best);
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const int first = first_channel<T, C>(team, block, c);
#pragma unroll
      for (int i = 0; i < kPack<T>; ++i) {
        const unsigned offset = state.offset[c * kPack<T> + i];
        if (first + i < channels.count)
          arg.set(r * channels.count + first + i, offset == kNone ? -1 : csr.id(begin + offset));
      }
    }
  }
};

template <class T, class V>
struct ExtremumPass : GatherPass<T, V> {
  using Base = GatherPass<T, V>;
  using typename Base::A;
  using typename Base::Layout;
  using Sink = ExtremumSink<T, Base::C>;
  using State = typename Sink::State;

  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State& state, Nothing&) const {
    const std::int64_t row_begin = this->graph.csr.rowptr[task.row];
    for_each_stage<Layout>(this->graph.csr, task, [&](const Stage<Layout>& stage, int groups) {
      typename Base::template Each<A> weights;
      this->load_weights(task, stage, weights);
      for (int g = 0; g < groups; ++g) {
        const EdgeBatch<Base::n> batch = stage.group(task, g);
        Fragment<T, Base::C> row[Base::n];
        gather(this->x, batch, this->channels, task, task.block, row);
#pragma unroll
        for (int u = 0; u < Base::n; ++u) {
          const A w = Layout::broadcast(task.team, weights, g, u);
          if (!batch.valid(u)) continue;
          const auto offset = static_cast<unsigned>(batch.first + u - row_begin);
#pragma unroll
          for (int i = 0; i < Sink::kChannels; ++i)
            sink.take(state, i, w * row[u](i / kPack<T>, i % kPack<T>), offset);
        }
      }
    });
  }
};

// For n edges of the transpose, the channels of a lane whose extremum the edge is: bit i for
// channel i.
template <class T, int C, int n>
struct WonChannels {
  static constexpr int kChannels = C * kPack<T>;
  static constexpr int kWords = kPack<T> < 4 ? kPack<T> : 4;  // winners that are loaded at once
  static_assert(kChannels <= 32);
  unsigned bits[n] = {};

  // The winners [nodes, H, F] are edge ids; `access` says how many bytes of them may be loaded at
  // once.
  __device__ __forceinline__ void load(const IndexArray& winners, int access,
                                       const Channels& channels, const Task& task,
                                       const EdgeBatch<n>& batch, const std::int64_t (&id)[n]) {
    if (winners.wide) {
      compare<std::int64_t, 1>(winners, channels, task, batch, id);
    } else if (access == 16 && kWords == 4) {
      compare<unsigned, 4>(winners, channels, task, batch, id);
    } else if (access >= 8) {
      compare<unsigned, 2>(winners, channels, task, batch, id);
    } else {
      compare<unsigned, 1>(winners, channels, task, batch, id);
    }
  }

 private:
  // Loads `per` winners at a time, all of them before the first is used.
  template <class Index, int per>
  __device__ __forceinline__ void compare(const IndexArray& winners, const Channels& channels,
                                          const Task& task, const EdgeBatch<n>& batch,
                                          const std::int64_t (&id)[n]) {
    Index winner[n][kChannels];
#pragma unroll
    for (int u = 0; u < n; ++u) {
      const Index* const row = static_cast<const Index*>(winners.data) +
                               static_cast<std::int64_t>(batch.neighbor[u]) * channels.stride +
                               task.head * channels.count;
#pragma unroll
      for (int i = 0; i < kChannels; i += per) {
        const int channel = first_channel<T, C>(task.team, task.block, i / kPack<T>) + i % kPack<T>;
        load_winners<per>(row + channel, batch.valid(u) && channel < channels.count, winner[u] + i);
      }
    }
#pragma unroll
    for (int u = 0; u < n; ++u) {
#pragma unroll
      for (int i = 0; i < kChannels; ++i)
        bits[u] |= winner[u][i] == static_cast<Index>(id[u]) ? 1u << i : 0;
    }
  }

  // No edge has the id that stands for winners which do not exist.
  template <int per, class Index>
  static __device__ __forceinline__ void load_winners(const Index* from, bool exist, Index* to) {
    constexpr Index none = static_cast<Index>(-1);
    if constexpr (per == 4) {
      const uint4 four =
          exist ? __ldg(reinterpret_cast<const uint4*>(from)) : make_uint4(none, none, none, none);
      to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
    } else if constexpr (per == 2) {
      const uint2 two =
          exist ? __ldg(reinterpret_cast<const uint2*>(from)) : make_uint2(none, none);
      to[0] = two.x, to[1] = two.y;
    } else {
      to[0] = exist ? __ldg(from) : none;
    }
  }
};

// Gradient of x: each source sums, over its edges, the gradient of the channels whose extremum the
// edge is. x is the gradient of the output; its rows are loaded only where there is such a channel.
template <class T, class V>
struct ExtremumGradPass : GatherPass<T, V> {
  using Base = GatherPass<T, V>;
  using typename Base::A;
  using typename Base::Layout;
  using Sink = SpmmSink<T, Base::C>;
  using State = typename Sink::State;
  static constexpr int C = Base::C, n = Base::n;
  static constexpr int kMinWarps = V::kWideTeam ? 16 : 8;

  IndexArray winners;      // [num_cols, H, F]
  int winners_access = 4;  // bytes of int32 winners that may be loaded at once
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State& state, Nothing&) const {
    for_each_stage<Layout>(this->graph.csr, task, [&](const Stage<Layout>& stage, int groups) {
      typename Base::template Each<long long> ids;
#pragma unroll
      for (int e = 0; e < Layout::kPerLane; ++e)
        ids[e] = stage.valid(task, e) ? this->graph.csr.id(stage.position(task, e)) : 0;
      typename Base::template Each<A> weights;
      this->load_weights(task, stage, weights);
      for (int g = 0; g < groups; ++g) {
        const EdgeBatch<n> batch = stage.group(task, g);
        std::int64_t id[n];
#pragma unroll
        for (int u = 0; u < n; ++u) id[u] = Layout::broadcast(task.team, ids, g, u);
        WonChannels<T, C, n> won;
        won.load(winners, winners_access, this->channels, task, batch, id);
        Fragment<T, C> row[n];
        gather_won(batch, task, won.bits, row);
#pragma unroll
        for (int u = 0; u < n; ++u) {
          const A w = Layout::broadcast(task.team, weights, g, u);
#pragma unroll
          for (int i = 0; i < Sink::kChannels; ++i) {
            if (won.bits[u] >> i & 1) state.sum[i] += w * row[u](i / kPack<T>, i % kPack<T>);
          }
        }
      }
    });
  }

  // Loads the packs of which a channel is won; zeros in place of the others.
  __device__ __forceinline__ void gather_won(const EdgeBatch<n>& batch, const Task& task,
                                             const unsigned (&won)[n],
                                             Fragment<T, C> (&row)[n]) const {
    const Channels& channels = this->channels;
    const int bytes = channels.stride * static_cast<int>(sizeof(T));
    with_access<T, C>(channels.access, [&](auto width) {
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const int first = first_channel<T, C>(task.team, task.block, c);
        const T* const own =
            opaque(this->x + (static_cast<std::int64_t>(task.head) * channels.count + first));
#pragma unroll
        for (int u = 0; u < n; ++u) {
          const bool any = (won[u] >> (c * kPack<T>)&((1u << kPack<T>)-1)) != 0;
          row[u].pack[c] = {};
          load_units<decltype(width)::value>(row_at(own, batch.neighbor[u], bytes),
                                             any ? channels.count - first : 0, row[u].pack[c]);
        }
      }
    });
  }
};

}  // namespace gat::cuda
