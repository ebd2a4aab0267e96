// edge_softmax, sddmm, spmm, edge_dot, edge_sum and the dropout mask on the GPU.
#include "../sparse.h"

#include "../../cuda/sparse.h"
#include "device.h"
#include "register.h"

namespace gat::binding {
namespace {

struct Cuda : CudaDevice {
  using CudaDevice::CudaDevice;

  static cuda::SparseGraph graph(const SparseShape& s) {
    return {s.csr, s.num_cols, s.num_edges, s.num_heads};
  }

  template <class T>
  void edge_softmax(const SparseShape& s, const T* scores, T* alpha) {
    cuda::edge_softmax(*this, graph(s), scores, alpha);
  }
  template <class T>
  void edge_softmax_backward(const SparseShape& s, const T* grad, const T* alpha, T* grad_scores) {
    cuda::edge_softmax_backward(*this, graph(s), grad, alpha, grad_scores);
  }
  template <class T>
  void sddmm(const SparseShape& s, const T* x, const T* y, T* out) {
    cuda::sddmm(*this, graph(s), s.channels, x, y, out);
  }
  template <class T>
  void spmm(const SparseShape& s, const T* weight, const T* x, T* out) {
    cuda::spmm(*this, graph(s), s.channels, weight, x, out);
  }
  template <class T>
  void spmm_extremum(const SparseShape& s, int sign, const T* weight, const T* x, T* out,
                     MutableIndexArray arg) {
    cuda::spmm_extremum(*this, graph(s), s.channels, sign, weight, x, out, arg);
  }
  template <class T>
  void spmm_extremum_backward(const SparseShape& s, const T* weight, const T* grad, IndexArray arg,
                              T* grad_x) {
    cuda::spmm_extremum_backward(*this, graph(s), s.channels, weight, grad, arg, grad_x);
  }
  template <class T>
  void winner_sum(const SparseShape& s, const T* values, IndexArray arg, Acc<T>* out) {
    cuda::winner_sum(*this, graph(s), s.channels, values, arg, out);
  }
  template <class T>
  void edge_dot(const SparseShape& s, const T* query, const T* edge_attr, T* out) {
    cuda::edge_dot(*this, graph(s), s.channels, query, edge_attr, out);
  }
  template <class T>
  void edge_sum(const SparseShape& s, const T* weight, const T* edge_attr, T* out) {
    cuda::edge_sum(*this, graph(s), s.channels, weight, edge_attr, out);
  }
  void dropout_mask(const Dropout& dropout, std::int64_t num_edges, std::int64_t num_heads,
                    bool* kept) {
    cuda::edge_dropout_mask(*this, dropout, num_edges, num_heads, kept);
  }
};

}  // namespace

void register_sparse_cuda(torch::Library& m) { register_sparse<Cuda>(m); }

}  // namespace gat::binding
