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
  void head_terms(const HeadTermsShape& s, const T* x, const T* att, T* out) {
    kernels<T>().forward({s.rows, s.num_heads, s.channels, s.num_vectors, x, att}, out,
                         num_threads());
  }
  template <class T>
  void head_terms_backward(const HeadTermsShape& s, const T* x, const T* att, const T* grad,
                           T* grad_x, const at::Tensor& grad_att) {
    kernels<T>().backward({s.rows, s.num_heads, s.channels, s.num_vectors, x, att}, grad, grad_x,
                          mutable_data<T>(grad_att), num_threads());
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(gat_ext, CPU, m) { register_head_terms<Cpu>(m); }

}  // namespace gat::binding
