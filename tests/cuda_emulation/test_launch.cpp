// Launches of gat_ext, on the emulator: the text of an error, and what an observer sees.
#include <cuda_runtime.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

// What nvcc defines for -gencode arch=compute_80,code=sm_80 and the same of 90.
#define __CUDA_ARCH_LIST__ 800, 900
#include "../cpp/check.h"
#include "cuda/launch.cuh"

namespace {

struct NoScratch : gat::cuda::Context {
  void* allocate(std::size_t) override { return nullptr; }
};

struct SomePass {
  int* count;
};

__global__ void count_kernel(const SomePass pass, long factor) {
  if (threadIdx.x == 0) *pass.count += static_cast<int>(factor);
}

std::string error_of(int* count) {
  try {
    gat::cuda::launch(NoScratch{}, 3, &count_kernel, SomePass{count}, 2L);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

void test_failed_launch() {
  int count = 0;
  gat_emulation::next_error = cudaErrorNoKernelImageForDevice;
  const std::string error = error_of(&count);
  CHECK(count == 0);
  for (const char* part : {"no kernel image", "SomePass, long", "built for sm_80 sm_90:"})
    CHECK(error.find(part) != std::string::npos);
  CHECK(error_of(&count).empty());  // the error did not stay
  CHECK(count == 6);
}

std::vector<gat_emulation::Observed> seen;
std::vector<std::vector<unsigned char>> parameters;

void see(const gat_emulation::Observed* launch) {
  seen.push_back(*launch);
  for (std::size_t i = 0; i < launch->count; ++i) {
    const auto* first = static_cast<const unsigned char*>(launch->args[i]);
    parameters.emplace_back(first, first + launch->sizes[i]);
  }
}

void test_observer() {
  int count = 0;
  gat_emulation::observer = see;
  gat::cuda::launch<32>(NoScratch{}, 3, &count_kernel, SomePass{&count}, 5L);
  gat_emulation::observer = nullptr;
  gat::cuda::launch<32>(NoScratch{}, 1, &count_kernel, SomePass{&count}, 5L);
  CHECK(count == 20);
  CHECK(seen.size() == 2 && !seen[0].done && seen[1].done);
  CHECK(seen[0].grid.x == 3 && seen[0].block.x == 32 && seen[0].count == 2);
  CHECK(seen[0].kernel == reinterpret_cast<void (*)()>(&count_kernel));
  long factor = 0;
  std::memcpy(&factor, parameters[1].data(), sizeof factor);
  CHECK(factor == 5 && parameters[0].size() == sizeof(SomePass));
}

}  // namespace

int main() {
  test_failed_launch();
  test_observer();
  return 0;
}
