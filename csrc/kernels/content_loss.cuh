// content_loss and its backward: one pass each, 16-byte accesses, no dependence on the order in which blocks finish.
// Free of torch: raw pointers and a stream.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace fastnst::kernels {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
// Enough blocks to fill any card, few enough that one block adds up their sums.
constexpr int kMostBlocks = 1024;
constexpr int kVectorsPerThread = 4;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ __forceinline__ void narrow(float* out, float x) { *out = x; }
__device__ __forceinline__ void narrow(double* out, double x) { *out = x; }
__device__ __forceinline__ void narrow(__half* out, float x) { *out = __float2half_rn(x); }
__device__ __forceinline__ void narrow(__nv_bfloat16* out, float x) { *out = __float2bfloat16_rn(x); }

template <typename T>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};

// kWidth values read or written at once: 16 bytes where the pointers allow it, one value where they do not.
template <typename T, int kWidth>
struct alignas(kWidth * sizeof(T)) Pack {
  T values[kWidth];
};

template <typename T>
constexpr int kFullWidth = 16 / static_cast<int>(sizeof(T));

// The sum over a block, in a fixed order; valid in thread 0.
__device__ __forceinline__ double block_sum(double value) {
  __shared__ double warps[kThreads / kWarp];
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  double total = 0;
  if (threadIdx.x == 0)
    for (int i = 0; i < kThreads / kWarp; ++i) total += warps[i];
  __syncthreads();
  return total;
}

// out = sum (x - y)^2. Each block leaves its sum in `partial`; the last block to finish, told by `counter` (zero before
// and after), adds them in the order of the blocks.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    squared_difference(const T* __restrict__ x, const T* __restrict__ y, int64_t n, double* __restrict__ partial,
                       unsigned* __restrict__ counter, typename Compute<T>::type* __restrict__ out) {
  using C = typename Compute<T>::type;
  using P = Pack<T, kWidth>;
  const int64_t packs = n / kWidth, stride = static_cast<int64_t>(gridDim.x) * kThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  double sum = 0;
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
  for (int64_t i = packs * kWidth + first; i < n; i += stride) {
    const C d = widen(x[i]) - widen(y[i]);
    sum += d * d;
  }
  sum = block_sum(sum);
  __shared__ bool last;
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
    __threadfence();
    last = atomicAdd(counter, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  double total = 0;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += kThreads) total += static_cast<volatile double*>(partial)[i];
  total = block_sum(total);
  if (threadIdx.x == 0) {
    *out = static_cast<C>(total);
    *counter = 0;
  }
}

// out = 2 g (x - y)
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    scaled_difference(const typename Compute<T>::type* __restrict__ grad, const T* __restrict__ x,
                      const T* __restrict__ y, T* __restrict__ out, int64_t n) {
  using C = typename Compute<T>::type;
  using P = Pack<T, kWidth>;
  const C factor = 2 * *grad;
  const int64_t packs = n / kWidth, stride = static_cast<int64_t>(gridDim.x) * kThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (int64_t i = first; i < packs; i += stride) {
    const P a = reinterpret_cast<const P*>(x)[i], b = reinterpret_cast<const P*>(y)[i];
    P to;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) narrow(&to.values[k], factor * (widen(a.values[k]) - widen(b.values[k])));
    reinterpret_cast<P*>(out)[i] = to;
  }
  for (int64_t i = packs * kWidth + first; i < n; i += stride) narrow(out + i, factor * (widen(x[i]) - widen(y[i])));
}

// Blocks for n elements: a function of n alone, so that a result does not depend on the card's size.
inline int blocks_for(int64_t n, int width) {
  const int64_t per_block = static_cast<int64_t>(kThreads) * width * kVectorsPerThread;
  const int64_t blocks = (n + per_block - 1) / per_block;
  return static_cast<int>(blocks < 1 ? 1 : blocks > kMostBlocks ? kMostBlocks : blocks);
}

inline bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// `partial` holds kMostBlocks values; `counter` is zero.
template <typename T>
inline void launch_squared_difference(const T* x, const T* y, int64_t n, double* partial, unsigned* counter,
                                      typename Compute<T>::type* out, cudaStream_t stream) {
  if (aligned(x) && aligned(y)) {
    squared_difference<T, kFullWidth<T>>
        <<<blocks_for(n, kFullWidth<T>), kThreads, 0, stream>>>(x, y, n, partial, counter, out);
  } else {
    squared_difference<T, 1><<<blocks_for(n, 1), kThreads, 0, stream>>>(x, y, n, partial, counter, out);
  }
}

template <typename T>
inline void launch_scaled_difference(const typename Compute<T>::type* grad, const T* x, const T* y, T* out, int64_t n,
                                     cudaStream_t stream) {
  if (aligned(x) && aligned(y) && aligned(out)) {
    scaled_difference<T, kFullWidth<T>><<<blocks_for(n, kFullWidth<T>), kThreads, 0, stream>>>(grad, x, y, out, n);
  } else {
    scaled_difference<T, 1><<<blocks_for(n, 1), kThreads, 0, stream>>>(grad, x, y, out, n);
  }
}

}  // namespace fastnst::kernels
