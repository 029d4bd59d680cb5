// Shared by all kernels: types, 16-byte packs, launches, sums in a fixed order. Independent of torch.
//
// With FASTNST_EMULATED the same sources compile as C++ and run on the CPU, one fiber per CUDA thread;
// tests/emulator/emulator.h then defines the CUDA names used here. Shared memory is declared with the two macros below,
// because the emulator checks every access to it.
#pragma once

#ifdef FASTNST_EMULATED
#include "emulator.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define FASTNST_SHARED(type, name, count) __shared__ type name[count]
#define FASTNST_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

#include <cstdint>
#include <stdexcept>
#include <string>

#ifndef FASTNST_EMULATED
#include "ptx.cuh"
#endif

namespace fastnst::kernels {

constexpr int kWarp = 32;
constexpr unsigned kEveryLane = 0xffffffffu;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ __forceinline__ void narrow(float* out, float x) { *out = x; }
__device__ __forceinline__ void narrow(double* out, double x) { *out = x; }
__device__ __forceinline__ void narrow(__half* out, float x) { *out = __float2half_rn(x); }
__device__ __forceinline__ void narrow(__nv_bfloat16* out, float x) { *out = __float2bfloat16_rn(x); }

__device__ __forceinline__ float square_root(float x) { return sqrtf(x); }
__device__ __forceinline__ double square_root(double x) { return sqrt(x); }

// The type in which features of type T are computed and accumulated.
template <typename T>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};
template <typename T>
using ComputeOf = typename Compute<T>::type;

// kWidth values that are read or written at once: 16 bytes if the pointers are aligned, else one value.
template <typename T, int kWidth>
struct alignas(kWidth * sizeof(T)) Pack {
  T values[kWidth];
};

template <typename T>
constexpr int kFullWidth = 16 / static_cast<int>(sizeof(T));

// What the choice of kernels depends on.
struct Card {
  bool tf32;  // products of tf32 and bfloat16: sm_80 and later
  int multiprocessors;
};

// A one-dimensional grid, whose limit is 2^31 - 1 blocks; that of the other dimensions is 65535.
inline dim3 grid_of(int64_t blocks) {
  if (blocks > 0x7fffffff)
    throw std::length_error("a launch of " + std::to_string(blocks) +
                            " blocks, of at most 2^31 - 1: pass the batch in parts");
  return dim3(static_cast<unsigned>(blocks));
}

inline bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

#ifdef FASTNST_EMULATED
// Marks the loop whose bank conflicts and sectors the emulator counts; no effect on the device.
__device__ inline void begin_main_loop() { emulator::begin_main_loop(); }
__device__ inline void end_main_loop() { emulator::end_main_loop(); }

template <typename... Parameters, typename... Arguments>
inline void launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes, cudaStream_t,
                   Arguments... arguments) {
  emulator::start(kernel, grid, threads, shared_bytes, arguments...);
}
#else
__device__ __forceinline__ void begin_main_loop() {}
__device__ __forceinline__ void end_main_loop() {}

// Launches `kernel`; errors are reported by cudaGetLastError.
template <typename... Parameters, typename... Arguments>
inline void launch(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes, cudaStream_t stream,
                   Arguments... arguments) {
  if (shared_bytes > 48 * 1024)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  cudaLaunchKernelEx(&config, kernel, arguments...);
}
#endif

// The sum over a block of kThreads threads, in a fixed order; valid in thread 0. All threads must call it.
template <int kThreads, typename T>
__device__ __forceinline__ T block_sum(T value) {
  FASTNST_SHARED(T, warps, kThreads / kWarp);
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_down_sync(kEveryLane, value, step);
  if (threadIdx.x % kWarp == 0) warps[threadIdx.x / kWarp] = value;
  __syncthreads();
  T total = 0;
  if (threadIdx.x == 0)
    for (int i = 0; i < kThreads / kWarp; ++i) total += warps[i];
  __syncthreads();
  return total;
}

// Whether this block is the last of `count` to increment `counter`, which starts at zero. What thread 0 of the other
// blocks wrote before is then visible to all threads of the last block. All threads must call it, once per kernel.
__device__ __forceinline__ bool last_to_arrive(unsigned* counter, unsigned count) {
  FASTNST_SHARED(int, last, 1);
  if (threadIdx.x == 0) {
    __threadfence();
    *last = atomicAdd(counter, 1u) == count - 1;
    __threadfence();
  }
  __syncthreads();
  return *last != 0;
}

}  // namespace fastnst::kernels
