// A kernel around each function of ptx.cuh, and one that the compiler may spoil. The mma kernels read and write whole
// matrices, in the layout of fragments that ptx.cuh states and fragments.cuh relies on.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "ptx.cuh"

namespace {

constexpr int kRows = 16, kColumns = 8;

// `Word` is one 32-bit register of A or B: one float32 or two halves, so that `depth` is 8 words for both.
template <typename Multiply>
__device__ void multiply(const uint32_t* a, const uint32_t* b, float* d, Multiply multiply_fragments) {
  constexpr int kWords = 8;
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  // A is [rows, words] and B is [columns, words]; word t of tf32 is k = t, that of halves k = 2 t and 2 t + 1.
  const uint32_t left[4] = {a[g * kWords + t], a[(g + 8) * kWords + t], a[g * kWords + t + 4],
                            a[(g + 8) * kWords + t + 4]};
  const uint32_t right[2] = {b[g * kWords + t], b[g * kWords + t + 4]};
  float sums[4];
  for (int i = 0; i < 4; ++i) sums[i] = d[(g + i / 2 * 8) * kColumns + 2 * t + i % 2];
  multiply_fragments(sums, left, right);
  for (int i = 0; i < 4; ++i) d[(g + i / 2 * 8) * kColumns + 2 * t + i % 2] = sums[i];
}

}  // namespace

using namespace fastnst::kernels;

extern "C" {

__global__ void run_mma_tf32(const uint32_t* a, const uint32_t* b, float* d) {
  multiply(a, b, d, [](auto& sums, const auto& left, const auto& right) { mma_tf32(sums, left, right); });
}

__global__ void run_mma_bf16(const uint32_t* a, const uint32_t* b, float* d) {
  multiply(a, b, d, [](auto& sums, const auto& left, const auto& right) { mma_bf16(sums, left, right); });
}

__global__ void run_mma_f16(const uint32_t* a, const uint32_t* b, float* d) {
  multiply(a, b, d, [](auto& sums, const auto& left, const auto& right) { mma_f16(sums, left, right); });
}

__global__ void run_byte_permute(const uint32_t* a, const uint32_t* b, const uint32_t* selector, uint32_t* out) {
  const int i = threadIdx.x;
  out[i] = byte_permute(a[i], b[i], selector[i]);
}

// out = from where `valid`, else zeros; by way of shared memory that other threads read.
__global__ void run_copy_async(const uint4* from, const int* valid, uint4* out) {
  __shared__ uint4 held[64];
  const int i = threadIdx.x;
  copy_async(held + i, from + i, valid[i] != 0);
  copy_async_commit();
  copy_async_wait<0>();
  __syncthreads();
  out[i] = held[i ^ 33];
}

// The same for `count` rows of 64 with a ring of three, as the kernels use it: two copies ahead.
__global__ void run_copy_ring(const uint4* from, uint4* out, int count) {
  __shared__ uint4 held[3 * 64];
  const int i = threadIdx.x;
  const auto start = [&](int row) {
    if (row < count) copy_async(held + row % 3 * 64 + i, from + row * 64 + i, true);
    copy_async_commit();
  };
  start(0);
  start(1);
  for (int row = 0; row < count; ++row) {
    copy_async_wait<1>();
    __syncthreads();
    start(row + 2);
    out[row * 64 + i] = held[row % 3 * 64 + (i ^ 33)];
  }
}

// out[c] = sum_n max(x[n, c] + bias[c], 0), with one thread per channel and some more. With `__ldg` the read of the
// bias would move out of the loop and above its guard: for half it is assembly that nvcc takes for arithmetic.
__global__ void run_guarded_bias(const __half* x, const __half* bias, float* out, int channels, int positions) {
  const int c = threadIdx.x;
  float sum = 0;
#pragma unroll 1
  for (int n = 0; n < positions; ++n) {
    if (c >= channels) continue;
    sum += fmaxf(__half2float(x[n * channels + c]) + __half2float(bias[c]), 0.f);
  }
  if (c < channels) out[c] = sum;
}

}  // extern "C"
