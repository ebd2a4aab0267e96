// The dot products of every head of a row with vectors of that head, on the CPU.
#pragma once

#include <cstdint>

#include "../core/types.h"

namespace gat::cpu {

// x [N, H, C], and K vectors for each head, att [K, H, C].
template <class T>
struct HeadTerms {
  std::int64_t rows, num_heads, channels, num_vectors;
  const T *x, *att;
};

template <class T>
struct HeadTermsKernels {
  // out [K, N, H] = <x_nh, att_kh>.
  void (*forward)(const HeadTerms<T>&, T* out, int num_threads);
  // grad_x = sum_k grad_knh att_kh, grad_att = sum_n grad_knh x_nh; each may be null. grad is
  // [K, N, H].
  void (*backward)(const HeadTerms<T>&, const T* grad, T* grad_x, T* grad_att, int num_threads);
};

template <class Isa, class T>
HeadTermsKernels<T> head_terms_kernels();

}  // namespace gat::cpu
