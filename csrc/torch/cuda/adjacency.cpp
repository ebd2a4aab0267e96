// adjacency_csr on the GPU. The host does not wait for the sort, so it learns of a node number out
// of range only later: at the first call for which the bounds of an earlier one have arrived. With
// CUDA_LAUNCH_BLOCKING=1 it waits. A captured call is not checked. In every case such edges are
// left out of the CSR.
#include "../adjacency.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <list>
#include <mutex>

#include "../adjacency_sort.h"
#include "register.h"

namespace gat::binding {
namespace {

void check(cudaError_t error) {
  TORCH_CHECK(error == cudaSuccess, "checking the edges: ", cudaGetErrorString(error));
}

// Page-locked memory for the bounds of one call, and what says that they have arrived.
struct Message {
  EdgeBounds* bounds = nullptr;
  cudaEvent_t arrived = nullptr;
  int device = 0;  // of the event
  std::int64_t num_src = 0, num_dst = 0;
};

class Messages {
 public:
  // Sends the bounds to the host; if `wait`, they have arrived then.
  void send(const at::Tensor& bounds, const Edges& e, cudaStream_t stream, bool wait) {
    const std::lock_guard lock(mutex_);
    auto message = std::find_if(free_.begin(), free_.end(), [&](const Message& each) {
      return each.device == bounds.get_device();
    });
    if (message == free_.end()) {
      message = free_.insert(free_.end(), Message{});
      message->device = bounds.get_device();
      check(cudaMallocHost(reinterpret_cast<void**>(&message->bounds), sizeof(EdgeBounds)));
      check(cudaEventCreateWithFlags(&message->arrived, cudaEventDisableTiming));
    }
    message->num_src = e.num_src, message->num_dst = e.num_dst;
    check(cudaMemcpyAsync(message->bounds, bounds.const_data_ptr(), sizeof(EdgeBounds),
                          cudaMemcpyDeviceToHost, stream));
    check(cudaEventRecord(message->arrived, stream));
    if (wait) check(cudaEventSynchronize(message->arrived));
    sent_.splice(sent_.end(), free_, message);
  }

  // The first message that has arrived and reports a node out of range.
  void raise() {
    const std::lock_guard lock(mutex_);
    while (!sent_.empty() && cudaEventQuery(sent_.front().arrived) == cudaSuccess) {
      const Message& first = sent_.front();
      free_.splice(free_.end(), sent_, sent_.begin());
      check_bounds(*first.bounds, first.num_src, first.num_dst);
    }
    cudaGetLastError();  // that the first has not arrived is no error
  }

 private:
  std::mutex mutex_;
  std::list<Message> sent_, free_;
};

Messages& messages() {
  // Never destroyed: at the end of the process the driver may be gone first.
  static Messages& messages = *new Messages;
  return messages;
}

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &status));
  return status != cudaStreamCaptureStatusNone;
}

// Nothing here concerns a capture on another thread, which would forbid it.
class Relaxed {
 public:
  Relaxed() { check(cudaThreadExchangeStreamCaptureMode(&mode_)); }
  ~Relaxed() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  Relaxed(const Relaxed&) = delete;
  Relaxed& operator=(const Relaxed&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

bool launches_block() {
  const char* const setting = std::getenv("CUDA_LAUNCH_BLOCKING");
  return setting != nullptr && std::strcmp(setting, "1") == 0;
}

void check_later(const at::Tensor& edge_index, const Edges& e) {
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream().stream();
  if (is_capturing(stream)) return;
  const Relaxed relaxed;
  messages().raise();
  if (e.num_given() > 0) {
    messages().send(by_torch::bounds_of(edge_index), e, stream, launches_block());
    if (launches_block()) messages().raise();
  }
}

AdjacencyCsr adjacency_csr(const Edges& e, const Sorting& sorting) {
  check_form(e, sorting);
  const c10::cuda::CUDAGuard guard(e.edges.device());
  const at::Tensor edge_index = by_torch::edge_index_of(e);
  if (!e.col.has_value()) check_later(edge_index, e);
  return by_torch::sorted(e, sorting, edge_index);
}

}  // namespace

void register_adjacency_cuda(torch::Library& m) {
  m.impl("adjacency_csr", &ops::AdjacencyCsr::flat<&adjacency_csr>);
}

}  // namespace gat::binding
