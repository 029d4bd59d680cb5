// gram, moments and style_loss: selection of the kernel for a feature map, its partition, and the launch.
#pragma once

#include "gram_mma.cuh"
#include "gram_simt.cuh"

namespace fastnst::kernels {

// Capabilities of the device.
struct Card {
  bool tf32;  // also bfloat16: sm_80 and later
};

enum class GramPath { kRows, kChannels, kSimt };

// Whether all 16-byte reads along `inner` are aligned: its extent and the other strides are multiples of 16 bytes.
template <typename T>
bool sixteen_bytes(const FeatureMap<T>& x, int64_t inner, int64_t extent, int64_t outer, int64_t outer_extent) {
  constexpr int64_t kWidth = kFullWidth<T>;
  return sizeof(T) <= 4 && inner == 1 && extent % kWidth == 0 && (outer_extent == 1 || outer % kWidth == 0) &&
         (x.batch == 1 || x.stride_b % kWidth == 0) && aligned(x.data);
}

template <typename T>
GramPath gram_path(const FeatureMap<T>& x, bool weighted, const Card& card) {
  const bool half = sizeof(T) == 2;
  if (sizeof(T) > 4 || (half && weighted)) return GramPath::kSimt;
  if (!card.tf32 && !std::is_same<T, __half>::value) return GramPath::kSimt;
  if (sixteen_bytes(x, x.stride_n, x.positions, x.stride_c, x.channels)) return GramPath::kRows;
  if (sixteen_bytes(x, x.stride_c, x.channels, x.stride_n, x.positions)) return GramPath::kChannels;
  return GramPath::kSimt;
}

// `splits` of zero: chosen by the shape.
template <typename T>
GramPlan gram_plan(const FeatureMap<T>& x, GramPath path, int splits = 0) {
  GramPlan plan{};
  plan.batch = x.batch;
  const int64_t units = (x.channels + kUnit - 1) / kUnit;
  const int64_t least =
      8 * kUnit;  // positions per block at least, so that partial sums are small compared with the features
  int64_t step;   // granularity of positions per block
  if (path == GramPath::kSimt) {
    plan.tiles = static_cast<int>(units * (units + 1) / 2);
    plan.units = 1;
    step = kDepth;
  } else if (one_unit(x.channels)) {
    plan.tiles = 1;
    plan.units = 1;
    step = kSpan * kChunk<T>;
  } else {
    const int64_t pairs = (units + 1) / 2;
    plan.tiles = static_cast<int>(pairs * pairs);
    plan.units = 3;
    step = kSpan * kChunk<T>;
  }
  const int64_t steps = (x.positions + step - 1) / step;
  const int64_t most = kMaxGramBlocks / (plan.tiles * (x.batch > 0 ? x.batch : 1));
  int64_t wanted = x.positions / least;
  if (wanted > most) wanted = most;
  if (splits > 0) wanted = splits;
  if (wanted > steps) wanted = steps;
  plan.splits = static_cast<int>(wanted < 1 ? 1 : wanted);
  return plan;
}

template <typename T, Load kLoad, Multiply kMultiply>
void launch_gram_mma(const FeatureMap<T>& x, const GramPlan& plan, const GramTask<float>& task, const T* bias,
                     T* activated, cudaStream_t stream) {
  const dim3 grid = grid_of(plan.blocks());
  const auto start = [&](auto kernel) {
    launch(kernel, grid, kGramThreads, 0, stream, x, plan, task, bias, activated);
  };
  if (bias) return start(gram_mma<T, kLoad, kMultiply, false, true>);
  if constexpr (sizeof(T) == 4) {
    if (task.weight) return start(gram_mma<T, kLoad, kMultiply, true, false>);
  }
  start(gram_mma<T, kLoad, kMultiply, false, false>);
}

template <typename T, Load kLoad>
void launch_gram_load(const FeatureMap<T>& x, const GramPlan& plan, const GramTask<float>& task, bool plain_tf32,
                      const T* bias, T* activated, cudaStream_t stream) {
  if constexpr (sizeof(T) == 2) {
    launch_gram_mma<T, kLoad, Multiply::kNative>(x, plan, task, bias, activated, stream);
  } else if (plain_tf32) {
    launch_gram_mma<T, kLoad, Multiply::kTf32>(x, plan, task, bias, activated, stream);
  } else {
    launch_gram_mma<T, kLoad, Multiply::kTf32x3>(x, plan, task, bias, activated, stream);
  }
}

// Computes G, or R and the loss, or G and the mean. `plan` is gram_plan's for `path` and gives the size of the
// workspace; its counters are zero. Batch and channels are at least 1. With a bias, which GramPath::kSimt does not
// support, computes them of y = max(x + bias, 0), which is written to `activated` with the strides of x.
template <typename T>
void launch_gram(const FeatureMap<T>& x, GramPath path, const GramPlan& plan, const GramTask<ComputeOf<T>>& task,
                 bool plain_tf32, cudaStream_t stream, const T* bias = nullptr, T* activated = nullptr) {
  if constexpr (sizeof(T) <= 4) {
    if (path == GramPath::kRows)
      return launch_gram_load<T, Load::kRows>(x, plan, task, plain_tf32, bias, activated, stream);
    if (path == GramPath::kChannels)
      return launch_gram_load<T, Load::kChannels>(x, plan, task, plain_tf32, bias, activated, stream);
  }
  launch(gram_simt<T>, grid_of(plan.blocks()), kSimtThreads, 0, stream, x, plan, task);
}

}  // namespace fastnst::kernels
