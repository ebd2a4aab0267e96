// The dot products of every head of a row with vectors of that head, on the GPU.
#pragma once

#include <cstdint>

#include "../core/types.h"
#include "stream.h"

namespace gat::cuda {

inline constexpr int kMostVectors = 4;  // of a head

// x [N, H, C], and K <= kMostVectors vectors for each head, att [K, H, C].
template <class T>
struct HeadTerms {
  std::int64_t rows, num_heads, channels, num_vectors;
  const T *x, *att;
};

// out [K, N, H] = <x_nh, att_kh>.
template <class T>
void head_terms(Context&, const HeadTerms<T>&, T* out);

// The rows of parts in the backward pass.
std::int64_t head_terms_parts(std::int64_t rows);

// grad_x = sum_k grad_knh att_kh; parts [head_terms_parts, K, H, C], which sum to the gradient of
// att, sum_n grad_knh x_nh. Either may be null. grad is [K, N, H].
template <class T>
void head_terms_backward(Context&, const HeadTerms<T>&, const T* grad, T* grad_x, Acc<T>* parts);

}  // namespace gat::cuda
