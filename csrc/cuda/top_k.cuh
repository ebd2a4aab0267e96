// The k largest scores of each row and head.
//
// Note [radix selection]. A warp serves one row and head. It finds the k-th largest key of the row
// digit by digit, five bits at a time from the top. Each of the 32 values of a digit belongs to a
// lane: the ballots of the five bits tell every lane which of 32 keys have its value, so a
// histogram takes one register of each lane, no shared memory and no atomics, and costs the same
// however the scores are distributed. The search ends once all keys that share the digits found so
// far are selected: random scores need two to four digits of the seven of a float.
//
// Bytes: the scores are read once where a row has no more edges than the warp keeps in registers,
// otherwise once for each digit and once to write `selected`. Lanes read adjacent edges.
#pragma once

#include "rows.cuh"

namespace gat::cuda {

// Unsigned keys in the order of the scores: NaN above any number, so that it is selected and stays
// visible; the two zeros equal.
__device__ __forceinline__ unsigned order_key(float score) {
  if (score != score) return ~0u;
  const unsigned bits = __float_as_uint(score + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ unsigned long long order_key(double score) {
  if (score != score) return ~0ull;
  const auto bits = static_cast<unsigned long long>(__double_as_longlong(score + 0.0));
  return bits >> 63 ? ~bits : bits | 0x8000000000000000ull;
}

inline constexpr int kDigitBits = 5;  // a digit has as many values as a warp has lanes

// The scores of a row and head. The stride has 32 bits: one instruction then computes an address.
template <class A>
struct RowScores {
  const A* first;
  unsigned length;
  unsigned stride;  // bytes from one edge to the next

  __device__ __forceinline__ A operator[](unsigned k) const {
    return __ldg(reinterpret_cast<const A*>(reinterpret_cast<const char*>(first) +
                                            static_cast<std::uint64_t>(k) * stride));
  }
};

// Keys that a lane holds: those of the edges first + lane, first + lane + 32, …
template <class A>
struct KeyBatch {
  using Key = decltype(order_key(A()));
  static constexpr int kKeys = 64 / static_cast<int>(sizeof(Key));
  static constexpr unsigned kEdges = kKeys * kWarp;
  Key key[kKeys];

  // All loads are in flight before the first key is computed. Lanes beyond the end of the row load
  // its last score.
  __device__ __forceinline__ void load(const RowScores<A>& scores, unsigned first) {
    A score[kKeys];
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      if (first + i * kWarp >= scores.length) break;
      const unsigned k = first + i * kWarp + lane_id();
      score[i] = scores[k < scores.length ? k : scores.length - 1];
    }
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      if (first + i * kWarp >= scores.length) break;
      key[i] = order_key(score[i]);
    }
  }

  // Calls f(key, k) for each of the keys and its edge k, which may be beyond the end of the row,
  // equally often on all lanes.
  template <class F>
  __device__ __forceinline__ void each(unsigned length, unsigned first, F&& f) const {
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      if (first + i * kWarp >= length) break;
      f(key[i], first + i * kWarp + lane_id());
    }
  }
};

// The number of lanes, among those with `counted`, whose digit is the number of the calling lane.
__device__ __forceinline__ unsigned count_digits(unsigned digit, bool counted) {
  unsigned mask = __ballot_sync(kFullWarp, counted);
  if (mask == 0) return 0;
#pragma unroll
  for (int bit = 0; bit < kDigitBits; ++bit) {
    const unsigned set = __ballot_sync(kFullWarp, digit >> bit & 1);
    mask &= (lane_id() >> bit & 1) != 0 ? set : ~set;
  }
  return __popc(mask);
}

// The sum of the counts of the calling lane and those after it.
__device__ __forceinline__ unsigned sum_from_lane(unsigned count) {
#pragma unroll
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const unsigned other = __shfl_down_sync(kFullWarp, count, distance);
    if (lane_id() + distance < kWarp) count += other;
  }
  return count;
}

// The keys above `threshold` are selected, and the first `wanted` of those equal to it.
template <class Key>
struct Selection {
  Key threshold = 0;
  unsigned wanted = 0;
};

// A batch of a row that is not longer than the batch keeps its keys from one pass to the next.
template <class A, class F>
__device__ __forceinline__ void each_key(const RowScores<A>& scores, KeyBatch<A>& batch, F&& f) {
  const bool held = scores.length <= KeyBatch<A>::kEdges;
  for (unsigned first = 0; first < scores.length; first += KeyBatch<A>::kEdges) {
    if (!held) batch.load(scores, first);
    batch.each(scores.length, first, f);
  }
}

// Selects `wanted` edges.
template <class A, class Key>
__device__ __forceinline__ Selection<Key> find_largest(const RowScores<A>& scores, unsigned wanted,
                                                       KeyBatch<A>& batch) {
  Selection<Key> selection{0, wanted};
  Key found = 0;                     // a mask of the digits found
  unsigned sharing = scores.length;  // keys that have these digits
  for (int shift = 8 * sizeof(Key); sharing > selection.wanted && shift > 0;) {
    shift = shift > kDigitBits ? shift - kDigitBits : 0;  // the last digit overlaps another
    unsigned count = 0;
    each_key(scores, batch, [&](Key key, unsigned k) {
      count += count_digits(static_cast<unsigned>(key >> shift),
                            k < scores.length && (key & found) == selection.threshold);
    });
    const unsigned from_lane = sum_from_lane(count);
    const int digit = kWarp - 1 - __clz(__ballot_sync(kFullWarp, from_lane >= selection.wanted));
    sharing = __shfl_sync(kFullWarp, count, digit);
    selection.wanted -= __shfl_sync(kFullWarp, from_lane, digit) - sharing;
    selection.threshold |= static_cast<Key>(digit) << shift;
    found = ~Key(0) << shift;
  }
  return selection;
}

// selected [E, H] = 1 for the top_k largest of the scores [E, H] of each row and head; of equal
// scores, for the first. Both are in CSR order. Rows must have less than 2^31 edges, which is more
// than there are nodes.
template <class A>
__global__ void __launch_bounds__(kBlock)
    select_kernel(const std::int64_t* rowptr, std::int64_t num_rows, std::int64_t heads,
                  const A* scores, std::int64_t top_k, std::uint8_t* selected) {
  using Key = typename KeyBatch<A>::Key;
  const std::int64_t warp = thread_id() / kWarp;
  if (warp >= num_rows * heads) return;
  const std::int64_t row = divide(warp, heads), head = warp - row * heads;
  const std::int64_t begin = rowptr[row], length = rowptr[row + 1] - begin;
  const RowScores<A> of_row{scores + begin * heads + head, static_cast<unsigned>(length),
                            static_cast<unsigned>(heads * sizeof(A))};
  std::uint8_t* const out = selected + begin * heads + head;
  if (length <= top_k) {
#pragma unroll 1
    for (std::int64_t k = lane_id(); k < length; k += kWarp) out[k * heads] = 1;
    return;
  }
  KeyBatch<A> batch;
  batch.load(of_row, 0);
  const auto selection = find_largest<A, Key>(of_row, static_cast<unsigned>(top_k), batch);
  unsigned seen = 0;  // keys equal to the threshold
  each_key(of_row, batch, [&](Key key, unsigned k) {
    const bool valid = k < of_row.length, equal = valid && key == selection.threshold;
    const unsigned equals = __ballot_sync(kFullWarp, equal);
    const unsigned rank = seen + __popc(equals & ((1u << lane_id()) - 1));
    if (valid) out[k * heads] = key > selection.threshold || (equal && rank < selection.wanted);
    seen += __popc(equals);
  });
}

}  // namespace gat::cuda
