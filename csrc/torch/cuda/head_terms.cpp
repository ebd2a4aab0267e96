// head_terms on the GPU.
#include "../head_terms.h"

#include <ATen/ops/sum.h>

#include "../../cuda/head_terms.h"
#include "device.h"
#include "register.h"

namespace gat::binding {
namespace {

struct Cuda : CudaDevice {
  using CudaDevice::CudaDevice;

  template <class T>
  static cuda::HeadTerms<T> terms(const HeadTermsShape& s, const T* x, const T* vectors) {
    TORCH_CHECK_VALUE(s.num_vectors <= cuda::kMostVectors, "vectors has ", s.num_vectors,
                      " vectors; expected at most ", cuda::kMostVectors, " on a GPU");
    return {s.rows, s.num_heads, s.channels, s.num_vectors, x, vectors};
  }
  template <class T>
  void head_terms(const HeadTermsShape& s, const T* x, const T* vectors, T* out) {
    cuda::head_terms(*this, terms(s, x, vectors), out);
  }
  template <class T>
  void head_terms_backward(const HeadTermsShape& s, const T* x, const T* vectors, const T* grad,
                           T* grad_x, const at::Tensor& grad_vectors) {
    at::Tensor parts;
    if (grad_vectors.defined()) {
      parts = at::empty({cuda::head_terms_parts(s.rows), s.num_vectors, s.num_heads, s.channels},
                        grad_vectors.options().dtype(accumulate_type(grad_vectors.scalar_type())));
    }
    cuda::head_terms_backward(*this, terms(s, x, vectors), grad, grad_x,
                              mutable_data<Acc<T>>(parts));
    if (grad_vectors.defined()) grad_vectors.copy_(at::sum(parts, 0));
  }
};

}  // namespace

void register_head_terms_cuda(torch::Library& m) { register_head_terms<Cuda>(m); }

}  // namespace gat::binding
