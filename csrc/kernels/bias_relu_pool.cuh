// Bias, ReLU and pool in one pass, with the bits of bias_relu.cuh and of the pool after it.
#pragma once

#include "bias_relu.cuh"
#include "pooling.cuh"

namespace fastnst::kernels {

// channels_last: `parts` blocks per row of windows; each thread activates and pools kWidth channels of one window. With
// kKeep, activated values replace x, those outside of all windows too; otherwise x is only read.
template <Pool kKind, typename T, int kWidth, bool kKeep>
__global__ void __launch_bounds__(kPoolThreads)
    bias_relu_pool_channels(T* __restrict__ x, const T* __restrict__ bias, T* __restrict__ y,
                            uint8_t* __restrict__ argmax, PoolShape shape, int parts) {
  using P = Pack<T, kWidth>;
  const int height = shape.height / 2, width = shape.width / 2, per_pixel = shape.channels / kWidth;
  const int rows = kKeep ? (shape.height + 1) / 2 : height, columns = kKeep ? (shape.width + 1) / 2 : width;
  const int64_t line = blockIdx.x / parts, across = static_cast<int64_t>(shape.width) * shape.channels;
  const int row = static_cast<int>(line % rows);
  T* const top = x + (line / rows * shape.height + 2 * row) * across;
  const int64_t pooled_row = (line / rows * height + row) * width * shape.channels;
  const Share share = share_of(blockIdx.x % parts, columns * per_pixel);
  begin_main_loop();
  for (int i = share.first; i < share.end; i += kPoolThreads) {
    const int column = i / per_pixel, channel = (i - column * per_pixel) * kWidth;
    const bool right = !kKeep || 2 * column + 1 < shape.width, below = !kKeep || 2 * row + 1 < shape.height;
    const bool inside[4] = {true, right, below, right && below};
    T* const from = top + 2 * static_cast<int64_t>(column) * shape.channels + channel;
    const P add = load<P>(bias + channel);
    P values[4] = {};
#pragma unroll
    for (int corner = 0; corner < 4; ++corner)
      if (inside[corner]) values[corner] = load<P>(from + corner / 2 * across + corner % 2 * shape.channels);
#pragma unroll
    for (int corner = 0; corner < 4; ++corner)
#pragma unroll
      for (int k = 0; k < kWidth; ++k)
        values[corner].values[k] = bias_relu(values[corner].values[k], widen(add.values[k]));
    if constexpr (kKeep) {
#pragma unroll
      for (int corner = 0; corner < 4; ++corner)
        if (inside[corner]) store(from + corner / 2 * across + corner % 2 * shape.channels, values[corner]);
    }
    if (!inside[3]) continue;
    P pooled;
    Pack<uint8_t, kWidth> place;
#pragma unroll
    for (int k = 0; k < kWidth; ++k)
      pool_window<kKind>({values[0].values[k], values[1].values[k], values[2].values[k], values[3].values[k]},
                         &pooled.values[k], &place.values[k]);
    const int64_t to = pooled_row + static_cast<int64_t>(i) * kWidth;
    store(y + to, pooled);
    if constexpr (kKind == Pool::kMax) store(argmax + to, place);
  }
  end_main_loop();
}

// NCHW: `parts` blocks per channel of an image; each thread activates and pools kWindows adjacent windows.
template <Pool kKind, typename T, int kWindows, bool kPacked, bool kKeep>
__global__ void __launch_bounds__(kPoolThreads)
    bias_relu_pool_rows(T* __restrict__ x, const T* __restrict__ bias, T* __restrict__ y, uint8_t* __restrict__ argmax,
                        PoolShape shape, int parts) {
  const int height = shape.height / 2, width = shape.width / 2;
  const int rows = kKeep ? (shape.height + 1) / 2 : height;
  const int per_row = (kKeep ? (shape.width + 1) / 2 : width) / kWindows;
  const int64_t plane = blockIdx.x / parts;
  T* const map = x + plane * shape.height * shape.width;
  const int64_t out = plane * height * width;
  const ComputeOf<T> add = widen(bias[plane % shape.channels]);
  const Share share = share_of(blockIdx.x % parts, rows * per_row);
  begin_main_loop();
  for (int i = share.first; i < share.end; i += kPoolThreads) {
    const int row = i / per_row, column = (i - row * per_row) * kWindows;
    const bool right = !kKeep || 2 * column + 1 < shape.width, below = !kKeep || 2 * row + 1 < shape.height;
    T* const from = map + 2 * static_cast<int64_t>(row) * shape.width + 2 * column;
    Pack<T, 2 * kWindows> lines[2] = {};
    lines[0] = load_pairs<T, kWindows, kPacked>(from, right);
    if (below) lines[1] = load_pairs<T, kWindows, kPacked>(from + shape.width, right);
#pragma unroll
    for (int line = 0; line < 2; ++line)
#pragma unroll
      for (int k = 0; k < 2 * kWindows; ++k) lines[line].values[k] = bias_relu(lines[line].values[k], add);
    if constexpr (kKeep) {
      store_pairs<kPacked>(from, lines[0], right);
      if (below) store_pairs<kPacked>(from + shape.width, lines[1], right);
    }
    if (!right || !below) continue;
    Pack<T, kWindows> pooled;
    Pack<uint8_t, kWindows> place;
#pragma unroll
    for (int k = 0; k < kWindows; ++k)
      pool_window<kKind>(
          {lines[0].values[2 * k], lines[0].values[2 * k + 1], lines[1].values[2 * k], lines[1].values[2 * k + 1]},
          &pooled.values[k], &place.values[k]);
    const int64_t to = out + static_cast<int64_t>(row) * width + column;
    store(y + to, pooled);
    if constexpr (kKind == Pool::kMax) store(argmax + to, place);
  }
  end_main_loop();
}

// bias_relu_ and pool of the result; `shape` is that of x. With `keep` the activated map replaces x.
template <Pool kKind, bool kKeep, typename T>
inline void launch_bias_relu_pool(T* x, const T* bias, T* y, uint8_t* argmax, PoolShape shape, bool channels_last,
                                  cudaStream_t stream) {
  constexpr int kFull = kFullWidth<T>;
  const int64_t height = (shape.height + kKeep) / 2, width = (shape.width + kKeep) / 2;
  if (shape.batch * shape.channels * height * width == 0) return;
  const bool packed = aligned(x) && aligned(y) && aligned(argmax);
  const auto start = [&](auto kernel, int64_t lines, int64_t packs) {
    const int parts = pool_parts(packs);
    launch(kernel, grid_of(lines * parts), kPoolThreads, 0, stream, x, bias, y, argmax, shape, parts);
  };
  if (channels_last) {
    if (packed && aligned(bias) && shape.channels % kFull == 0)
      start(bias_relu_pool_channels<kKind, T, kFull, kKeep>, shape.batch * height, width * shape.channels / kFull);
    else
      start(bias_relu_pool_channels<kKind, T, 1, kKeep>, shape.batch * height, width * shape.channels);
  } else if (packed && shape.width % kFull == 0) {
    start(bias_relu_pool_rows<kKind, T, kFull / 2, true, kKeep>, shape.batch * shape.channels,
          height * width / (kFull / 2));
  } else {
    start(bias_relu_pool_rows<kKind, T, 1, false, kKeep>, shape.batch * shape.channels, height * width);
  }
}

template <Pool kKind, typename T>
inline void launch_bias_relu_pool(T* x, const T* bias, T* y, uint8_t* argmax, PoolShape shape, bool keep,
                                  bool channels_last, cudaStream_t stream) {
  if (keep)
    launch_bias_relu_pool<kKind, true, T>(x, bias, y, argmax, shape, channels_last, stream);
  else
    launch_bias_relu_pool<kKind, false, T>(x, bias, y, argmax, shape, channels_last, stream);
}

}  // namespace fastnst::kernels
