// The CUDA device of a tensor: makes it current, and provides torch's current stream and allocator.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <vector>

#include "../../cuda/stream.h"

namespace gat::binding {

class CudaDevice : protected cuda::Context {
 public:
  explicit CudaDevice(const at::Tensor& tensor)
      : guard_(tensor.device()), options_(tensor.options().dtype(at::kByte)) {
    stream = c10::cuda::getCurrentCUDAStream().stream();
  }

  // Freed with this object; torch's allocator reuses memory in the order of the stream.
  void* allocate(std::size_t bytes) override {
    scratch_.push_back(at::empty({static_cast<std::int64_t>(bytes)}, options_));
    return scratch_.back().mutable_data_ptr();
  }

 private:
  c10::cuda::CUDAGuard guard_;
  at::TensorOptions options_;
  std::vector<at::Tensor> scratch_;
};

}  // namespace gat::binding
