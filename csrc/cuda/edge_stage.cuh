// Staged edges: a warp loads what it needs to know of many edges at once, one edge per lane.
//
// Note [staged edges]. A team takes the edges of its task in groups of n, whose rows it gathers
// together. Columns, node terms and whatever else an edge has are one number each: if every lane
// of a team loaded them for all n edges, most of its instructions would be repetitions of those of
// its neighbours, and the gathers would wait for chains of dependent loads. Therefore each lane
// *stages* other edges: it loads their columns and terms, and computes with them; then the groups
// are processed one after the other, and the lane that staged an edge broadcasts its column and
// weight to its team. The columns of the next stage are in flight meanwhile.
//
// A group is staged by n adjacent lanes, one edge each ("spread"), or by one lane, which keeps n
// edges in registers: where a team has fewer than n lanes, and in the general variant.
#pragma once

#include <cmath>

#include "edge_batch.cuh"

namespace gat::cuda {

template <int edges, bool spread>
struct Staging {
  static constexpr int n = edges;
  static constexpr bool kSpread = spread;
  static constexpr int kPerLane = spread ? 1 : n;

  // A number for each edge that a lane stages.
  template <class V>
  using Each = V[kPerLane];

  // The lane of a team that stages edge u of group g: element e of its numbers.
  __device__ __forceinline__ static int lane_of(int g, int u) { return spread ? g * n + u : g; }
  __device__ __forceinline__ static bool owns(const Team& team, int g) {
    return (spread ? team.lane / n : team.lane) == g;
  }
  // The groups of a team in a stage.
  __device__ __forceinline__ static int groups(const Team& team) {
    return spread ? team.lanes / n : team.lanes;
  }
  // The offset in a stage of a team's edge 0 of group g, and of the first edge that a lane stages.
  __device__ __forceinline__ static int offset(const Team& team, int g) {
    return (g * team.parts + team.part) * n;
  }
  __device__ __forceinline__ static int own_offset(const Team& team) {
    return spread ? offset(team, team.lane / n) + team.lane % n : offset(team, team.lane);
  }

  // The number of edge u of group g, for all lanes of the team.
  template <class V>
  __device__ __forceinline__ static V broadcast(const Team& team, const Each<V>& values, int g,
                                                int u) {
    return __shfl_sync(kFullWarp, values[spread ? 0 : u], lane_of(g, u), team.lanes);
  }

  // The largest number of group g, for all lanes of the team.
  template <class V>
  __device__ __forceinline__ static V group_max(const Team& team, const Each<V>& values, int g) {
    V top = values[0];
    if constexpr (spread) {
#pragma unroll
      for (int distance = 1; distance < n; distance *= 2)
        top = larger(top, shuffle_xor(top, distance));
    } else {
#pragma unroll
      for (int e = 1; e < kPerLane; ++e) top = larger(top, values[e]);
    }
    return __shfl_sync(kFullWarp, top, lane_of(g, 0), team.lanes);
  }
  // The largest number of all staged edges of the team.
  template <class V>
  __device__ __forceinline__ static V stage_max(const Team& team, const Each<V>& values) {
    V top = values[0];
#pragma unroll
    for (int e = 1; e < kPerLane; ++e) top = larger(top, values[e]);
    for (int distance = team.lanes / 2; distance > 0; distance /= 2)
      top = larger(top, shuffle_xor(top, distance));
    return top;
  }

  // Sums each of n numbers over the lanes of a team, in the order of Team::sum; the lanes that
  // stage the group get the sums of their edges.
  template <class A>
  __device__ __forceinline__ static void collect(const Team& team, A (&sums)[n], Each<A>& own) {
    if constexpr (spread) {
      // Halves the numbers with the lanes: each lane keeps those of its half, so that edge u is
      // left to the lanes from u * lanes / n on.
      A sum;
      int distance = team.lanes / 2;
      const bool upper = (team.lane & distance) != 0;
      if constexpr (n == 2) {
        sum = exchange(upper, sums[0], sums[1], distance);
      } else {
        static_assert(n == 4);
        const A first = exchange(upper, sums[0], sums[2], distance),
                second = exchange(upper, sums[1], sums[3], distance);
        distance /= 2;
        sum = exchange((team.lane & distance) != 0, first, second, distance);
      }
      const int share = distance;
      for (distance /= 2; distance > 0; distance /= 2) sum += shuffle_xor(sum, distance);
      own[0] = __shfl_sync(kFullWarp, sum, team.lane % n * share, team.lanes);
    } else {
      team.sum(sums);
#pragma unroll
      for (int u = 0; u < n; ++u) own[u] = sums[u];
    }
  }
  // The same, without a change to the numbers of the other groups.
  template <class A>
  __device__ __forceinline__ static void collect_into(const Team& team, A (&sums)[n], int g,
                                                      Each<A>& own) {
    Each<A> sum;
    collect(team, sums, sum);
#pragma unroll
    for (int e = 0; e < kPerLane; ++e) own[e] = owns(team, g) ? sum[e] : own[e];
  }

 private:
  // One instruction; of a number and NaN, the number.
  template <class V>
  __device__ __forceinline__ static V larger(V a, V b) {
    return std::fmax(a, b);
  }
  // The sum of this lane's number and its partner's: of `high` where `keep_high`, else of `low`.
  template <class A>
  __device__ __forceinline__ static A exchange(bool keep_high, A low, A high, int distance) {
    const A kept = keep_high ? high : low, given = keep_high ? low : high;
    return kept + shuffle_xor(given, distance);
  }
};

// Where the edges of a stage lie in the CSR.
template <class Layout>
struct Stage {
  int offset = 0;  // of its first edge in the task
  int columns[Layout::kPerLane];

  // Staged edge e of this lane.
  __device__ __forceinline__ std::int64_t position(const Task& task, int e) const {
    return task.begin + (offset + Layout::own_offset(task.team) + e);
  }
  __device__ __forceinline__ bool valid(const Task& task, int e) const {
    return offset + Layout::own_offset(task.team) + e < task.length;
  }

  __device__ __forceinline__ EdgeBatch<Layout::n> group(const Task& task, int g) const {
    EdgeBatch<Layout::n> batch;
    const int first = offset + Layout::offset(task.team, g);
    batch.first = task.begin + first;
    batch.count = task.length - first;
#pragma unroll
    for (int u = 0; u < Layout::n; ++u)
      batch.neighbor[u] = Layout::broadcast(task.team, columns, g, u);
    return batch;
  }
};

template <class Layout>
__device__ __forceinline__ Stage<Layout> load_stage(const CsrView& csr, const Task& task,
                                                    int offset) {
  Stage<Layout> stage;
  stage.offset = offset;
#pragma unroll
  for (int e = 0; e < Layout::kPerLane; ++e) {
    stage.columns[e] = 0;
    if (!stage.valid(task, e)) continue;
    const std::int64_t k = stage.position(task, e);
    stage.columns[e] =
        csr.col.wide ? static_cast<int>(__ldg(static_cast<const long long*>(csr.col.data) + k))
                     : __ldg(static_cast<const int*>(csr.col.data) + k);
  }
  return stage;
}

// Calls work(stage, groups) for the stages of a task, equally often on all lanes of the warp.
template <class Layout, class Work>
__device__ __forceinline__ void for_each_stage(const CsrView& csr, const Task& task, Work&& work) {
  const int per_group = Layout::n * task.team.parts;  // a power of two
  const int stage_groups = Layout::groups(task.team);
  int groups = warp_max((task.length + per_group - 1) >> __popc(per_group - 1));
  Stage<Layout> stage = load_stage<Layout>(csr, task, 0);
  while (groups > 0) {
    const Stage<Layout> next =
        load_stage<Layout>(csr, task, stage.offset + stage_groups * per_group);
    work(stage, groups < stage_groups ? groups : stage_groups);
    stage = next;
    groups -= stage_groups;
  }
}

}  // namespace gat::cuda
