// content_loss and its backward: one pass each, with 16-byte accesses, independent of the order in which blocks finish.
#pragma once

#include "total.cuh"

namespace fastnst::kernels {

// partial = sum (x - y)^2, by block
template <typename T, int kWidth>
__global__ void __launch_bounds__(kSumThreads)
    squared_difference(const T* __restrict__ x, const T* __restrict__ y, int64_t n, double* partial) {
  using C = ComputeOf<T>;
  using P = Pack<T, kWidth>;
  const int64_t packs = n / kWidth, stride = static_cast<int64_t>(gridDim.x) * kSumThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSumThreads + threadIdx.x;
  double sum = 0;
  begin_main_loop();
#pragma unroll kPacksPerThread
  for (int64_t i = first; i < packs; i += stride) {
    const P a = reinterpret_cast<const P*>(x)[i], b = reinterpret_cast<const P*>(y)[i];
    C part = 0;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const C d = widen(a.values[k]) - widen(b.values[k]);
      part += d * d;
    }
    sum += part;
  }
  end_main_loop();
  for (int64_t i = packs * kWidth + first; i < n; i += stride) {
    const C d = widen(x[i]) - widen(y[i]);
    sum += d * d;
  }
  add_up(sum, partial);
}

// out = 2 g (x - y)
template <typename T, int kWidth>
__global__ void __launch_bounds__(kSumThreads)
    scaled_difference(const ComputeOf<T>* __restrict__ grad, const T* __restrict__ x, const T* __restrict__ y,
                      T* __restrict__ out, int64_t n) {
  using C = ComputeOf<T>;
  using P = Pack<T, kWidth>;
  const C factor = 2 * *grad;
  const int64_t packs = n / kWidth, stride = static_cast<int64_t>(gridDim.x) * kSumThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSumThreads + threadIdx.x;
  begin_main_loop();
#pragma unroll kPacksPerThread
  for (int64_t i = first; i < packs; i += stride) {
    const P a = reinterpret_cast<const P*>(x)[i], b = reinterpret_cast<const P*>(y)[i];
    P to;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) narrow(&to.values[k], factor * (widen(a.values[k]) - widen(b.values[k])));
    reinterpret_cast<P*>(out)[i] = to;
  }
  end_main_loop();
  for (int64_t i = packs * kWidth + first; i < n; i += stride) narrow(out + i, factor * (widen(x[i]) - widen(y[i])));
}

// `partial` holds kMaxBlocks values; returns how many are written, which launch_sum_of_blocks adds.
template <typename T>
inline int launch_squared_difference(const T* x, const T* y, int64_t n, double* partial, cudaStream_t stream) {
  constexpr int kFull = kFullWidth<T>;
  const bool full = aligned(x) && aligned(y);
  const int blocks = blocks_for(n, full ? kFull : 1);
  launch(full ? squared_difference<T, kFull> : squared_difference<T, 1>, dim3(blocks), kSumThreads, 0, stream, x, y, n,
         partial);
  return blocks;
}

template <typename T>
inline void launch_scaled_difference(const ComputeOf<T>* grad, const T* x, const T* y, T* out, int64_t n,
                                     cudaStream_t stream) {
  constexpr int kFull = kFullWidth<T>;
  if (aligned(x) && aligned(y) && aligned(out)) {
    launch(scaled_difference<T, kFull>, dim3(blocks_for(n, kFull)), kSumThreads, 0, stream, grad, x, y, out, n);
  } else {
    launch(scaled_difference<T, 1>, dim3(blocks_for(n, 1)), kSumThreads, 0, stream, grad, x, y, out, n);
  }
}

}  // namespace fastnst::kernels
