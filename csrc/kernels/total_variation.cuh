// Total variation of images [B, C, H, W] with any strides, and its backward. With the differences r and d to the right
// and lower neighbor (zero at the border), a pixel contributes |r| + |d|, sqrt(r^2 + d^2) or r^2 + d^2. The subgradient
// at a zero difference is zero.
//
// A warp iterates over the rows of a band, each lane with its own columns, and keeps the previous row in registers. A
// value is read from memory once, and again from cache only at the borders of bands and warps. Values to the left and
// right come from neighboring lanes.
#pragma once

#include <cmath>
#include <type_traits>

#include "total.cuh"

namespace fastnst::kernels {

enum class Variation { kAnisotropic, kIsotropic, kSquared };

struct ImageStrides {
  int64_t b, c, h, w;
};

// Images as lines: rows of one channel (step 1), or, where channels are the inner axis, rows of all channels (step C).
// The right neighbor of an element of a line is `step` elements further.
struct ImageLines {
  int64_t planes, planes_per_image, height, length, step;
  int rows;  // of a band
};

template <Variation kind, typename C>
__device__ __forceinline__ C pixel_variation(C right, C down) {
  if constexpr (kind == Variation::kAnisotropic) return std::fabs(right) + std::fabs(down);
  if constexpr (kind == Variation::kSquared) return right * right + down * down;
  return std::sqrt(right * right + down * down);
}

template <typename C>
struct Derivatives {
  C right, down;
};

// The derivatives of a pixel's variation with respect to its two differences.
template <Variation kind, typename C>
__device__ __forceinline__ Derivatives<C> derivatives(C right, C down) {
  if constexpr (kind == Variation::kAnisotropic)
    return {static_cast<C>((right > 0) - (right < 0)), static_cast<C>((down > 0) - (down < 0))};
  if constexpr (kind == Variation::kSquared) return {2 * right, 2 * down};
  const C length = std::sqrt(right * right + down * down);
  if (length == 0) return {0, 0};  // NaN is kept
  return {right / length, down / length};
}

// The part of a line that one lane holds: kStep values to the left, its own kWidth, kStep to the right.
template <typename C, int kWidth, int kStep>
struct LinePart {
  C values[kWidth + 2 * kStep];
};

// The columns of one lane. With kWidth 1 elements may have any stride; otherwise a line is dense, starts at a multiple
// of 16 bytes, and its length is a multiple of kWidth.
template <typename T, int kWidth, int kStep>
struct Columns {
  using C = ComputeOf<T>;
  int64_t first, length, to_right;  // to_right: from an element to its right neighbor in memory
  int from, to;                     // the values of a LinePart that have a right neighbor

  __device__ Columns(int64_t first, const ImageLines& lines, int64_t to_right)
      : first(first), length(lines.length), to_right(to_right), from(first >= lines.step ? 0 : kStep) {
    const int64_t left = lines.length - lines.step - first;
    to = kStep + static_cast<int>(left < 0 ? 0 : left < kWidth ? left : kWidth);
  }

  __device__ bool inside() const { return first < length; }
  __device__ bool has_right(int k) const { return k >= from && k < to; }

  // `row` points to the first own value; all lanes of a warp must call it. Values outside the line are zero.
  template <bool kLeft>
  __device__ LinePart<C, kWidth, kStep> load(const T* row) const {
    LinePart<C, kWidth, kStep> part = {};
    C* own = part.values + kStep;
    if constexpr (kWidth == 1) {
      if (!inside()) return part;
      own[0] = widen(row[0]);
      if (has_right(1)) own[1] = widen(row[to_right]);
      if (kLeft && has_right(0)) own[-1] = widen(row[-to_right]);
    } else {
      const int lane = threadIdx.x % kWarp;
      if (inside()) {
        const auto pack = *reinterpret_cast<const Pack<T, kWidth>*>(row);
#pragma unroll
        for (int k = 0; k < kWidth; ++k) own[k] = widen(pack.values[k]);
      }
#pragma unroll
      for (int k = 0; k < kStep; ++k) {
        own[kWidth + k] = __shfl_down_sync(kEveryLane, own[k], 1);
        if (kLeft) own[k - kStep] = __shfl_up_sync(kEveryLane, own[kWidth - kStep + k], 1);
      }
      if (lane == kWarp - 1 && first + kWidth < length)
#pragma unroll
        for (int k = 0; k < kStep; ++k) own[kWidth + k] = widen(row[kWidth + k]);
      if (kLeft && lane == 0 && first > 0)
#pragma unroll
        for (int k = 0; k < kStep; ++k) own[k - kStep] = widen(row[k - kStep]);
    }
    return part;
  }
};

// Lines are divided into chunks of a warp's width and bands of rows; a unit is a chunk of a band.
template <int kWidth>
__host__ __device__ inline int64_t chunks_of(const ImageLines& lines) {
  return (lines.length + kWarp * kWidth - 1) / (kWarp * kWidth);
}

template <int kWidth>
__host__ __device__ inline int64_t units_of(const ImageLines& lines) {
  return lines.planes * ((lines.height + lines.rows - 1) / lines.rows) * chunks_of<kWidth>(lines);
}

// The work of one warp: a band of rows of one plane and, per lane, kWidth columns.
template <typename T, int kWidth, int kStep>
struct Band {
  Columns<T, kWidth, kStep> columns;
  int64_t begin, end, plane, pixel, channel;

  __device__ Band(const ImageLines& lines, const ImageStrides& x, int64_t unit)
      : columns(unit % chunks_of<kWidth>(lines) * (kWarp * kWidth) + threadIdx.x % kWarp * kWidth, lines, x.w) {
    const int64_t chunks = chunks_of<kWidth>(lines);
    const int64_t bands = (lines.height + lines.rows - 1) / lines.rows;
    begin = unit / chunks % bands * lines.rows;
    end = begin + lines.rows < lines.height ? begin + lines.rows : lines.height;
    plane = unit / chunks / bands;
    pixel = columns.first / lines.step;
    channel = columns.first % lines.step;
  }

  // The offset of the first own value of row 0 from the start of the images.
  __device__ int64_t offset(const ImageLines& lines, const ImageStrides& s) const {
    const int64_t c = plane % lines.planes_per_image + channel;
    return plane / lines.planes_per_image * s.b + c * s.c + pixel * s.w;
  }
};

constexpr int kWarpsPerBlock = kSumThreads / kWarp;

template <typename T, int kWidth, int kStep, Variation kind>
__global__ void __launch_bounds__(kSumThreads, 2)
    sum_of_variation(const T* __restrict__ x, ImageLines lines, ImageStrides strides, double* partial) {
  using C = ComputeOf<T>;
  constexpr int kAhead = kWidth == 8 ? 2 : 4;  // rows with loads in flight: as many as registers allow
  const int64_t units = units_of<kWidth>(lines), warps = static_cast<int64_t>(gridDim.x) * kWarpsPerBlock;
  double sum = 0;
  for (int64_t unit = blockIdx.x * static_cast<int64_t>(kWarpsPerBlock) + threadIdx.x / kWarp; unit < units;
       unit += warps) {
    const Band<T, kWidth, kStep> band(lines, strides, unit);
    const T* row = x + band.offset(lines, strides) + band.begin * strides.h;
    begin_main_loop();
    auto here = band.columns.template load<false>(row);
#pragma unroll kAhead
    for (int64_t i = band.begin; i < band.end; ++i) {
      const bool has_down = i + 1 < lines.height;
      if (has_down) row += strides.h;
      const auto below = band.columns.template load<false>(row);
      C part = 0;
#pragma unroll
      for (int k = kStep; k < kStep + kWidth; ++k) {
        const C right = band.columns.has_right(k) ? here.values[k + kStep] - here.values[k] : C(0);
        const C down = has_down ? below.values[k] - here.values[k] : C(0);
        part += pixel_variation<kind>(right, down);
      }
      if (band.columns.inside()) sum += part;
      here = below;
    }
    end_main_loop();
  }
  add_up(sum, partial);
}

// out = g dTV/dx, by gathering: a pixel's two differences, that of its left and that of its upper neighbor.
template <typename T, int kWidth, int kStep, Variation kind>
__global__ void __launch_bounds__(kSumThreads, 2)
    gradient_of_variation(const ComputeOf<T>* __restrict__ grad, const T* __restrict__ x, T* __restrict__ out,
                          ImageLines lines, ImageStrides strides, ImageStrides out_strides) {
  using C = ComputeOf<T>;
  const C factor = *grad;
  const int64_t units = units_of<kWidth>(lines), warps = static_cast<int64_t>(gridDim.x) * kWarpsPerBlock;
  for (int64_t unit = blockIdx.x * static_cast<int64_t>(kWarpsPerBlock) + threadIdx.x / kWarp; unit < units;
       unit += warps) {
    const Band<T, kWidth, kStep> band(lines, strides, unit);
    const auto& columns = band.columns;
    const T* row = x + band.offset(lines, strides) + band.begin * strides.h;
    T* to = out + band.offset(lines, out_strides) + band.begin * out_strides.h;
    begin_main_loop();
    auto here = columns.template load<true>(row);
    C above[kWidth] = {};  // derivatives of the upper neighbors' down differences
    if (band.begin > 0) {
      const auto upper = columns.template load<false>(row - strides.h);
#pragma unroll
      for (int k = kStep; k < kStep + kWidth; ++k) {
        const C right = columns.has_right(k) ? upper.values[k + kStep] - upper.values[k] : C(0);
        above[k - kStep] = derivatives<kind>(right, here.values[k] - upper.values[k]).down;
      }
    }
#pragma unroll 2
    for (int64_t i = band.begin; i < band.end; ++i) {
      const bool has_down = i + 1 < lines.height;
      if (has_down) row += strides.h;
      const auto below = columns.template load<true>(row);
      C along[kStep + kWidth];  // derivatives of the right differences, starting at the left neighbors
      C result[kWidth];
#pragma unroll
      for (int k = 0; k < kStep + kWidth; ++k) {
        const C right = columns.has_right(k) ? here.values[k + kStep] - here.values[k] : C(0);
        const C down = has_down ? below.values[k] - here.values[k] : C(0);
        const Derivatives<C> derivative = derivatives<kind>(right, down);
        along[k] = columns.has_right(k) ? derivative.right : C(0);
        if (k < kStep) continue;
        result[k - kStep] = factor * (-derivative.right - derivative.down + along[k - kStep] + above[k - kStep]);
        above[k - kStep] = derivative.down;
      }
      if (columns.inside()) {
        Pack<T, kWidth> pack;
#pragma unroll
        for (int k = 0; k < kWidth; ++k) narrow(&pack.values[k], result[k]);
        *reinterpret_cast<Pack<T, kWidth>*>(to) = pack;
      }
      to += out_strides.h;
      here = below;
    }
    end_main_loop();
  }
}

// Bands of 16 rows read 1/16 of the image twice; shorter bands if there are too few to occupy a large GPU.
template <int kWidth>
inline void choose_rows(ImageLines& lines) {
  constexpr int64_t kEnoughWarps = 2048;
  for (lines.rows = 16; lines.rows > 4 && units_of<kWidth>(lines) < kEnoughWarps;) lines.rows /= 2;
}

// A function of the shape only, so that a sum does not depend on the GPU.
template <int kWidth>
inline dim3 variation_grid(const ImageLines& lines) {
  const int64_t blocks = (units_of<kWidth>(lines) + kWarpsPerBlock - 1) / kWarpsPerBlock;
  return grid_of(blocks < 1 ? 1 : blocks > kMaxBlocks ? kMaxBlocks : blocks);
}

struct ImageShape {
  int64_t b, c, h, w;
};

// Lines of all channels if the stride of channels is smaller than that of columns.
inline ImageLines lines_of(const ImageShape& shape, const ImageStrides& strides) {
  const bool together = shape.c > 1 && strides.c < strides.w;
  const int64_t step = together ? shape.c : 1, planes_per_image = together ? 1 : shape.c;
  return {shape.b * planes_per_image, planes_per_image, shape.h, shape.w * step, step, 0};
}

// Whether every line consists of aligned packs of 16 bytes.
template <typename T>
inline bool in_packs(const void* data, const ImageLines& lines, const ImageStrides& s) {
  constexpr int kFull = kFullWidth<T>;
  return aligned(data) && s.w == lines.step && (lines.step == 1 || s.c == 1) && lines.length % kFull == 0 &&
         s.h % kFull == 0 && s.b % kFull == 0 && (lines.step > 1 || s.c % kFull == 0);
}

template <int width, int step>
struct Packing {
  static constexpr int kWidth = width, kStep = step;
};

// Calls f with the widest possible Packing; interleaved images have three channels.
template <typename T, typename F>
inline void with_packing(const ImageLines& lines, bool packs, const F& f) {
  if (packs && lines.step == 1) return f(Packing<kFullWidth<T>, 1>{});
  if constexpr (kFullWidth<T> >= 3)
    if (packs && lines.step == 3) return f(Packing<kFullWidth<T>, 3>{});
  f(Packing<1, 1>{});
}

// Calls f with the kind as a compile-time constant.
template <typename F>
inline void with_variation(Variation kind, const F& f) {
  switch (kind) {
    case Variation::kAnisotropic:
      return f(std::integral_constant<Variation, Variation::kAnisotropic>{});
    case Variation::kIsotropic:
      return f(std::integral_constant<Variation, Variation::kIsotropic>{});
    case Variation::kSquared:
      return f(std::integral_constant<Variation, Variation::kSquared>{});
  }
}

// `partial` holds kMaxBlocks values; returns how many are written, which launch_sum_of_blocks adds.
template <typename T>
inline int launch_total_variation(Variation kind, const T* x, const ImageShape& shape, const ImageStrides& strides,
                                  double* partial, cudaStream_t stream) {
  ImageLines lines = lines_of(shape, strides);
  dim3 grid;
  with_packing<T>(lines, in_packs<T>(x, lines, strides), [&](auto packing) {
    using W = decltype(packing);
    choose_rows<W::kWidth>(lines);
    grid = variation_grid<W::kWidth>(lines);
    with_variation(kind, [&](auto of) {
      launch(sum_of_variation<T, W::kWidth, W::kStep, decltype(of)::value>, grid, kSumThreads, 0, stream, x, lines,
             strides, partial);
    });
  });
  return static_cast<int>(grid.x);
}

// `out` has the shape of x and its own strides.
template <typename T>
inline void launch_total_variation_backward(Variation kind, const ComputeOf<T>* grad, const T* x, T* out,
                                            const ImageShape& shape, const ImageStrides& strides,
                                            const ImageStrides& out_strides, cudaStream_t stream) {
  ImageLines lines = lines_of(shape, strides);
  with_packing<T>(lines, in_packs<T>(x, lines, strides) && in_packs<T>(out, lines, out_strides), [&](auto packing) {
    using W = decltype(packing);
    choose_rows<W::kWidth>(lines);
    if (units_of<W::kWidth>(lines) == 0) return;
    with_variation(kind, [&](auto of) {
      launch(gradient_of_variation<T, W::kWidth, W::kStep, decltype(of)::value>, variation_grid<W::kWidth>(lines),
             kSumThreads, 0, stream, grad, x, out, lines, strides, out_strides);
    });
  });
}

}  // namespace fastnst::kernels
