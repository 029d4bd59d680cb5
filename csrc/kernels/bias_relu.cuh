// x = max(x + bias[c], 0) in place: a convolution's bias and the following ReLU, with one read and one write per value.
#pragma once

#include "device.cuh"

namespace fastnst::kernels {

constexpr int kBiasThreads = 256;
constexpr int kBiasPacksPerThread = 4;

// NaN is kept.
template <typename T>
__device__ __forceinline__ T bias_relu(T x, ComputeOf<T> bias) {
  const ComputeOf<T> sum = widen(x) + bias;
  T out;
  narrow(&out, sum <= 0 ? ComputeOf<T>(0) : sum);
  return out;
}

// Dense channels_last: `packs` packs of kWidth channels, `per_pixel` per pixel.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kBiasThreads)
    bias_relu_channels(T* __restrict__ x, const T* __restrict__ bias, int64_t packs, int per_pixel) {
  using P = Pack<T, kWidth>;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kBiasThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kBiasThreads + threadIdx.x;
  // The index of the pack within the pixel is updated incrementally: a division per pack would dominate the arithmetic.
  const int step = static_cast<int>(stride % per_pixel);
  int channel = static_cast<int>(first % per_pixel);
  begin_main_loop();
  for (int64_t i = first; i < packs; i += stride) {
    P values = reinterpret_cast<const P*>(x)[i];
    const P add = reinterpret_cast<const P*>(bias)[channel];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) values.values[k] = bias_relu(values.values[k], widen(add.values[k]));
    reinterpret_cast<P*>(x)[i] = values;
    channel += step;
    if (channel >= per_pixel) channel -= per_pixel;
  }
  end_main_loop();
}

// Each channel of each image is a row of n values with `parts` blocks. Rows may be unaligned: values before and after
// the aligned packs are processed one by one.
template <typename T>
__global__ void __launch_bounds__(kBiasThreads)
    bias_relu_rows(T* __restrict__ x, const T* __restrict__ bias, int channels, int64_t n, int64_t stride_b,
                   int64_t stride_c, int parts) {
  constexpr int kWidth = kFullWidth<T>;
  using P = Pack<T, kWidth>;
  const int64_t row = blockIdx.x / parts;
  const int part = blockIdx.x % parts, channel = static_cast<int>(row % channels);
  T* const start = x + row / channels * stride_b + channel * stride_c;
  const ComputeOf<T> add = widen(bias[channel]);
  const int before = static_cast<int>((16 - reinterpret_cast<uintptr_t>(start) % 16) % 16 / sizeof(T));
  const int64_t head = before < n ? before : n, packs = (n - head) / kWidth;
  P* const middle = reinterpret_cast<P*>(start + head);
  begin_main_loop();
  for (int64_t i = static_cast<int64_t>(part) * kBiasThreads + threadIdx.x; i < packs;
       i += static_cast<int64_t>(parts) * kBiasThreads) {
    P values = middle[i];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) values.values[k] = bias_relu(values.values[k], add);
    middle[i] = values;
  }
  end_main_loop();
  if (part != 0) return;
  const int64_t tail = head + packs * kWidth;
  if (threadIdx.x < head) start[threadIdx.x] = bias_relu(start[threadIdx.x], add);
  if (tail + threadIdx.x < n) start[tail + threadIdx.x] = bias_relu(start[tail + threadIdx.x], add);
}

// `pixels` dense pixels of `channels` values.
template <typename T>
inline void launch_bias_relu_channels(T* x, const T* bias, int64_t pixels, int channels, cudaStream_t stream) {
  constexpr int kFull = kFullWidth<T>;
  const bool full = channels % kFull == 0 && aligned(x) && aligned(bias);
  const int per_pixel = full ? channels / kFull : channels;
  const int64_t packs = pixels * per_pixel;
  const int64_t blocks = (packs + kBiasThreads * kBiasPacksPerThread - 1) / (kBiasThreads * kBiasPacksPerThread);
  if (packs == 0) return;
  const dim3 grid = grid_of(blocks);
  if (full)
    launch(bias_relu_channels<T, kFull>, grid, kBiasThreads, 0, stream, x, bias, packs, per_pixel);
  else
    launch(bias_relu_channels<T, 1>, grid, kBiasThreads, 0, stream, x, bias, packs, per_pixel);
}

// batch x channels rows of n contiguous values.
template <typename T>
inline void launch_bias_relu_rows(T* x, const T* bias, int64_t batch, int channels, int64_t n, int64_t stride_b,
                                  int64_t stride_c, cudaStream_t stream) {
  if (batch * channels * n == 0) return;
  const int64_t per_block = static_cast<int64_t>(kBiasThreads) * kFullWidth<T> * kBiasPacksPerThread;
  const int parts = static_cast<int>((n + per_block - 1) / per_block);
  launch(bias_relu_rows<T>, grid_of(batch * channels * parts), kBiasThreads, 0, stream, x, bias, channels, n, stride_b,
         stride_c, parts);
}

}  // namespace fastnst::kernels
