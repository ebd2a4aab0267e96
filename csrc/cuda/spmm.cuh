// SpMM and SDDMM: sums and inner products of gathered rows.
//
// Bytes: for each edge a row of x and a column, and a weight where there is one; for each row, the
// row of the output.
#pragma once

#include "attention.cuh"
#include "sparse.h"

namespace gat::cuda {

// What the passes over gathered rows share: the weights of the edges that a lane stages.
template <class T, class V>
struct GatherPass : NothingShared {
  using A = Acc<T>;
  static constexpr int C = V::C;
  using Layout = StagingOf<T, V>;
  static constexpr int n = Layout::n;
  static constexpr bool kBlocks = V::kGeneral;
  static constexpr int kUnroll = n, kMinWarps = kForwardWarps<NoTerm, T, V>;
  template <class X>
  using Each = typename Layout::template Each<X>;

  SparseGraph graph;
  const T *weight = nullptr, *x = nullptr;
  Channels channels;

  // Ones if there are no weights.
  __device__ __forceinline__ void load_weights(const Task& task, const Stage<Layout>& stage,
                                               Each<A>& weights) const {
#pragma unroll
    for (int e = 0; e < Layout::kPerLane; ++e) {
      weights[e] = A(1);
      if (weight && stage.valid(task, e)) {
        const std::int64_t id = graph.csr.id(stage.position(task, e));
        weights[e] = widen(weight[id * graph.num_heads + task.head]);
      }
    }
  }
};

template <class T, int C>
struct SpmmSink {
  using A = Acc<T>;
  static constexpr int kChannels = C * kPack<T>;
  struct State {
    static constexpr int kWords = kChannels;
    A sum[kChannels];

    template <class F>
    __device__ __forceinline__ void each(F&& f) {
#pragma unroll
      for (int i = 0; i < kChannels; ++i) f(sum[i]);
    }
  };

  T* out = nullptr;  // [rows, H, F]
  std::int64_t num_heads = 1;
  Channels channels;

  __device__ __forceinline__ void init(State& state) const {
    state.each([](A& word) { word = A(0); });
  }
  __device__ __forceinline__ void merge(State& state, const State& other) const {
#pragma unroll
    for (int i = 0; i < kChannels; ++i) state.sum[i] += other.sum[i];
  }
  __device__ __forceinline__ void finish(std::int64_t row, int head, int block, const Team& team,
                                         const State& state) const {
    store_fragment<T, C>(out, row * num_heads + head, channels, team, block, state.sum);
  }
};

template <class T, class V>
struct SpmmPass : GatherPass<T, V> {
  using Base = GatherPass<T, V>;
  using typename Base::A;
  using typename Base::Layout;
  using Sink = SpmmSink<T, Base::C>;
  using State = typename Sink::State;

  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State& state, Nothing&) const {
    for_each_stage<Layout>(this->graph.csr, task, [&](const Stage<Layout>& stage, int groups) {
      typename Base::template Each<A> weights;
      this->load_weights(task, stage, weights);
      for (int g = 0; g < groups; ++g) {
        Fragment<T, Base::C> row[Base::n];
        gather(this->x, stage.group(task, g), this->channels, task, task.block, row);
#pragma unroll
        for (int u = 0; u < Base::n; ++u) {
          const A w = Layout::broadcast(task.team, weights, g, u);
#pragma unroll
          for (int i = 0; i < Sink::kChannels; ++i)
            state.sum[i] += w * row[u](i / kPack<T>, i % kPack<T>);
        }
      }
    });
  }
};

// ---- SDDMM

template <class T, class V>
struct SddmmPass : GatherPass<T, V> {
  using Base = GatherPass<T, V>;
  using typename Base::A;
  using typename Base::Layout;
  using Sink = NoSink;
  using State = NoState;
  static constexpr int C = Base::C, n = Base::n;

  const T* y = nullptr;
  T* out = nullptr;  // [E, H]
  int blocks = 1;
  Sink sink;

  __device__ __forceinline__ void accumulate(const Task& task, State&, Nothing&) const {
    const Channels& channels = this->channels;
    Fragment<T, C> own = load_own<T, C>(this->x, channels, task, own_block(task, blocks));
    for_each_stage<Layout>(this->graph.csr, task, [&](const Stage<Layout>& stage, int groups) {
      typename Base::template Each<A> product = {};
      for (int g = 0; g < groups; ++g) {
        A sums[n] = {};
        Fragment<T, C> other[n];
        for_each_block(
            channels, blocks, task, stage.group(task, g), this->x, y, own, other, [&](int) {
#pragma unroll
              for (int u = 0; u < n; ++u) {
#pragma unroll
                for (int i = 0; i < C * kPack<T>; ++i) {
                  sums[u] += own(i / kPack<T>, i % kPack<T>) * other[u](i / kPack<T>, i % kPack<T>);
                }
              }
            });
        Layout::collect_into(task.team, sums, g, product);
      }
#pragma unroll
      for (int e = 0; e < Layout::kPerLane; ++e) {
        if (!stage.valid(task, e)) continue;
        const std::int64_t id = this->graph.csr.id(stage.position(task, e));
        out[id * this->graph.num_heads + task.head] = narrow<T>(product[e]);
      }
    });
  }
};

}  // namespace gat::cuda
