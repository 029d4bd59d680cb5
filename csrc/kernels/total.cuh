// One sum over a whole grid, the same bits in whatever order the blocks finish.
#pragma once

#include "device.cuh"

namespace fastnst::kernels {

constexpr int kSumThreads = 256;
// Enough blocks to fill any card, few enough that one block adds up their sums.
constexpr int kMostBlocks = 1024;
constexpr int kPacksPerThread = 4;

// Blocks for n elements in packs of `width`: a function of n alone, so that a sum does not depend on the card's size.
inline int blocks_for(int64_t n, int width) {
  const int64_t per_block = static_cast<int64_t>(kSumThreads) * width * kPacksPerThread;
  const int64_t blocks = (n + per_block - 1) / per_block;
  return static_cast<int>(blocks < 1 ? 1 : blocks > kMostBlocks ? kMostBlocks : blocks);
}

// out = the sum of every thread's value. Each block of kSumThreads leaves its sum in `partial`, which holds one value
// per block; the last block to finish, told by `counter` (zero before and after), adds them in the order of the blocks.
template <typename C>
__device__ __forceinline__ void add_up(double value, double* partial, unsigned* counter, C* out) {
  const double sum = block_sum<kSumThreads>(value);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
  if (!last_to_arrive(counter, gridDim.x)) return;
  double total = 0;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += kSumThreads) total += partial[i];
  total = block_sum<kSumThreads>(total);
  if (threadIdx.x == 0) {
    *out = static_cast<C>(total);
    *counter = 0;
  }
}

}  // namespace fastnst::kernels
