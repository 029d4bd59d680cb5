// A sum over a whole grid that does not depend on the order in which blocks finish.
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

// out = the sum of the values of all threads. Each block of kSumThreads writes its sum to `partial`, which has one
// value per block; the last block to finish, found by `counter` (zero before and after), adds them in the order of
// blocks.
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
