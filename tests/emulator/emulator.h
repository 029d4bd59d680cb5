// CUDA's names as C++, for kernels compiled with FASTNST_EMULATED: one fiber per CUDA thread, with checks
// of every load and store.
//
// Kernel files are compiled with -fsanitize=thread but not linked with its library: the functions that the compiler
// calls before each access are those of hooks.cpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "numbers.h"

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __restrict__ __restrict

// A lambda has a separate type in each instantiation of a template, as a __shared__ array has separate storage.
#define FASTNST_SHARED(type, name, count) type* const name = emulator::shared<type>([] {}, count, #name)
#define FASTNST_DYNAMIC_SHARED(name) unsigned char* const name = emulator::dynamic_shared()

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

namespace emulator {

// threadIdx and related variables of the running fiber.
struct Indices {
  dim3 thread, block, block_size, grid;
};
extern Indices indices __attribute__((visibility("hidden")));

// One component of Indices, read without hooks.
template <dim3 Indices::* kWhich, unsigned dim3::* kAxis>
struct Index {
  operator unsigned() const {
#ifdef __x86_64__
    unsigned value;
    asm("movl %1, %0" : "=r"(value) : "m"(indices.*kWhich.*kAxis));
    return value;
#else
    return indices.*kWhich.*kAxis;
#endif
  }
};

template <dim3 Indices::* kWhich>
struct IndexVector {
  Index<kWhich, &dim3::x> x;
  Index<kWhich, &dim3::y> y;
  Index<kWhich, &dim3::z> z;
};

// The location of a __shared__ array in the running block; one per declaration and instantiation.
struct SharedSlot {
  uint32_t block;
  void* data;
};
void* shared(SharedSlot* slot, size_t bytes, size_t item, size_t align, const char* name);
unsigned char* dynamic_shared();

template <typename T, typename Site>
inline __attribute__((always_inline)) T* shared(Site, size_t count, const char* name) {
  static SharedSlot slot;
  return static_cast<T*>(shared(&slot, count * sizeof(T), sizeof(T), alignof(T), name));
}

// Runs blocks one after another; throws Violation at the first violation of CUDA's rules.
void run(dim3 grid, int threads, size_t shared_bytes, void (*call)(const void*), const void* body, size_t body_bytes);

template <typename Body>
void run(dim3 grid, int threads, size_t shared_bytes, const Body& body) {
  run(grid, threads, shared_bytes, [](const void* p) { (*static_cast<const Body*>(p))(); }, &body, sizeof(Body));
}

// A launch, with the values of the kernel's parameters. Where `redirect` is set, it gets launches instead of `run`:
// tests/kernels/ptx executes what nvcc makes of the kernel, and record_launches.py runs nothing.
struct KernelLaunch {
  const void* kernel;
  dim3 grid;
  int threads;
  size_t shared_bytes, count;
  const void* const* values;
  const size_t* sizes;
};
extern void (*redirect)(const KernelLaunch&);

template <typename... Parameters>
void start(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes,
           const std::common_type_t<Parameters>&... arguments) {
  if (!redirect) return run(grid, threads, shared_bytes, [=] { kernel(arguments...); });
  const void* const values[] = {&arguments...};
  const size_t sizes[] = {sizeof(arguments)...};
  redirect({reinterpret_cast<const void*>(kernel), grid, threads, shared_bytes, sizeof...(arguments), values, sizes});
}

void begin_main_loop();
void end_main_loop();

// Accesses of a width that the compiler must not split.
void load(void* to, const void* from, size_t bytes);
void store(void* to, const void* from, size_t bytes);
// A read through the constant cache, which does not see writes of this launch.
void load_constant(void* to, const void* from, size_t bytes);

enum class Shuffle { kFrom, kUp, kDown, kXor };
uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t value, int argument, int width);
unsigned ballot(unsigned mask, bool value);
void atomic_begin(void* address, size_t bytes);

template <typename T>
inline __attribute__((always_inline)) T shuffle_value(Shuffle kind, unsigned mask, T value, int argument, int width) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "shuffles take up to eight bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle(kind, mask, bits, argument, width);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace emulator

constexpr emulator::IndexVector<&emulator::Indices::thread> threadIdx{};
constexpr emulator::IndexVector<&emulator::Indices::block> blockIdx{};
constexpr emulator::IndexVector<&emulator::Indices::block_size> blockDim{};
constexpr emulator::IndexVector<&emulator::Indices::grid> gridDim{};

void __syncthreads();
void __syncwarp(unsigned mask = 0xffffffffu);
void __threadfence();

template <typename T>
__forceinline__ T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  return emulator::shuffle_value(emulator::Shuffle::kFrom, mask, value, lane, width);
}
template <typename T>
__forceinline__ T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
  return emulator::shuffle_value(emulator::Shuffle::kUp, mask, value, static_cast<int>(by), width);
}
template <typename T>
__forceinline__ T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  return emulator::shuffle_value(emulator::Shuffle::kDown, mask, value, static_cast<int>(by), width);
}
template <typename T>
__forceinline__ T __shfl_xor_sync(unsigned mask, T value, int by, int width = 32) {
  return emulator::shuffle_value(emulator::Shuffle::kXor, mask, value, by, width);
}
__forceinline__ unsigned __ballot_sync(unsigned mask, int value) { return emulator::ballot(mask, value != 0); }
__forceinline__ int __any_sync(unsigned mask, int value) { return emulator::ballot(mask, value != 0) != 0; }
__forceinline__ int __all_sync(unsigned mask, int value) { return emulator::ballot(mask, value != 0) == mask; }

// Only one fiber runs at a time, so the sum itself needs no synchronization.
template <typename T>
inline __attribute__((no_sanitize_thread, noinline)) T atomicAdd(T* address, T value) {
  emulator::atomic_begin(address, sizeof(T));
  const T old = *address;
  *address = static_cast<T>(old + value);
  return old;
}

template <typename T>
__forceinline__ T __ldg(const T* from) {
  T value;
  emulator::load_constant(&value, from, sizeof(T));
  return value;
}
// nvcc may hoist these two above the test that guards them, so they are plain reads here.
__half __ldg(const __half* from) = delete;
__nv_bfloat16 __ldg(const __nv_bfloat16* from) = delete;
template <typename T>
__forceinline__ T __ldcg(const T* from) {
  T value;
  emulator::load(&value, from, sizeof(T));
  return value;
}
template <typename T>
__forceinline__ T __ldcs(const T* from) {
  return __ldcg(from);
}
template <typename T>
__forceinline__ void __stcg(T* to, T value) {
  emulator::store(to, &value, sizeof(T));
}
template <typename T>
__forceinline__ void __stcs(T* to, T value) {
  emulator::store(to, &value, sizeof(T));
}

// The counterpart of csrc/kernels/ptx.cuh.
namespace fastnst::kernels {

void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void copy_async(void* shared, const void* global, bool valid);
void copy_async_commit();
void copy_async_wait(int pending);
template <int kPending>
inline void copy_async_wait() {
  copy_async_wait(kPending);
}
inline int opaque(int x) { return x; }
inline uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector) { return __byte_perm(a, b, selector); }

}  // namespace fastnst::kernels
