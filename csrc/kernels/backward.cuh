// The backward of a layer with losses and of a Gram matrix, in one pass:
// out = mask(F > 0) * (above + (factor M F + shift) diag(w) + content (F - P)), each term optional.
#pragma once

#include "backward_simt.cuh"
#include "backward_tiles.cuh"
#include "gram.cuh"

namespace fastnst::kernels {

constexpr int kSymmetrizeSide = 32;  // of the square that a block computes

// m[b] = scale * (d[b] + d[b]^T), in rows of `padded` values, zeros beyond the channels.
template <typename A>
__global__ void __launch_bounds__(kSimtThreads)
    symmetrize(const A* __restrict__ d, A* __restrict__ m, int channels, int padded, bool both) {
  constexpr int kSide = kSymmetrizeSide;
  FASTNST_SHARED(A, turned, kSide * (kSide + 1));
  const int side = (padded + kSide - 1) / kSide;
  const int64_t image = blockIdx.x / side / side;
  const A* from = d + image * channels * channels;
  A* to = m + image * padded * padded;
  const int row0 = blockIdx.x / side % side * kSide, column0 = blockIdx.x % side * kSide, x = threadIdx.x % kSide;
  const auto value = [&](int i, int j) {
    return i < channels && j < channels ? from[int64_t{i} * channels + j] : A(0);
  };
  for (int y = threadIdx.x / kSide; y < kSide; y += kSimtThreads / kSide)
    turned[x * (kSide + 1) + y] = both ? value(column0 + y, row0 + x) : A(0);
  __syncthreads();
  for (int y = threadIdx.x / kSide; y < kSide; y += kSimtThreads / kSide)
    if (row0 + y < padded && column0 + x < padded)
      to[int64_t{row0 + y} * padded + column0 + x] = value(row0 + y, column0 + x) + turned[y * (kSide + 1) + x];
}

template <typename A>
void launch_symmetrize(const A* d, A* m, int64_t batch, int channels, int padded, bool both, cudaStream_t stream) {
  const int64_t side = (padded + kSymmetrizeSide - 1) / kSymmetrizeSide;
  launch(symmetrize<A>, grid_of(batch * side * side), kSimtThreads, 0, stream, d, m, channels, padded, both);
}

enum class BackwardPath { kRows, kChannels, kSimt };

template <typename T>
BackwardPath backward_path(const FeatureMap<T>& x, const BackwardTask<T>& task, const Card& card) {
  if (sizeof(T) > 4 || !card.tf32) return BackwardPath::kSimt;
  if (!aligned(task.out) || !aligned(task.above) || !aligned(task.target)) return BackwardPath::kSimt;
  if (sixteen_bytes(x, x.stride_n, x.positions, x.stride_c, x.channels)) return BackwardPath::kRows;
  if (sixteen_bytes(x, x.stride_c, x.channels, x.stride_n, x.positions)) return BackwardPath::kChannels;
  return BackwardPath::kSimt;
}

// The rows and columns of M that the path reads: whole fragments for tensor cores.
inline int64_t padded_channels(BackwardPath path, int64_t channels) {
  return path == BackwardPath::kSimt ? channels : (channels + kUnit - 1) / kUnit * kUnit;
}

// `task.matrix` is padded to padded_channels; `task.out` has the strides of x. Batch, channels, positions at least 1.
template <typename T>
void launch_backward(const FeatureMap<T>& x, BackwardPath path, const BackwardTask<T>& task, bool plain_tf32,
                     const Card& card, cudaStream_t stream) {
  const auto start = [&](auto multiply) {
    constexpr Multiply kMultiply = decltype(multiply)::value;
    if (path == BackwardPath::kRows)
      launch_backward_load<T, Load::kRows, kMultiply>(x, task, card.multiprocessors, stream);
    else
      launch_backward_load<T, Load::kChannels, kMultiply>(x, task, card.multiprocessors, stream);
  };
  if (path == BackwardPath::kSimt) return launch_backward_simt<T>(x, task, stream);
  if constexpr (sizeof(T) == 4) {
    if (plain_tf32)
      start(std::integral_constant<Multiply, Multiply::kTf32>{});
    else
      start(std::integral_constant<Multiply, Multiply::kTf32x3>{});
  } else if constexpr (std::is_same<T, __half>::value) {
    start(std::integral_constant<Multiply, Multiply::kTf32>{});
  } else if constexpr (sizeof(T) == 2) {
    start(std::integral_constant<Multiply, Multiply::kNative>{});
  }
}

}  // namespace fastnst::kernels
