// Distribution of rows to warps: the loop over a graph that all passes share.
//
// Note [balanced rows]. A unit of work is a row, a head and a block of channels; a slice of a warp
// (Team) processes it. Degrees are arbitrary, so the ordinary units skip rows of more than
// `long_row` edges. The edges are also divided into chunks of long_row edges, regardless of rows. A
// long row is longer than a chunk, so it overlaps a chunk in one of two ways only: it covers the
// first edge of the chunk, or it starts inside and covers the last. Therefore each chunk has two
// slots for the state of its part of a long row, no list of long rows is needed, and the host never
// needs their number. A second launch merges the slots of each long row in the order of the edges.
// Chunks come first in the grid because they are the longest units. A block is one warp: a block of
// several would hold its registers until the longest of their rows ends. The graph and the width of
// the accesses, which the alignment of the tensors limits, determine how sums are split and
// ordered, and no atomics are used: results are bitwise identical in every run on one kind of
// device. Another kind may round exp and log otherwise.
//
// A pass is a kernel argument and has
//   using A, State, Shared, Sink
//   kBlocks, kRounds                    whether units have a block of channels, and process more
//                                       than one row
//   kUnroll, kMinWarps                  edges that a team takes at a time; warps that must fit on a
//                                       multiprocessor
//   sink                                a Sink
//   accumulate(task, state, shared)     processes the edges of the task; uniform over
//                                       the warp
//   store_shared(task, slot, valid, shared)
//                                       after all rows of a unit, for sums over rows; uniform over
//                                       the warp
// A sink, which consumes states, has
//   init(state), merge(state, other), finish(row, head, block, team, state)
// A state has each(f), which calls f on each of its words, and kWords, their number.
#pragma once

#include "launch.cuh"
#include "warp.cuh"

namespace gat::cuda {

// How rows are divided into units; from plan_rows.
struct RowPlan {
  const std::int64_t* rowptr = nullptr;
  std::int64_t num_rows = 0, num_edges = 0;
  std::int64_t heads = 1;
  int blocks = 1;            // blocks of channels
  int lanes = 1, parts = 1;  // of a Team
  // Rows in flight: a unit processes the rows slot, slot + row_slots, …
  std::int64_t row_slots = 0;
  int rounds = 1;
  std::int64_t long_row = 0;  // edges in a chunk
  std::int64_t num_chunks = 0;
  std::int64_t chunk_blocks = 0;  // thread blocks, of a warp each, for both sides of all chunks
  // [2 num_chunks, heads * blocks, words, lanes] states of the parts of long rows.
  void* scratch = nullptr;

  __device__ __forceinline__ std::int64_t units_per_row() const { return heads * blocks; }
};

// The work of a slice of a warp.
struct Task {
  Team team;
  int row = 0, head = 0, block = 0;
  // Its first edge, and the number of its edges, at most those of a chunk: see Note [balanced
  // rows].
  std::int64_t begin = 0;
  int length = 0;  // negative: there is nothing to do

  __device__ __forceinline__ explicit Task(const RowPlan& plan) : team(plan.lanes, plan.parts) {}

  __device__ __forceinline__ void assign_nothing() { row = 0, begin = 0, length = -1; }
  __device__ __forceinline__ bool assigned() const { return length >= 0; }
};

struct Nothing {};

__device__ __forceinline__ std::int64_t divide(std::int64_t a, std::int64_t b) {
  if (((a | b) >> 31) == 0) return static_cast<unsigned>(a) / static_cast<unsigned>(b);
  return a / b;
}

template <class A>
__device__ __forceinline__ void store_word(A* p, A word) {
  *p = word;
}
template <class A>
__device__ __forceinline__ void load_word(const A* p, A& word) {
  word = *p;
}
// A position in a row, stored in the bits of a number.
template <class A>
__device__ __forceinline__ void store_word(A* p, unsigned word) {
  *reinterpret_cast<unsigned*>(p) = word;
}
template <class A>
__device__ __forceinline__ void load_word(const A* p, unsigned& word) {
  word = *reinterpret_cast<const unsigned*>(p);
}

// The row of an edge: rowptr[row] <= edge < rowptr[row + 1]. The lanes of a slice search together.
__device__ __forceinline__ std::int64_t row_of_edge(const RowPlan& plan, const Team& team,
                                                    std::int64_t edge) {
  const int slice = team.lanes * team.parts;
  const int first_lane = lane_id() / slice * slice;
  const unsigned mask = (slice == kWarp ? kFullWarp : (1u << slice) - 1) << first_lane;
  std::int64_t low = 0, high = plan.num_rows;  // rowptr[low] <= edge < rowptr[high]
  while (__any_sync(kFullWarp, high - low > 1)) {
    const std::int64_t step = high - low > slice ? (high - low + slice) / (slice + 1) : 1;
    const std::int64_t probe = low + (lane_id() - first_lane + 1) * step;
    const bool before = probe < high && plan.rowptr[probe] <= edge;
    const int count = __popc(__ballot_sync(kFullWarp, before) & mask);
    high = low + (count + 1) * step < high ? low + (count + 1) * step : high;
    low += count * step;
  }
  return low;
}

template <class Sink, class State>
__device__ __forceinline__ void merge_parts(const Sink& sink, const Team& team, State& state) {
  for (int distance = team.lanes; distance < team.lanes * team.parts; distance *= 2) {
    State other = state;
    other.each([&](auto& word) { word = shuffle_xor(word, distance); });
    sink.merge(state, other);
  }
}

template <class A, class State>
__device__ __forceinline__ A* state_slot(const RowPlan& plan, const Task& task, std::int64_t slot) {
  const std::int64_t unit =
      slot * plan.units_per_row() + static_cast<std::int64_t>(task.head) * plan.blocks + task.block;
  return static_cast<A*>(plan.scratch) + unit * State::kWords * plan.lanes + task.team.lane;
}

// Returns the slot of a slice, counted from the first slice of `first_block`, and sets its head and
// block.
__device__ __forceinline__ int locate(const RowPlan& plan, std::int64_t first_block, Task& task) {
  const std::int64_t warp = static_cast<std::int64_t>(blockIdx.x) - first_block;
  const int slice_bits = __popc(plan.lanes * plan.parts - 1);
  const std::int64_t unit = (warp << (kWarpBits - slice_bits)) + (lane_id() >> slice_bits);
  if (plan.units_per_row() == 1) return static_cast<int>(unit);
  const std::int64_t slot = divide(unit, plan.units_per_row());
  const auto rest = static_cast<int>(unit - slot * plan.units_per_row());
  task.head = plan.blocks == 1 ? rest : rest / plan.blocks;
  task.block = rest - task.head * plan.blocks;
  return static_cast<int>(slot);
}

// The edges of a chunk.
struct Chunk {
  bool valid;
  std::int64_t first, past;

  __device__ __forceinline__ Chunk(const RowPlan& plan, std::int64_t number)
      : valid(number < plan.num_chunks),
        first(valid ? number * plan.long_row : 0),
        past(first + plan.long_row) {
    if (past > plan.num_edges) past = plan.num_edges;
  }
};

// Assigns a row to a task, or nothing if there is none or it is long.
__device__ __forceinline__ void take_row(const RowPlan& plan, std::int64_t row, Task& task) {
  task.assign_nothing();
  if (row >= plan.num_rows) return;
  const std::int64_t begin = plan.rowptr[row], length = plan.rowptr[row + 1] - begin;
  if (plan.num_chunks > 0 && length > plan.long_row) return;
  task.row = static_cast<int>(row), task.begin = begin, task.length = static_cast<int>(length);
}

// Assigns the part of a long row at the start (side 0) or end (side 1) of a chunk to a task, or
// nothing if there is none.
__device__ __forceinline__ void take_part(const RowPlan& plan, std::int64_t number, int side,
                                          Task& task) {
  const Chunk chunk(plan, number);
  const std::int64_t row = row_of_edge(plan, task.team, side == 0 ? chunk.first : chunk.past - 1);
  const std::int64_t begin = plan.rowptr[row], end = plan.rowptr[row + 1];
  task.assign_nothing();
  if (!chunk.valid || end - begin <= plan.long_row || (side == 1 && begin <= chunk.first)) return;
  task.row = static_cast<int>(row);
  task.begin = begin > chunk.first ? begin : chunk.first;
  task.length = static_cast<int>((end < chunk.past ? end : chunk.past) - task.begin);
}

// Each slice of the first blocks processes one side of a chunk, each slice of the others its rows.
template <class Pass>
__global__ void __launch_bounds__(kWarp, Pass::kMinWarps)
    rows_kernel(const Pass pass, const RowPlan plan) {
  using State = typename Pass::State;
  Task task(plan);
  const bool chunks = blockIdx.x < plan.chunk_blocks;
  const int slot = locate(plan, chunks ? 0 : plan.chunk_blocks, task);
  if constexpr (!Pass::kBlocks) task.block = 0;
  typename Pass::Shared shared{};
  for (int round = 0; round < (Pass::kRounds && !chunks ? plan.rounds : 1); ++round) {
    if (chunks) {
      take_part(plan, slot / 2, slot % 2, task);
    } else {
      take_row(plan, slot < plan.row_slots ? slot + round * plan.row_slots : plan.num_rows, task);
    }
    if (!__any_sync(kFullWarp, task.assigned())) continue;
    // Where the state goes; the row itself is not needed to the end.
    const int to = chunks ? slot : task.row;
    State state;
    pass.sink.init(state);
    pass.accumulate(task, state, shared);
    merge_parts(pass.sink, task.team, state);
    if (!task.assigned() || task.team.part != 0) continue;
    if (!chunks) {
      pass.sink.finish(to, task.head, task.block, task.team, state);
    } else if constexpr (State::kWords > 0) {
      auto* word = state_slot<typename Pass::A, State>(plan, task, to);
      state.each([&](auto& value) {
        store_word(word, value);
        word += plan.lanes;
      });
    }
  }
  const std::int64_t parts = 2 * plan.num_chunks;
  pass.store_shared(task, chunks ? slot : parts + slot, slot < (chunks ? parts : plan.row_slots),
                    shared);
}

// Merges the states of the parts of each long row, by the slice of the chunk in which the row
// starts; its teams merge consecutive shares of the parts.
template <class Sink>
__global__ void __launch_bounds__(kWarp, 8) merge_kernel(const Sink sink, const RowPlan plan) {
  using State = typename Sink::State;
  using A = typename Sink::A;
  Task task(plan);
  const std::int64_t number = locate(plan, 0, task);
  const Chunk chunk(plan, number);
  const std::int64_t row = row_of_edge(plan, task.team, chunk.past - 1);
  const std::int64_t begin = plan.rowptr[row], end = plan.rowptr[row + 1];
  const bool owns = chunk.valid && begin >= chunk.first && end - begin > plan.long_row;
  const std::int64_t count = owns ? (end - 1) / plan.long_row - number + 1 : 0;
  const std::int64_t share = (count + task.team.parts - 1) / task.team.parts;
  const std::int64_t last =
      (task.team.part + 1) * share < count ? (task.team.part + 1) * share : count;
  State state;
  sink.init(state);
  for (std::int64_t p = task.team.part * share; p < last; ++p) {
    const bool starts_inside = p == 0 && begin != chunk.first;
    const A* slot = state_slot<A, State>(plan, task, 2 * (number + p) + (starts_inside ? 1 : 0));
    State other;
    other.each([&](auto& word) {
      load_word(slot, word);
      slot += plan.lanes;
    });
    sink.merge(state, other);
  }
  merge_parts(sink, task.team, state);
  if (owns && task.team.part == 0) sink.finish(row, task.head, task.block, task.team, state);
}

// ---- on the host

// Edges in a chunk. Splitting costs a search per chunk and a merge, so that chunks are long where
// there are enough of them for all multiprocessors.
inline constexpr std::int64_t kShortestChunk = 64, kLongChunk = 512;
inline constexpr std::int64_t kEnoughChunks = 4096;
inline constexpr std::int64_t kMostChunks = 32768;  // limits the scratch memory

inline std::int64_t chunk_edges(std::int64_t num_edges) {
  const std::int64_t enough = num_edges / kEnoughChunks, least = ceil_div(num_edges, kMostChunks);
  const std::int64_t edges = enough < kLongChunk ? enough : kLongChunk;
  const std::int64_t bounded = edges > kShortestChunk ? edges : kShortestChunk;
  return bounded > least ? bounded : least;
}

inline int power_of_two_at_least(std::int64_t n) {
  int p = 1;
  while (p < n) p *= 2;
  return p;
}

// Plans a pass with teams of `lanes` lanes that process `unroll` edges at a time. row_slots = 0:
// one slot per row.
inline RowPlan plan_rows(const std::int64_t* rowptr, std::int64_t num_rows, std::int64_t num_edges,
                         std::int64_t heads, int blocks, int lanes, int unroll,
                         std::int64_t row_slots = 0) {
  RowPlan plan;
  plan.rowptr = rowptr, plan.num_rows = num_rows, plan.num_edges = num_edges;
  plan.heads = heads, plan.blocks = blocks, plan.lanes = lanes;
  const std::int64_t degree = num_rows > 0 ? num_edges / num_rows : 0;
  // As many teams per row as its edges keep busy, so that a warp processes few rows, because their
  // lengths differ.
  while (2 * plan.parts * lanes <= kWarp && 2 * plan.parts * unroll <= degree) plan.parts *= 2;
  plan.row_slots = row_slots > 0 && row_slots < num_rows ? row_slots : num_rows;
  if (num_rows > 0) plan.rounds = static_cast<int>(ceil_div(num_rows, plan.row_slots));
  plan.long_row = chunk_edges(num_edges);
  plan.num_chunks = num_edges > plan.long_row ? ceil_div(num_edges, plan.long_row) : 0;
  plan.chunk_blocks = ceil_div(2 * plan.num_chunks * heads * blocks * lanes * plan.parts, kWarp);
  return plan;
}

// Runs a pass over all rows; where rows have states, also the merge of long rows.
template <class Pass>
void run_pass(Context& context, const Pass& pass, RowPlan plan) {
  using State = typename Pass::State;
  if (plan.num_rows == 0 || plan.heads == 0) return;
  if (State::kWords > 0 && plan.num_chunks > 0) {
    plan.scratch =
        context.allocate(static_cast<std::size_t>(2 * plan.num_chunks * plan.heads * plan.blocks *
                                                  State::kWords * plan.lanes) *
                         sizeof(typename Pass::A));
  }
  const std::int64_t row_blocks =
      ceil_div(plan.row_slots * plan.heads * plan.blocks * plan.lanes * plan.parts, kWarp);
  launch<kWarp>(context, plan.chunk_blocks + row_blocks, &rows_kernel<Pass>, pass, plan);
  if constexpr (State::kWords > 0) {
    if (plan.num_chunks > 0)
      launch<kWarp>(context, ceil_div(plan.chunk_blocks, 2), &merge_kernel<typename Pass::Sink>,
                    pass.sink, plan);
  }
}

// For passes whose rows have no state.
struct NoState {
  static constexpr int kWords = 0;
  template <class F>
  __device__ __forceinline__ void each(F&&) {}
};
struct NoSink {
  using State = NoState;
  __device__ __forceinline__ void init(State&) const {}
  __device__ __forceinline__ void merge(State&, const State&) const {}
  __device__ __forceinline__ void finish(std::int64_t, int, int, const Team&, const State&) const {}
};
struct NothingShared {
  using Shared = Nothing;
  static constexpr bool kRounds = false;
  __device__ __forceinline__ void store_shared(const Task&, std::int64_t, bool,
                                               const Nothing&) const {}
};

}  // namespace gat::cuda
