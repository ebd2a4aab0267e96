// head_terms on the CPU.
#include "../head_terms.h"

#include "../../cpu/head_terms.h"
#include "../../cpu/isa.h"
#include "../threads.h"

namespace gat::binding {
namespace {

struct Cpu {
  explicit Cpu(const at::Tensor&) {}

  template <class T>
  static cpu::HeadTermsKernels<T> kernels() {
    return cpu::with_isa([](auto isa) { return cpu::head_terms_kernels<decltype(isa), T>(); });
  }
  template <class T>
  void head_terms(const HeadTermsShape& s, const T* x, const T* vectors, T* out) {
    kernels<T>().forward({s.rows, s.num_heads, s.channels, s.num_vectors, x, vectors}, out,
                         num_threads());
  }
  template <class T>
  void head_terms_backward(const HeadTermsShape& s, const T* x, const T* vectors, const T* grad,
                           T* grad_x, const at::Tensor& grad_vectors) {
    kernels<T>().backward({s.rows, s.num_heads, s.channels, s.num_vectors, x, vectors}, grad,
                          grad_x, mutable_data<T>(grad_vectors), num_threads());
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(gat_ext, CPU, m) { register_head_terms<Cpu>(m); }

}  // namespace gat::binding
