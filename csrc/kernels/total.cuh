// A sum over a whole grid in two launches, which does not depend on the order in which blocks finish.
#pragma once

#include "device.cuh"

namespace fastnst::kernels {

constexpr int kSumThreads = 256;
// Enough blocks to fill any GPU, few enough that one block adds their sums.
constexpr int kMaxBlocks = 1024;
constexpr int kPacksPerThread = 4;

// Blocks for n elements in packs of `width`: a function of n only, so that a sum does not depend on the GPU.
inline int blocks_for(int64_t n, int width) {
  const int64_t per_block = static_cast<int64_t>(kSumThreads) * width * kPacksPerThread;
  const int64_t blocks = (n + per_block - 1) / per_block;
  return static_cast<int>(blocks < 1 ? 1 : blocks > kMaxBlocks ? kMaxBlocks : blocks);
}

// Writes the sum of the values of a block's threads to `partial`, which has one value per block of kSumThreads.
__device__ __forceinline__ void add_up(double value, double* partial) {
  const double sum = block_sum<kSumThreads>(value);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// out = the sum of `count` values, in one block. A second launch, as the order of blocks within one is not known; a
// counter of finished blocks would need a memset before each launch or be shared by launches on several streams.
template <typename C>
__global__ void __launch_bounds__(kSumThreads) sum_of_blocks(const double* __restrict__ partial, int count, C* out) {
  double total = 0;
#pragma unroll kPacksPerThread
  for (int i = threadIdx.x; i < count; i += kSumThreads) total += partial[i];
  total = block_sum<kSumThreads>(total);
  if (threadIdx.x == 0) *out = static_cast<C>(total);
}

template <typename C>
inline void launch_sum_of_blocks(const double* partial, int count, C* out, cudaStream_t stream) {
  launch(sum_of_blocks<C>, dim3(1), kSumThreads, 0, stream, partial, count, out);
}

}  // namespace fastnst::kernels
