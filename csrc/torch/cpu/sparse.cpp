// edge_softmax, sddmm, spmm, edge_dot, edge_sum and the dropout mask on the CPU.
#include "../../cpu/sparse.h"

#include "../../cpu/isa.h"
#include "../sparse.h"
#include "../threads.h"

namespace gat::binding {
namespace {

struct Cpu {
  int threads = num_threads();

  explicit Cpu(const at::Tensor&) {}

  template <class T>
  static cpu::SparseKernels<T> kernels() {
    return cpu::with_isa([](auto isa) { return cpu::sparse_kernels<decltype(isa), T>(); });
  }
  template <class T>
  void edge_softmax(const SparseShape& s, const T* scores, T* alpha) {
    kernels<T>().edge_softmax(s.csr, s.num_heads, scores, alpha, threads);
  }
  template <class T>
  void edge_softmax_backward(const SparseShape& s, const T* grad, const T* alpha, T* grad_scores) {
    kernels<T>().edge_softmax_backward(s.csr, s.num_heads, grad, alpha, grad_scores, threads);
  }
  template <class T>
  void sddmm(const SparseShape& s, const T* x, const T* y, T* out) {
    kernels<T>().sddmm(s.csr, s.num_heads, s.channels, x, y, out, threads);
  }
  template <class T>
  void spmm(const SparseShape& s, const T* weight, const T* x, T* out) {
    kernels<T>().spmm(s.csr, s.num_heads, s.channels, weight, x, out, threads);
  }
  template <class T>
  void spmm_extremum(const SparseShape& s, int sign, const T* weight, const T* x, T* out,
                     MutableIndexArray arg) {
    kernels<T>().spmm_extremum(s.csr, s.num_heads, s.channels, sign, weight, x, out, arg, threads);
  }
  template <class T>
  void spmm_extremum_backward(const SparseShape& s, const T* weight, const T* grad, IndexArray arg,
                              T* grad_x) {
    kernels<T>().spmm_extremum_backward(s.csr, s.num_heads, s.channels, weight, grad, arg, grad_x,
                                        threads);
  }
  template <class T>
  void winner_sum(const SparseShape& s, const T* values, IndexArray arg, Acc<T>* out) {
    kernels<T>().winner_sum(s.csr, s.num_heads, s.channels, values, arg, out, threads);
  }
  template <class T>
  void edge_dot(const SparseShape& s, const T* query, const T* edge_attr, T* out) {
    kernels<T>().edge_dot(s.csr, s.num_heads, s.channels, query, edge_attr, out, threads);
  }
  template <class T>
  void edge_sum(const SparseShape& s, const T* weight, const T* edge_attr, T* out) {
    kernels<T>().edge_sum(s.csr, s.num_heads, s.channels, weight, edge_attr, out, threads);
  }
  void dropout_mask(const Dropout& dropout, std::int64_t num_edges, std::int64_t num_heads,
                    bool* kept) {
    for (std::int64_t e = 0; e < num_edges; ++e) {
      for (std::int64_t h = 0; h < num_heads; ++h)
        kept[e * num_heads + h] = dropout.kept(dropout.draw(e, h / 4), h);
    }
  }
};

}  // namespace

TORCH_LIBRARY_IMPL(gat_ext, CPU, m) { register_sparse<Cpu>(m); }

}  // namespace gat::binding
