// gram, moments and style_loss: selection of the kernel for a feature map, its partition, and the launch.
#pragma once

#include "gram_simt.cuh"
#include "gram_tiles.cuh"

namespace fastnst::kernels {

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

// `splits` of zero: as many blocks as the GPU runs at once, unless that leaves a block so few positions that its
// partial result outweighs them.
template <typename T>
GramPlan gram_plan(const FeatureMap<T>& x, GramPath path, const Card& card, int splits = 0) {
  GramPlan plan{};
  plan.batch = x.batch;
  plan.channels = x.channels;
  plan.side = path == GramPath::kSimt || one_unit(x.channels) ? 1 : 2;
  plan.stages = card.tf32 ? kStages : kStagesTuring;
  const int64_t off = plan.off_diagonal_tiles() * x.batch, on = plan.rows() * x.batch;
  // On tensor cores a tile on the diagonal takes three fifths of the cycles of one off the diagonal.
  const bool alike = path == GramPath::kSimt || off == 0;
  const int64_t on_cost = alike ? 1 : 3, off_cost = alike ? 1 : 5;
  const int64_t step = path == GramPath::kSimt ? kDepth : kStagePanels / (off ? 4 : plan.side) * kChunk<T>;
  const int64_t least = path == GramPath::kSimt ? 512 / kDepth : 2;  // steps of a block
  const int64_t steps = (x.positions + step - 1) / step;
  int64_t wanted = off + on > 0 ? card.multiprocessors * off_cost / (off_cost * off + on_cost * on) : 1;
  if (wanted > steps / least) wanted = steps / least;
  if (splits > 0) wanted = splits < steps ? splits : steps;
  const auto fewer = [&] { return (wanted * on_cost + off_cost - 1) / off_cost; };
  // A block more than the GPU runs at once would double the time.
  while (splits <= 0 && wanted > 1 && off * wanted + on * fewer() > card.multiprocessors) --wanted;
  if (wanted < 1) wanted = 1;
  plan.splits = static_cast<int>(wanted);
  plan.diagonal_splits = static_cast<int>(fewer());
  plan.order = path != GramPath::kChannels ? ChannelOrder::kSame
               : sizeof(T) == 4            ? ChannelOrder::kFours
                                           : ChannelOrder::kEights;
  return plan;
}

template <typename T, Load kLoad, Multiply kMultiply>
void launch_gram_tiles(const FeatureMap<T>& x, const GramPlan& plan, const GramTask<float>& task, const T* bias,
                       T* activated, cudaStream_t stream) {
  const dim3 grid = grid_of(plan.blocks());
  const auto start = [&](auto kernel) {
    launch(kernel, grid, kGramThreads, static_cast<size_t>(plan.stages) * kStageBytes, stream, x, plan, task, bias,
           activated);
  };
  if (bias) return start(gram_tiles<T, kLoad, kMultiply, false, true>);
  if constexpr (sizeof(T) == 4) {
    if (task.weight) return start(gram_tiles<T, kLoad, kMultiply, true, false>);
  }
  start(gram_tiles<T, kLoad, kMultiply, false, false>);
}

template <typename T, Load kLoad>
void launch_gram_load(const FeatureMap<T>& x, const GramPlan& plan, const GramTask<float>& task, bool plain_tf32,
                      const T* bias, T* activated, cudaStream_t stream) {
  if constexpr (sizeof(T) == 2) {
    launch_gram_tiles<T, kLoad, Multiply::kNative>(x, plan, task, bias, activated, stream);
  } else if (plain_tf32) {
    launch_gram_tiles<T, kLoad, Multiply::kTf32>(x, plan, task, bias, activated, stream);
  } else {
    launch_gram_tiles<T, kLoad, Multiply::kTf32x3>(x, plan, task, bias, activated, stream);
  }
}

// The kernel that fills the workspace; gram_finish then adds the splits.
template <typename T>
void launch_gram_partial(const FeatureMap<T>& x, GramPath path, const GramPlan& plan,
                         const GramTask<ComputeOf<T>>& task, bool plain_tf32, cudaStream_t stream, const T* bias,
                         T* activated) {
  if constexpr (sizeof(T) <= 4) {
    if (path == GramPath::kRows)
      return launch_gram_load<T, Load::kRows>(x, plan, task, plain_tf32, bias, activated, stream);
    if (path == GramPath::kChannels)
      return launch_gram_load<T, Load::kChannels>(x, plan, task, plain_tf32, bias, activated, stream);
  }
  launch(gram_simt<T>, grid_of(plan.blocks()), kSimtThreads, 0, stream, x, plan, task);
}

// Whether bias and ReLU are fused with the Gram matrix: where one tile covers all channels, so that every feature is
// read by one block.
inline bool fuses_bias(GramPath path, int64_t channels) { return path != GramPath::kSimt && channels <= 2 * kUnit; }

// Computes G, or R and the loss, or G and the mean, each with or without weights. `plan` is gram_plan's for `path` and
// gives the size of the workspace. Batch and channels are at least 1. With a bias, where fuses_bias allows it, computes
// them of y = max(x + bias, 0), which is written to `activated` with the strides of x.
template <typename T>
void launch_gram(const FeatureMap<T>& x, GramPath path, const GramPlan& plan, const GramTask<ComputeOf<T>>& task,
                 bool plain_tf32, cudaStream_t stream, const T* bias = nullptr, T* activated = nullptr) {
  launch_gram_partial<T>(x, path, plan, task, plain_tf32, stream, bias, activated);
  launch_gram_finish(plan, task, x.positions, stream);
}

}  // namespace fastnst::kernels
