// The backward of a layer with losses without a Gram term, in place over dense memory:
// grad = mask(x > 0) * (grad + content (x - target)). Both terms are optional.
#pragma once

#include "total.cuh"

namespace fastnst::kernels {

// Two reads and a write per value, three reads with a target; `relu` applies the mask, which is zero where x is NaN.
template <typename T, int kWidth, bool kTarget>
__global__ void __launch_bounds__(kSumThreads)
    pointwise_backward(T* __restrict__ grad, const T* __restrict__ x, const T* __restrict__ target,
                       ComputeOf<T> content, bool relu, int64_t n) {
  using C = ComputeOf<T>;
  using P = Pack<T, kWidth>;
  const auto one = [&](T g, T feature, T wanted) {
    const C f = widen(feature);
    C value = widen(g);
    if constexpr (kTarget) value += content * (f - widen(wanted));
    return relu && !(f > 0) ? C(0) : value;
  };
  const int64_t packs = n / kWidth, stride = static_cast<int64_t>(gridDim.x) * kSumThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSumThreads + threadIdx.x;
  begin_main_loop();
#pragma unroll 2
  for (int64_t i = first; i < packs; i += stride) {
    P g = reinterpret_cast<const P*>(grad)[i];
    const P f = reinterpret_cast<const P*>(x)[i];
    P wanted = f;
    if constexpr (kTarget) wanted = reinterpret_cast<const P*>(target)[i];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) narrow(&g.values[k], one(g.values[k], f.values[k], wanted.values[k]));
    reinterpret_cast<P*>(grad)[i] = g;
  }
  end_main_loop();
  for (int64_t i = packs * kWidth + first; i < n; i += stride)
    narrow(grad + i, one(grad[i], x[i], kTarget ? target[i] : x[i]));
}

template <typename T, bool kTarget>
inline void launch_pointwise_backward(T* grad, const T* x, const T* target, ComputeOf<T> content, bool relu, int64_t n,
                                      cudaStream_t stream) {
  constexpr int kFull = kFullWidth<T>;
  if (aligned(grad) && aligned(x) && aligned(target)) {
    launch(pointwise_backward<T, kFull, kTarget>, dim3(blocks_for(n, kFull)), kSumThreads, 0, stream, grad, x, target,
           content, relu, n);
  } else {
    launch(pointwise_backward<T, 1, kTarget>, dim3(blocks_for(n, 1)), kSumThreads, 0, stream, grad, x, target, content,
           relu, n);
  }
}

// `target` may be null, which omits its term.
template <typename T>
inline void launch_pointwise_backward(T* grad, const T* x, const T* target, double content, bool relu, int64_t n,
                                      cudaStream_t stream) {
  const auto c = static_cast<ComputeOf<T>>(content);
  if (n == 0) return;
  if (target) {
    launch_pointwise_backward<T, true>(grad, x, target, c, relu, n, stream);
  } else if (relu) {
    launch_pointwise_backward<T, false>(grad, x, target, c, relu, n, stream);
  }
}

}  // namespace fastnst::kernels
