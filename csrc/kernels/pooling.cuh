// Pooling over 2 x 2 windows, stride 2, and its backward. An odd last row or column is dropped; its gradient is zero.
// Max pooling also writes one byte per window: 2 row + column of the first maximum, plus 4 unless it is above zero.
#pragma once

#include "device.cuh"

namespace fastnst::kernels {

enum class Pool { kMax, kAverage, kL2 };

constexpr int kPoolThreads = 128;
constexpr int kPoolPacksPerThread = 2;
constexpr double kL2Epsilon = 1e-8;

// B maps of C x H x W, the input of the pool.
struct PoolShape {
  int64_t batch = 0;
  int channels = 0, height = 0, width = 0;
};

// One window in row-major order.
template <Pool kKind, typename T>
__device__ __forceinline__ void pool_window(const T (&window)[4], T* y, uint8_t* place) {
  using C = ComputeOf<T>;
  C result = widen(window[0]);
  if constexpr (kKind == Pool::kMax) {
    int found = 0;
#pragma unroll
    for (int i = 1; i < 4; ++i) {
      const C value = widen(window[i]);
      if (value > result || value != value) {  // NaN is the largest, as in PyTorch
        result = value;
        found = i;
      }
    }
    *place = static_cast<uint8_t>(result > 0 ? found : found + 4);
  } else if constexpr (kKind == Pool::kAverage) {
#pragma unroll
    for (int i = 1; i < 4; ++i) result += widen(window[i]);
    result /= 4;
  } else {
    result *= result;
#pragma unroll
    for (int i = 1; i < 4; ++i) {
      const C value = widen(window[i]);
      result += value * value;
    }
    result = square_root(result / 4 + static_cast<C>(kL2Epsilon));
  }
  narrow(y, result);
}

// The gradient of one of the window's four values, x. With `relu` it is zero unless x is above zero.
template <Pool kKind, typename T>
__device__ __forceinline__ T pool_gradient(T grad, T x, T y, uint8_t place, int corner, bool relu) {
  using C = ComputeOf<T>;
  T out;
  if constexpr (kKind == Pool::kMax) {
    narrow(&out, (relu ? place : place & 3) == corner ? widen(grad) : C(0));
  } else if constexpr (kKind == Pool::kAverage) {
    narrow(&out, widen(grad) / 4);
  } else {
    narrow(&out, widen(grad) * widen(x) / (4 * widen(y)));
  }
  return out;
}

template <typename P, typename T>
__device__ __forceinline__ P load(const T* from) {
  return *reinterpret_cast<const P*>(from);
}

template <typename P, typename T>
__device__ __forceinline__ void store(T* to, const P& pack) {
  *reinterpret_cast<P*>(to) = pack;
}

// The range of packs of a block that is one of `parts` for `packs` packs; a thread processes every kPoolThreads-th.
struct Share {
  int first, end;
};
__device__ __forceinline__ Share share_of(int part, int packs) {
  constexpr int kPerBlock = kPoolThreads * kPoolPacksPerThread;
  const int begin = part * kPerBlock, end = packs - begin < kPerBlock ? packs : begin + kPerBlock;
  return {begin + static_cast<int>(threadIdx.x), end};
}

// channels_last: `parts` blocks per row of the output; each thread pools kWidth channels of one window.
template <Pool kKind, typename T, int kWidth>
__global__ void __launch_bounds__(kPoolThreads)
    pool_channels(const T* __restrict__ x, T* __restrict__ y, uint8_t* __restrict__ argmax, PoolShape shape,
                  int parts) {
  using P = Pack<T, kWidth>;
  const int height = shape.height / 2, width = shape.width / 2, per_pixel = shape.channels / kWidth;
  const int64_t row = blockIdx.x / parts, across = static_cast<int64_t>(shape.width) * shape.channels;
  const T* const top = x + (row / height * shape.height + row % height * 2) * across;
  const int64_t out = row * width * shape.channels;
  const Share share = share_of(blockIdx.x % parts, width * per_pixel);
  begin_main_loop();
  for (int i = share.first; i < share.end; i += kPoolThreads) {
    const int column = i / per_pixel, channel = (i - column * per_pixel) * kWidth;
    const T* const from = top + 2 * static_cast<int64_t>(column) * shape.channels + channel;
    const P a = load<P>(from), b = load<P>(from + shape.channels);
    const P c = load<P>(from + across), d = load<P>(from + across + shape.channels);
    P pooled;
    Pack<uint8_t, kWidth> place;
#pragma unroll
    for (int k = 0; k < kWidth; ++k)
      pool_window<kKind>({a.values[k], b.values[k], c.values[k], d.values[k]}, &pooled.values[k], &place.values[k]);
    const int64_t to = out + static_cast<int64_t>(i) * kWidth;
    store(y + to, pooled);
    if constexpr (kKind == Pool::kMax) store(argmax + to, place);
  }
  end_main_loop();
}

// One thread per kWidth channels of a window, including the partial windows of odd sizes: every value is written once.
template <Pool kKind, typename T, int kWidth>
__global__ void __launch_bounds__(kPoolThreads)
    pool_backward_channels(const T* __restrict__ grad, const T* __restrict__ x, const T* __restrict__ y,
                           const uint8_t* __restrict__ argmax, T* __restrict__ out, PoolShape shape, bool relu,
                           int parts) {
  using P = Pack<T, kWidth>;
  const int height = shape.height / 2, width = shape.width / 2, per_pixel = shape.channels / kWidth;
  const int windows = (shape.height + 1) / 2;
  const int64_t line = blockIdx.x / parts, across = static_cast<int64_t>(shape.width) * shape.channels;
  const int row = static_cast<int>(line % windows);
  const int64_t image = line / windows, top = (image * shape.height + 2 * row) * across;
  const int64_t pooled_row = (image * height + row) * width * shape.channels;
  const Share share = share_of(blockIdx.x % parts, (shape.width + 1) / 2 * per_pixel);
  begin_main_loop();
  for (int i = share.first; i < share.end; i += kPoolThreads) {
    const int column = i / per_pixel, channel = (i - column * per_pixel) * kWidth;
    const bool whole = row < height && column < width;
    const int64_t at = pooled_row + static_cast<int64_t>(i) * kWidth;
    P g{}, pooled{};
    Pack<uint8_t, kWidth> place{};
    if (whole) {
      g = load<P>(grad + at);
      if constexpr (kKind == Pool::kL2) pooled = load<P>(y + at);
      if constexpr (kKind == Pool::kMax) place = load<Pack<uint8_t, kWidth>>(argmax + at);
    }
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      if (2 * row + corner / 2 >= shape.height || 2 * column + corner % 2 >= shape.width) continue;
      const int64_t to =
          top + corner / 2 * across + (2 * static_cast<int64_t>(column) + corner % 2) * shape.channels + channel;
      P value{}, gradient;
      if constexpr (kKind == Pool::kL2)
        if (whole) value = load<P>(x + to);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        narrow(&gradient.values[k], ComputeOf<T>(0));
        if (whole)
          gradient.values[k] =
              pool_gradient<kKind>(g.values[k], value.values[k], pooled.values[k], place.values[k], corner, relu);
      }
      store(out + to, gradient);
    }
  }
  end_main_loop();
}

// Two values of a row for each of kWindows windows: one access if rows are aligned to packs, else one per value, with
// `right` telling whether the second value exists.
template <typename T, int kWindows, bool kPacked>
__device__ __forceinline__ Pack<T, 2 * kWindows> load_pairs(const T* from, bool right = true) {
  if constexpr (kPacked) {
    return load<Pack<T, 2 * kWindows>>(from);
  } else {
    return {from[0], right ? from[1] : from[0]};
  }
}

template <bool kPacked, typename T, int kValues>
__device__ __forceinline__ void store_pairs(T* to, const Pack<T, kValues>& pack, bool right) {
  if constexpr (kPacked) {
    store(to, pack);
  } else {
    to[0] = pack.values[0];
    if (right) to[1] = pack.values[1];
  }
}

// NCHW: `parts` blocks per channel of an image; each thread pools kWindows adjacent windows.
template <Pool kKind, typename T, int kWindows, bool kPacked>
__global__ void __launch_bounds__(kPoolThreads)
    pool_rows(const T* __restrict__ x, T* __restrict__ y, uint8_t* __restrict__ argmax, PoolShape shape, int parts) {
  const int height = shape.height / 2, width = shape.width / 2, per_row = width / kWindows;
  const int64_t plane = blockIdx.x / parts;
  const T* const map = x + plane * shape.height * shape.width;
  const int64_t out = plane * height * width;
  const Share share = share_of(blockIdx.x % parts, height * per_row);
  begin_main_loop();
  for (int i = share.first; i < share.end; i += kPoolThreads) {
    const int row = i / per_row, column = (i - row * per_row) * kWindows;
    const T* const from = map + 2 * static_cast<int64_t>(row) * shape.width + 2 * column;
    const auto above = load_pairs<T, kWindows, kPacked>(from);
    const auto below = load_pairs<T, kWindows, kPacked>(from + shape.width);
    Pack<T, kWindows> pooled;
    Pack<uint8_t, kWindows> place;
#pragma unroll
    for (int k = 0; k < kWindows; ++k)
      pool_window<kKind>({above.values[2 * k], above.values[2 * k + 1], below.values[2 * k], below.values[2 * k + 1]},
                         &pooled.values[k], &place.values[k]);
    const int64_t to = out + static_cast<int64_t>(row) * width + column;
    store(y + to, pooled);
    if constexpr (kKind == Pool::kMax) store(argmax + to, place);
  }
  end_main_loop();
}

template <Pool kKind, typename T, int kWindows, bool kPacked>
__global__ void __launch_bounds__(kPoolThreads)
    pool_backward_rows(const T* __restrict__ grad, const T* __restrict__ x, const T* __restrict__ y,
                       const uint8_t* __restrict__ argmax, T* __restrict__ out, PoolShape shape, bool relu, int parts) {
  const int height = shape.height / 2, width = shape.width / 2;
  const int per_row = (shape.width + 1) / 2 / kWindows;
  const int64_t plane = blockIdx.x / parts, map = plane * shape.height * shape.width;
  const int64_t pooled_map = plane * height * width;
  const Share share = share_of(blockIdx.x % parts, (shape.height + 1) / 2 * per_row);
  begin_main_loop();
  for (int i = share.first; i < share.end; i += kPoolThreads) {
    const int row = i / per_row, column = (i - row * per_row) * kWindows;
    const bool whole = row < height && column < width, right = 2 * column + 1 < shape.width;
    const int64_t at = pooled_map + static_cast<int64_t>(row) * width + column;
    Pack<T, kWindows> g{}, pooled{};
    Pack<uint8_t, kWindows> place{};
    if (whole) {
      g = load<Pack<T, kWindows>>(grad + at);
      if constexpr (kKind == Pool::kL2) pooled = load<Pack<T, kWindows>>(y + at);
      if constexpr (kKind == Pool::kMax) place = load<Pack<uint8_t, kWindows>>(argmax + at);
    }
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      if (2 * row + below >= shape.height) continue;
      const int64_t to = map + (2 * static_cast<int64_t>(row) + below) * shape.width + 2 * column;
      Pack<T, 2 * kWindows> value{}, gradient;
      if constexpr (kKind == Pool::kL2)
        if (whole) value = load_pairs<T, kWindows, kPacked>(x + to);
#pragma unroll
      for (int k = 0; k < 2 * kWindows; ++k) {
        narrow(&gradient.values[k], ComputeOf<T>(0));
        if (whole)
          gradient.values[k] = pool_gradient<kKind>(g.values[k / 2], value.values[k], pooled.values[k / 2],
                                                    place.values[k / 2], 2 * below + k % 2, relu);
      }
      store_pairs<kPacked>(out + to, gradient, right);
    }
  }
  end_main_loop();
}

inline int pool_parts(int64_t packs) {
  constexpr int kPerBlock = kPoolThreads * kPoolPacksPerThread;
  return static_cast<int>((packs + kPerBlock - 1) / kPerBlock);
}

// `argmax` is written for Pool::kMax only and may be null for other kinds. Memory is dense, all in one layout.
template <Pool kKind, typename T>
inline void launch_pool(const T* x, T* y, uint8_t* argmax, PoolShape shape, bool channels_last, cudaStream_t stream) {
  constexpr int kFull = kFullWidth<T>;
  const int64_t height = shape.height / 2, width = shape.width / 2;
  if (shape.batch * shape.channels * height * width == 0) return;
  const bool packed = aligned(x) && aligned(y) && aligned(argmax);
  const auto start = [&](auto kernel, int64_t lines, int64_t packs) {
    const int parts = pool_parts(packs);
    launch(kernel, grid_of(lines * parts), kPoolThreads, 0, stream, x, y, argmax, shape, parts);
  };
  if (channels_last) {
    if (packed && shape.channels % kFull == 0)
      start(pool_channels<kKind, T, kFull>, shape.batch * height, width * shape.channels / kFull);
    else
      start(pool_channels<kKind, T, 1>, shape.batch * height, width * shape.channels);
  } else if (packed && shape.width % kFull == 0) {
    start(pool_rows<kKind, T, kFull / 2, true>, shape.batch * shape.channels, height * width / (kFull / 2));
  } else {
    start(pool_rows<kKind, T, 1, false>, shape.batch * shape.channels, height * width);
  }
}

// `shape` is that of `out`. Pool::kMax reads grad and argmax, Pool::kL2 grad, x and y, Pool::kAverage grad only;
// the others may be null. `relu` applies to Pool::kMax only.
template <Pool kKind, typename T>
inline void launch_pool_backward(const T* grad, const T* x, const T* y, const uint8_t* argmax, T* out, PoolShape shape,
                                 bool relu, bool channels_last, cudaStream_t stream) {
  constexpr int kFull = kFullWidth<T>;
  const int64_t height = (shape.height + 1) / 2, width = (shape.width + 1) / 2;
  if (shape.batch * shape.channels * height * width == 0) return;
  const bool packed = aligned(grad) && aligned(x) && aligned(y) && aligned(argmax) && aligned(out);
  const auto start = [&](auto kernel, int64_t lines, int64_t packs) {
    const int parts = pool_parts(packs);
    launch(kernel, grid_of(lines * parts), kPoolThreads, 0, stream, grad, x, y, argmax, out, shape, relu, parts);
  };
  if (channels_last) {
    if (packed && shape.channels % kFull == 0)
      start(pool_backward_channels<kKind, T, kFull>, shape.batch * height, width * shape.channels / kFull);
    else
      start(pool_backward_channels<kKind, T, 1>, shape.batch * height, width * shape.channels);
  } else if (packed && shape.width % kFull == 0) {
    start(pool_backward_rows<kKind, T, kFull / 2, true>, shape.batch * shape.channels, height * width / (kFull / 2));
  } else {
    start(pool_backward_rows<kKind, T, 1, false>, shape.batch * shape.channels, height * width);
  }
}

}  // namespace fastnst::kernels
