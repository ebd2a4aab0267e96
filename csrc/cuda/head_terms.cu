// head_terms on the GPU: bound by reading x, and in the backward pass by writing its gradient.
#include "head_terms.h"

#include "attention.cuh"

namespace gat::cuda {
namespace {

// A team of lanes for each row and head; packs: those of a lane.
template <class T, int K, int packs>
__global__ void __launch_bounds__(kBlock)
    head_terms_kernel(const HeadTerms<T> in, std::int64_t rows, RowShape shape, Channels channels,
                      T* out) {
  const Team team(shape.lanes, 1);
  const std::int64_t r = thread_id() / shape.lanes;
  const int head = static_cast<int>(r - divide(r, in.num_heads) * in.num_heads);
  Acc<T> sum[K] = {};
  if (r < rows) {
    for (int block = 0; block < shape.blocks; ++block) {
      const auto x = load_fragment<T, packs>(in.x, r, channels, team, block);
#pragma unroll
      for (int k = 0; k < K; ++k) {
        if (k >= in.num_vectors) continue;
        const auto att =
            load_fragment<T, packs>(in.att, k * in.num_heads + head, channels, team, block);
#pragma unroll
        for (int c = 0; c < packs; ++c) {
#pragma unroll
          for (int i = 0; i < kPack<T>; ++i) sum[k] += x(c, i) * att(c, i);
        }
      }
    }
  }
  team.sum(sum);
  if (r >= rows || team.lane != 0) return;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    if (k < in.num_vectors) out[k * rows + r] = narrow<T>(sum[k]);
  }
}

constexpr int kRowsOfPart = 64;

// A thread for each channel of a node, and kRowsOfPart nodes.
template <class T, int K>
__global__ void __launch_bounds__(kBlock)
    head_terms_backward_kernel(const HeadTerms<T> in, std::int64_t blocks_of_row, const T* grad,
                               T* grad_x, Acc<T>* parts) {
  using A = Acc<T>;
  const std::int64_t part = blockIdx.x / blocks_of_row,
                     column = (blockIdx.x - part * blocks_of_row) * kBlock + threadIdx.x,
                     width = in.num_heads * in.channels;
  if (column >= width) return;
  const std::int64_t head = column / in.channels, first = part * kRowsOfPart,
                     end = first + kRowsOfPart < in.rows ? first + kRowsOfPart : in.rows;
  A att[K], sum[K] = {};
#pragma unroll
  for (int k = 0; k < K; ++k)
    att[k] = k < in.num_vectors ? widen(in.att[k * width + column]) : A(0);
#pragma unroll 4
  for (std::int64_t n = first; n < end; ++n) {
    const A x = parts ? widen(in.x[n * width + column]) : A(0);
    A of_x{};
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (k >= in.num_vectors) continue;
      const A g = widen(grad[(k * in.rows + n) * in.num_heads + head]);
      of_x += g * att[k], sum[k] += g * x;
    }
    if (grad_x) grad_x[n * width + column] = narrow<T>(of_x);
  }
  if (!parts) return;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    if (k < in.num_vectors) parts[(part * in.num_vectors + k) * width + column] = sum[k];
  }
}

// Calls f with the number of vectors for which a kernel has registers.
template <class F>
void with_vectors(std::int64_t num_vectors, F&& f) {
  if (num_vectors <= 2) {
    f(std::integral_constant<int, 2>{});
  } else {
    f(std::integral_constant<int, kMostVectors>{});
  }
}

}  // namespace

template <class T>
void head_terms(Context& context, const HeadTerms<T>& in, T* out) {
  const std::int64_t rows = in.rows * in.num_heads;
  const Channels channels = row_channels<T>(in.num_heads, in.channels, in.x, in.att);
  const RowShape shape = RowShape::of<T>(channels);
  const std::int64_t blocks = ceil_div(rows * shape.lanes, kBlock);
  with_vectors(in.num_vectors, [&](auto vectors) {
    constexpr int K = decltype(vectors)::value;
    if (shape.packs > 1) {
      launch(context, blocks, &head_terms_kernel<T, K, kGeneralPacks>, in, rows, shape, channels,
             out);
    } else {
      launch(context, blocks, &head_terms_kernel<T, K, 1>, in, rows, shape, channels, out);
    }
  });
}

std::int64_t head_terms_parts(std::int64_t rows) { return ceil_div(rows, kRowsOfPart); }

template <class T>
void head_terms_backward(Context& context, const HeadTerms<T>& in, const T* grad, T* grad_x,
                         Acc<T>* parts) {
  const std::int64_t blocks_of_row = ceil_div(in.num_heads * in.channels, kBlock);
  with_vectors(in.num_vectors, [&](auto vectors) {
    launch(context, blocks_of_row * head_terms_parts(in.rows),
           &head_terms_backward_kernel<T, decltype(vectors)::value>, in, blocks_of_row, grad,
           grad_x, parts);
  });
}

template void head_terms(Context&, const HeadTerms<float>&, float*);
template void head_terms(Context&, const HeadTerms<double>&, double*);
template void head_terms(Context&, const HeadTerms<bf16>&, bf16*);
template void head_terms(Context&, const HeadTerms<fp16>&, fp16*);
template void head_terms_backward(Context&, const HeadTerms<float>&, const float*, float*, float*);
template void head_terms_backward(Context&, const HeadTerms<double>&, const double*, double*,
                                  double*);
template void head_terms_backward(Context&, const HeadTerms<bf16>&, const bf16*, bf16*, float*);
template void head_terms_backward(Context&, const HeadTerms<fp16>&, const fp16*, fp16*, float*);

}  // namespace gat::cuda
