// The copies of the Gram kernel from features to shared memory.
#pragma once

#include "fragments.cuh"

namespace fastnst::kernels {

constexpr int kGramWarps = 8;
constexpr int kGramThreads = kGramWarps * kWarp;
constexpr int kStagePanels = 8;
constexpr int kPanelBytes = 4096;
constexpr int kStageBytes = kStagePanels * kPanelBytes;
// Whether half precision and plain tf32 multiply two chunks at once, and copies of partial stages are unrolled. For
// later architectures the compiler then runs out of registers.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr bool kManyRegisters = false;
#else
constexpr bool kManyRegisters = true;
#endif

// The copies of one thread: eight pieces of 16 bytes of every stage. In NCHW they have one position and every `step`-th
// channel, in channels_last one channel and every `step`-th position. With a bias, the thread replaces its pieces by
// max(x + bias, 0) and writes them to `activated`. opaque() keeps the compiler from computing again, for every stage,
// what all stages share.
template <typename T, Load kLoad, bool kBias>
struct Pieces {
  using P = Panel<T, kLoad>;
  using Values = Pack<T, kFullWidth<T>>;
  static constexpr bool kRowwise = kLoad == Load::kRows;
  static constexpr int kCount = kStageBytes / 16 / kGramThreads;

  int step, channel, position;  // of the first piece, within the stage
  int place0, apart[3];         // the place of the first piece, and of pieces 1, 2 and 4 relative to it
  int64_t low, high;            // channels of the map that are channel 0 of the stage, for its two halves
  int64_t stride, jump;         // in the map: to the next piece, and also from the first half of channels to the second
  unsigned valid = 0;           // a bit for each piece whose channel exists
  float shift[kBias ? (kRowwise ? kCount : kFullWidth<T>) : 1];

  // The stage has 1 << log_units units per chunk. Its first two units start at channel row0, others at column0.
  __device__ __forceinline__ Pieces(const FeatureMap<T>& x, int log_units, int64_t row0, int64_t column0) {
    // Consecutive threads copy consecutive pieces of a row of the map. In NCHW every second four take the next channel
    // instead, because the panels of neighboring chunks would be in the same banks.
    const int log_row = kRowwise ? 5 - log_units : log_units + (sizeof(T) == 4 ? 4 : 3);
    const unsigned e = threadIdx.x, row_mask = (1u << log_row) - 1;
    const int inner = static_cast<int>(kRowwise ? (e & 3) | (e >> 1 & row_mask & ~3u) : e & row_mask) * P::kWidth;
    const int outer = static_cast<int>(kRowwise ? (e >> 2 & 1) | e >> (log_row + 1) << 1 : e >> log_row);
    step = kGramThreads >> log_row;
    channel = kRowwise ? outer : inner;
    position = kRowwise ? inner : outer;
    low = row0;
    high = log_units == 2 ? column0 - 2 * kUnit : row0;
#pragma unroll
    for (int i = 0; i < kCount; ++i) valid |= (channel_of(i) < x.channels ? 1u : 0u) << i;
    valid = static_cast<unsigned>(opaque(static_cast<int>(valid)));
    const int chunk = (position / kChunk<T> << log_units) * P::kValues, n = position % kChunk<T>;
    place0 = opaque(kRowwise ? chunk + channel * kChunk<T> + n  // panels of a chunk are contiguous
                             : chunk + channel / kUnit * P::kValues + P::place(channel % kUnit, n));
#pragma unroll
    for (int k = 0; k < 3; ++k) {
      const int further = step << k;
      apart[k] = opaque(kRowwise ? further * kChunk<T>
                                 : (further / kChunk<T> << log_units) * P::kValues + further % kChunk<T> * kUnit);
    }
    stride = step * (kRowwise ? x.stride_c : x.stride_n);
    jump = (high - low) * x.stride_c;
  }

  // The channel of piece i in the map, and its position relative to the start of the stage.
  __device__ __forceinline__ int64_t channel_of(int i) const {
    if (kRowwise) return (i < kCount / 2 ? low : high) + channel + i * step;
    return (channel < 2 * kUnit ? low : high) + channel;
  }
  __device__ __forceinline__ int position_of(int i) const { return kRowwise ? position : position + i * step; }

  __device__ __forceinline__ int64_t offset(const FeatureMap<T>& x, int i, int64_t start) const {
    return channel_of(i) * x.stride_c + (start + position_of(i)) * x.stride_n;
  }
  // The place of piece i. Only that of piece 0 depends on the thread: it is one of the first `step` channels or
  // positions, which is a power of two.
  __device__ __forceinline__ int place(int i) const {
    return place0 + (i & 1 ? apart[0] : 0) + (i & 2 ? apart[1] : 0) + (i & 4 ? apart[2] : 0);
  }
  // Whether piece i is in the map, for a stage that has so many positions in it.
  __device__ __forceinline__ bool inside(int i, int count) const { return (valid >> i & 1) && position_of(i) < count; }

  __device__ __forceinline__ void load_bias(const T* bias, int64_t channels) {
#pragma unroll
    for (int k = 0; k < (kRowwise ? kCount : kFullWidth<T>); ++k) {
      const int64_t c = kRowwise ? channel_of(k) : channel_of(0) + k;
      shift[kBias ? k : 0] = c < channels ? widen(bias[c]) : 0.f;
    }
  }

  // Copies a stage of `count` positions, of which piece 0 is at `from`. `whole`: the map has all of them, the usual
  // case, which needs no tests.
  __device__ __forceinline__ void copy(const FeatureMap<T>& x, const T* from, T* stage, int count, bool whole) const {
    if (whole && valid == (1u << kCount) - 1)
      copy_pieces<true>(x, from, stage, count);
    else
      copy_pieces<false>(x, from, stage, count);
  }

  template <bool kWhole>
  __device__ __forceinline__ void copy_pieces(const FeatureMap<T>& x, const T* from, T* stage, int count) const {
#pragma unroll(kWhole || kManyRegisters ? kCount : 1)
    for (int i = 0; i < kCount; ++i) {
      if (kRowwise && i == kCount / 2) from += jump;
      const bool in = kWhole || inside(i, count);
      copy_async(stage + place(i), in ? from : x.data, in);
      from += stride;
    }
  }

  __device__ __forceinline__ void activate(const FeatureMap<T>& x, T* image, T* stage, int64_t start, int count) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i % 2 == 0 && never(count, i)) break;
      if (!inside(i, count)) continue;
      Values* held = reinterpret_cast<Values*>(stage + place(i));
      Values values = *held;
#pragma unroll
      for (int k = 0; k < kFullWidth<T>; ++k) {
        const float sum = widen(values.values[k]) + shift[kRowwise ? i : k];
        narrow(&values.values[k], sum <= 0 ? 0.f : sum);  // NaN is kept
      }
      *held = values;
      *reinterpret_cast<Values*>(image + offset(x, i, start)) = values;
    }
  }
};

}  // namespace fastnst::kernels
