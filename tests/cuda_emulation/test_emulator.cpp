// The emulator itself: what collectives, barriers and conversions give, and that each mistake a
// kernel can make is reported.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "../cpp/check.h"

namespace {

constexpr unsigned kFull = 0xffffffffu;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <class... Ps, class... Args>
void launch(dim3 grid, dim3 block, void (*kernel)(Ps...), Args... args) {
  std::tuple<Ps...> values(args...);
  std::apply(
      [&](auto&... value) {
        void* pointers[] = {static_cast<void*>(&value)...};
        CHECK(cudaLaunchKernel(kernel, grid, block, pointers, 0, nullptr) == cudaSuccess);
      },
      values);
  CHECK(cudaGetLastError() == cudaSuccess);
}

// ---- warp collectives

// out[operation][lane]; the whole warp takes part.
__global__ void shuffles(long long (*out)[32]) {
  const int lane = static_cast<int>(threadIdx.x);
  int row = 0;
  out[row++][lane] = __shfl_sync(kFull, 100 + lane, 5);
  out[row++][lane] = __shfl_sync(kFull, 100 + lane, 11, 8);  // lane 3 of each group of 8
  out[row++][lane] = __shfl_sync(kFull, 100 + lane, -1);
  out[row++][lane] = __shfl_xor_sync(kFull, 100u + threadIdx.x, 16);
  // earlier groups can be read, later ones not
  out[row++][lane] = __shfl_xor_sync(kFull, 100 + lane, 4, 4);
  out[row++][lane] = __shfl_down_sync(kFull, 100LL + lane, 3);
  out[row++][lane] = __shfl_down_sync(kFull, 100 + lane, 3, 16);
  out[row++][lane] = __shfl_up_sync(kFull, 100L + lane, 2);
  out[row++][lane] = __shfl_up_sync(kFull, 100 + lane, 2, 4);
  out[row++][lane] =
      static_cast<long long>(__shfl_xor_sync(kFull, 0.5f * static_cast<float>(lane), 1) * 2);
  out[row++][lane] = static_cast<long long>(__shfl_xor_sync(kFull, 0x1p40 + lane, 1) - 0x1p40);
  out[row++][lane] = __shfl_sync(kFull, lane % 2 == 0, lane + 1);
}

void test_shuffles() {
  long long out[12][32];
  launch(1, 32, shuffles, out);
  for (int lane = 0; lane < 32; ++lane) {
    int row = 0;
    CHECK(out[row++][lane] == 105);
    CHECK(out[row++][lane] == 100 + lane / 8 * 8 + 3);
    CHECK(out[row++][lane] == 131);
    CHECK(out[row++][lane] == 100 + (lane ^ 16));
    CHECK(out[row++][lane] == 100 + (lane % 8 < 4 ? lane : lane - 4));
    CHECK(out[row++][lane] == 100 + (lane + 3 < 32 ? lane + 3 : lane));
    CHECK(out[row++][lane] == 100 + (lane % 16 + 3 < 16 ? lane + 3 : lane));
    CHECK(out[row++][lane] == 100 + (lane >= 2 ? lane - 2 : lane));
    CHECK(out[row++][lane] == 100 + (lane % 4 >= 2 ? lane - 2 : lane));
    CHECK(out[row++][lane] == (lane ^ 1));
    CHECK(out[row++][lane] == (lane ^ 1));
    CHECK(out[row++][lane] == lane % 2);
  }
}

__global__ void votes(unsigned* ballots, int* any, int* all) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  ballots[threadIdx.x] = __ballot_sync(kFull, lane % 3 == 0 ? 8 : 0);
  any[threadIdx.x] = __any_sync(kFull, lane == 17) * 2 + __any_sync(kFull, 0);
  all[threadIdx.x] = __all_sync(kFull, lane + 1) * 2 + __all_sync(kFull, lane != 17);
}

void test_votes() {
  unsigned ballots[64];
  int any[64], all[64];
  launch(1, 64, votes, ballots, any, all);
  for (int t = 0; t < 64; ++t) CHECK(ballots[t] == 0x49249249u && any[t] == 2 && all[t] == 2);
}

// Halves of a warp go separate ways, and a lane leaves early.
__global__ void parts_of_a_warp(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane == 31) return;
  if (lane < 16) {
    int sum = lane;
    for (int distance = 8; distance > 0; distance /= 2)
      sum += __shfl_xor_sync(0xffffu, sum, distance);
    out[lane] = sum;
  } else {
    const unsigned mask = 0x7fff0000u;
    out[lane] = static_cast<int>(__ballot_sync(mask, lane >= 29) >> 16);
    __syncwarp(mask);
  }
  const unsigned most = 0x7fffffffu;
  out[lane] += 1000 * __shfl_sync(most, lane, 30);
}

void test_parts_of_a_warp() {
  int out[32] = {};
  launch(1, 32, parts_of_a_warp, out);
  for (int lane = 0; lane < 16; ++lane) CHECK(out[lane] == 120 + 30000);
  for (int lane = 16; lane < 31; ++lane) CHECK(out[lane] == 0x6000 + 30000);
  CHECK(out[31] == 0);
}

// ---- blocks

// Sums over a block through shared memory; the last warp is not full.
__global__ void block_sum(const int* in, int* out) {
  __shared__ gat_emulation::SharedArray<int, 96> values;
  const int t = static_cast<int>(threadIdx.x);
  values[t] = in[blockIdx.x * blockDim.x + threadIdx.x];
  __syncthreads();
  int sum = 0;
  for (unsigned i = 0; i < blockDim.x; ++i) sum += values[i];
  __syncthreads();
  values[t] = sum;
  __syncthreads();
  if (t == 0) out[blockIdx.x] = values[static_cast<int>(blockDim.x) - 1];
}

void test_barriers() {
  std::vector<int> in(70 * 5);
  std::iota(in.begin(), in.end(), 0);
  int out[5];
  launch(5, 70, block_sum, in.data(), out);
  for (int b = 0; b < 5; ++b)
    CHECK(out[b] == std::accumulate(in.begin() + 70 * b, in.begin() + 70 * (b + 1), 0));
}

// Shared memory holds no number when a block begins.
__global__ void read_before_write(float* out) {
  __shared__ gat_emulation::SharedArray<float, 4> values;
  out[blockIdx.x * 4 + threadIdx.x] = values[static_cast<int>(threadIdx.x)];
  __syncthreads();
  values[static_cast<int>(threadIdx.x)] = 1;
}

void test_shared_memory_is_poisoned() {
  for (int repeat = 0; repeat < 3; ++repeat) {
    float out[12];
    launch(3, 4, read_before_write, out);
    for (const float x : out) CHECK(std::isnan(x));
  }
}

__global__ void indices(unsigned (*out)[3]) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  unsigned* const mine = out[block * blockDim.x * blockDim.y * blockDim.z + thread];
  // A neighbor's rank, so that the order of threads in warps is seen too.
  mine[0] = block, mine[1] = thread, mine[2] = __shfl_xor_sync(kFull, thread, 1);
}

void test_three_dimensions() {
  const dim3 grid(3, 4, 2), block(4, 3, 8);
  std::vector<unsigned> out(24 * 96 * 3);
  launch(grid, block, indices, reinterpret_cast<unsigned (*)[3]>(out.data()));
  for (unsigned b = 0; b < 24; ++b) {
    for (unsigned t = 0; t < 96; ++t) {
      const unsigned* const mine = &out[(b * 96 + t) * 3];
      CHECK(mine[0] == b && mine[1] == t && mine[2] == (t ^ 1));
    }
  }
}

__global__ void number_threads(std::uint64_t* out) {
  const std::uint64_t first = std::uint64_t{blockIdx.x} * blockDim.x;
  out[first + threadIdx.x] = first + __shfl_up_sync(kFull, threadIdx.x, 1);
}

void test_several_host_threads() {
  setenv("GAT_EMULATION_THREADS", "3", 1);
  std::vector<std::uint64_t> out(300 * 1024);
  launch(300, 1024, number_threads, out.data());
  for (std::size_t i = 0; i < out.size(); ++i) CHECK(out[i] == (i % 32 == 0 ? i : i - 1));
  unsetenv("GAT_EMULATION_THREADS");
}

// ---- numbers

std::uint16_t half_of(float x) { return __half_as_ushort(__float2half_rn(x)); }
std::uint16_t bf16_of(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
double value_of_half(unsigned bits) {
  const double sign = bits & 0x8000 ? -1 : 1, fraction = bits & 0x3ff;
  const int exponent = static_cast<int>(bits >> 10 & 31);
  return sign *
         (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

void test_every_half() {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const float x = __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
    if ((bits & 0x7c00) == 0x7c00) {
      CHECK(bits & 0x3ff ? std::isnan(x) : x == (bits & 0x8000 ? -kInfinity : kInfinity));
      CHECK(half_of(x) == (bits & 0x3ff ? 0x7fff : bits));
      continue;
    }
    CHECK(x == value_of_half(bits) && std::signbit(x) == (bits >= 0x8000));
    CHECK(half_of(x) == bits);
    if ((bits & 0x7fff) == 0x7bff) continue;  // the largest
    // Halfway to the next number goes to the even one of the two, and less or more than that to the
    // nearer.
    const float halfway = static_cast<float>((value_of_half(bits) + value_of_half(bits + 1)) / 2);
    CHECK(half_of(halfway) == bits + (bits & 1));
    CHECK(half_of(std::nextafter(halfway, 0.0f)) == bits);
    CHECK(half_of(std::nextafter(halfway, 2 * halfway)) == bits + 1);
  }
}

void test_extreme_halves() {
  CHECK(half_of(65519.996f) == 0x7bff && half_of(65520.0f) == 0x7c00 && half_of(-1e30f) == 0xfc00);
  CHECK(half_of(0x1p-25f) == 0 && half_of(0x1.000002p-25f) == 1 && half_of(-0x1p-149f) == 0x8000);
  CHECK(half_of(-0.0f) == 0x8000 && half_of(-NAN) == 0x7fff);
}

void test_bf16() {
  CHECK(bf16_of(1.0f) == 0x3f80 && bf16_of(-2.5f) == 0xc020 && bf16_of(-0.0f) == 0x8000);
  CHECK(bf16_of(__uint_as_float(0x3f808000u)) == 0x3f80 &&
        bf16_of(__uint_as_float(0x3f818000u)) == 0x3f82);
  CHECK(bf16_of(__uint_as_float(0x3f808001u)) == 0x3f81 &&
        bf16_of(__uint_as_float(0x3f807fffu)) == 0x3f80);
  CHECK(bf16_of(__uint_as_float(0x00018000u)) == 2 &&
        bf16_of(__uint_as_float(0x7f7fffffu)) == 0x7f80);
  CHECK(bf16_of(kInfinity) == 0x7f80 && bf16_of(-kInfinity) == 0xff80);
  CHECK(bf16_of(NAN) == 0x7fff && bf16_of(__uint_as_float(0xff800001u)) == 0x7fff);
}

void test_intrinsics() {
  CHECK(__popc(0xf0f0u) == 8 && __popcll(~0ull) == 64 && __ffs(0) == 0 && __ffs(8) == 4);
  CHECK(__clz(0) == 32 && __clz(1) == 31 && __clz(-1) == 0 && __clzll(0) == 64 && __clzll(1) == 63);
  CHECK(__float_as_uint(1.0f) == 0x3f800000u && __uint_as_float(0x80000000u) == 0 &&
        __longlong_as_double(__double_as_longlong(0.1)) == 0.1);
  const uint4 v = make_uint4(1, 2, 3, 4), w = __ldg(&v);
  CHECK(w.x == 1 && w.y == 2 && w.z == 3 && w.w == 4 && sizeof(uint2) == 8 &&
        sizeof(ulonglong2) == 16);
}

// ---- mistakes

// The launch must fail, and say all of `expected`; what is launched next must not suffer.
template <class... Ps, class... Args>
void check_error(std::initializer_list<const char*> expected, dim3 grid, dim3 block,
                 void (*kernel)(Ps...), Args... args) {
  std::string said;
  try {
    launch(grid, block, kernel, args...);
  } catch (const std::runtime_error& error) {
    said = error.what();
  }
  for (const char* part : expected) {
    if (said.find(part) != std::string::npos) continue;
    std::fprintf(stderr, "expected '%s' in '%s'\n", part, said.c_str());
    std::exit(1);
  }
  test_parts_of_a_warp();
  test_barriers();
}

void test_lanes_that_do_not_meet() {
  check_error(
      {"block (1, 0, 0)", "lane 7 (thread (7, 1, 0)) waits at __any_sync",
       "__ballot_sync with mask 0xffffffff"},
      2, dim3(32, 2), +[]() {
        const bool odd = blockIdx.x == 1 && threadIdx.y == 1 && threadIdx.x == 7;
        odd ? __any_sync(kFull, 1) : static_cast<int>(__ballot_sync(kFull, 1));
      });
  check_error(
      {"waits at __syncwarp with mask 0x0000000f", "waits at __syncwarp with mask 0x00000007"}, 1,
      4, +[]() { __syncwarp(threadIdx.x == 2 ? 7 : 15); });
  check_error(
      {"value of 4 bytes", "value of 8 bytes"}, 1, 32,
      +[]() { threadIdx.x == 3 ? __shfl_sync(kFull, 1, 0) : __shfl_sync(kFull, 1L, 0); });
  check_error(
      {"warp 0 is stuck", "lane 0 (thread (0, 0, 0)) waits at __syncwarp",
       "lane 31 (thread (31, 0, 0)) has exited"},
      1, 32, +[]() {
        if (threadIdx.x != 31) __syncwarp();
      });
  check_error(
      {"thread (10, 0, 0): __syncwarp: lane 9, which has exited, is in the mask 0xfffffe00"}, 1, 32,
      +[]() {
        if (threadIdx.x > 9) __syncwarp(~0u << 9);
      });
  check_error({"lane 8, which has exited, is in the mask"}, 1, 8, +[]() { __syncwarp(); });
}

void test_lanes_out_of_place() {
  check_error(
      {"thread (4, 0, 0): __ballot_sync: lane 4, which calls it, is not in its mask 0x0000000f"}, 1,
      32, +[]() {
        if (threadIdx.x >= 4) __ballot_sync(15, 1);
      });
  check_error(
      {"__shfl_sync: lane 8, which is read, is not in the mask 0x000000ff"}, 1, 8,
      +[]() { __shfl_sync(255, 1, 40); });
  check_error(
      {"thread (3, 0, 0): __shfl_down_sync: lane 4, which is read"}, 1, 4,
      +[]() { __shfl_down_sync(15, 1, 1); });
  check_error(
      {"thread (1, 0, 0): __shfl_up_sync: lane 0, which is read"}, 1, 32, +[]() {
        if (threadIdx.x > 0) __shfl_up_sync(~1u, 1, 1);
      });
  check_error(
      {"__shfl_xor_sync: lane 16, which is read"}, 1, 16,
      +[]() { __shfl_xor_sync(0xffff, 1, 16); });
  check_error(
      {"the width is 12; expected a power of two"}, 1, 32, +[]() { __shfl_sync(kFull, 1, 0, 12); });
  check_error(
      {"the distance is 32; expected 0 to 31"}, 1, 32, +[]() { __shfl_xor_sync(kFull, 1, 32); });
}

void test_barriers_that_not_all_reach() {
  check_error(
      {"__syncthreads: 63 of 64 threads wait, thread (0, 0, 0) the first; thread (40, 0, 0) has "
       "exited"},
      1, 64, +[]() {
        if (threadIdx.x != 40) __syncthreads();
      });
  check_error(
      {"warp 1 is stuck: lane 0 (thread (32, 0, 0)) waits at __syncwarp",
       "lane 1 (thread (33, 0, 0)) waits at __syncthreads"},
      1, 64, +[]() { threadIdx.x == 32 ? __syncwarp() : __syncthreads(); });
}

void test_memory_out_of_bounds() {
  const auto access = +[](int index) {
    __shared__ gat_emulation::SharedArray<int, 8> values;
    values[index] = 1;
  };
  check_error({"thread (0, 0, 0): shared array: index 8 of 8"}, 1, 1, access, 8);
  check_error({"shared array: index -1 of 8"}, 1, 1, access, -1);
  alignas(16) unsigned words[8] = {};
  const auto load = +[](const unsigned* p) { __ldg(reinterpret_cast<const uint4*>(p)); };
  const auto store = +[](unsigned* p) { *reinterpret_cast<uint2*>(p) = make_uint2(1, 2); };
  check_error({"an access of 16 bytes at an address that is not a multiple of it"}, 1, 1, load,
              words + 2);
  check_error({"an access of 8 bytes at an address that is not a multiple of it"}, 1, 1, store,
              words + 1);
}

void test_configurations() {
  const auto nothing = +[]() {};
  check_error({"grid (0, 1, 1)", "not empty"}, 0, 32, nothing);
  check_error({"block (32, 0, 1)", "not empty"}, 1, dim3(32, 0), nothing);
  check_error({"block (1025, 1, 1)", "at most 1024"}, 1, 1025, nothing);
  check_error({"at most 1024 threads a block"}, 1, dim3(64, 32), nothing);
  check_error({"64 along z"}, 1, dim3(1, 1, 65), nothing);
  check_error({"65535 blocks along y and z"}, dim3(1, 65536), 1, nothing);
  check_error({"65535 blocks along y and z"}, dim3(1, 1, 65536), 1, nothing);
  check_error({"2147483647 blocks along x"}, 0x80000000u, 1, nothing);
}

void test_exceptions() {
  check_error(
      {"block (0, 2, 0): thread (5, 0, 0): vector"}, dim3(1, 3), 8, +[]() {
        if (blockIdx.y == 2 && threadIdx.x == 5) std::vector<int>().at(1);
        __syncthreads();
      });
  setenv("GAT_EMULATION_THREADS", "2", 1);
  check_error(
      {"thread (1, 0, 0): an exception"}, 1000, 2, +[]() {
        if (blockIdx.x > 500 && threadIdx.x == 1) throw 3;
      });
  unsetenv("GAT_EMULATION_THREADS");
}

// ---- orders of the blocks

__global__ void block_numbers(unsigned* order, unsigned* count) { order[(*count)++] = blockIdx.x; }

std::vector<unsigned> order_of_blocks(unsigned num_blocks, const char* seed) {
  std::vector<unsigned> order(num_blocks);
  unsigned count = 0;
  setenv("GAT_EMULATION_ORDER", seed, 1);
  launch(num_blocks, 1, block_numbers, order.data(), &count);
  unsetenv("GAT_EMULATION_ORDER");
  CHECK(count == num_blocks);
  return order;
}

void test_orders() {
  for (const unsigned num_blocks : {1u, 2u, 6u, 97u, 1000u}) {
    std::vector<unsigned> all(num_blocks);
    std::iota(all.begin(), all.end(), 0u);
    CHECK(order_of_blocks(num_blocks, "0") == all);
    for (const char* const seed : {"1", "2"}) {
      std::vector<unsigned> order = order_of_blocks(num_blocks, seed);
      CHECK(num_blocks < 97 || order != all);
      std::sort(order.begin(), order.end());
      CHECK(order == all);
    }
  }
}

}  // namespace

int main() {
  test_shuffles();
  test_votes();
  test_parts_of_a_warp();
  test_barriers();
  test_shared_memory_is_poisoned();
  test_three_dimensions();
  test_several_host_threads();
  test_orders();
  test_every_half();
  test_extreme_halves();
  test_bf16();
  test_intrinsics();
  test_lanes_that_do_not_meet();
  test_lanes_out_of_place();
  test_barriers_that_not_all_reach();
  test_memory_out_of_bounds();
  test_configurations();
  test_exceptions();
  return 0;
}
