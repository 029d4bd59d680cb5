// The parts of CUDA's runtime that the micro-benchmark uses, on the host: it then runs on the emulator, with times that
// mean nothing.
#pragma once

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>

#include "emulator.h"
#include "runtime.h"

constexpr cudaError_t cudaMissing = 1;
enum { cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum { cudaDevAttrL2CacheSize, cudaDevAttrComputeCapabilityMajor, cudaDevAttrMultiProcessorCount };
using cudaEvent_t = int;

inline void* reserved(size_t bytes) {
  return mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}
inline std::map<void*, size_t>& sizes() {
  static std::map<void*, size_t> all;
  return all;
}

// Registered with the emulator, so that accesses out of bounds and races are errors; what was never written is NaN.
template <typename T>
cudaError_t cudaMalloc(T** memory, size_t bytes) {
  void* base = reserved(bytes);
  if (base == MAP_FAILED) return cudaMissing;
  emulator::Region region;
  region.base = reinterpret_cast<uintptr_t>(base);
  region.bytes = bytes;
  region.shift = 0;
  region.initialized = true;
  region.cells = static_cast<emulator::Cell*>(reserved((bytes + 16) * sizeof(emulator::Cell)));
  region.name = "buffer";
  emulator::add_region(region);
  sizes()[base] = bytes;
  *memory = static_cast<T*>(base);
  return cudaSuccess;
}
inline void cudaFree(void* memory) {
  const size_t bytes = sizes()[memory];
  emulator::Region* region = emulator::find_region(reinterpret_cast<uintptr_t>(memory));
  munmap(region->cells, (bytes + 16) * sizeof(emulator::Cell));
  emulator::remove_region(reinterpret_cast<uintptr_t>(memory));
  munmap(memory, bytes);
  sizes().erase(memory);
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, int) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, int kind) {
  return cudaMemcpyAsync(to, from, bytes, kind);
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor ? 9 : attribute == cudaDevAttrMultiProcessorCount ? 132 : 0;
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t) { return "error"; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaProfilerStart() { return cudaSuccess; }
inline cudaError_t cudaProfilerStop() { return cudaSuccess; }
inline cudaError_t cudaEventCreate(cudaEvent_t*) { return cudaSuccess; }
inline void cudaEventDestroy(cudaEvent_t) {}
inline cudaError_t cudaEventRecord(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1;
  return cudaSuccess;
}
inline int64_t clock64() {
  static int64_t cycles = 0;
  return cycles += 1 << 20;
}
