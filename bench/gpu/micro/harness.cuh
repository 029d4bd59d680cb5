// Of the micro-benchmark: problems, buffers, errors against float64, a clock on the device, lines of JSON.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "device.cuh"

namespace micro {

#ifdef FASTNST_EMULATED
constexpr int kWarmUp = 0, kRepeats = 1;  // the emulator has no clock
#else
constexpr int kWarmUp = 3, kRepeats = 15;
#endif

using fastnst::kernels::launch;
using fastnst::kernels::narrow;
using fastnst::kernels::widen;

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "micro: %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

// The channels of a style layer of VGG-19, and the picture's side over the layer's.
struct Layer {
  const char* name;
  int64_t channels, reduction;
};
constexpr Layer kLayers[] = {
    {"relu1_1", 64, 1}, {"relu2_1", 128, 2}, {"relu3_1", 256, 4}, {"relu4_1", 512, 8}, {"relu5_1", 512, 16}};
constexpr Layer kImage = {"image", 3, 1};

struct Problem {
  std::string op;
  Layer layer;
  int64_t side;
  std::string precision;
  bool channels_last;
  double bytes, operations;  // the least that a single pass moves and multiplies

  int64_t channels() const { return layer.channels; }
  int64_t height() const { return side / layer.reduction; }
  int64_t positions() const { return height() * height(); }
  int64_t size() const { return channels() * positions(); }
};

// As bench/gpu/roofline.py counts it; `bytes` of a value, and a multiply-add is two operations.
inline void count_work(Problem& p, double bytes) {
  const double one = bytes * p.size(), square = 2.0 * p.channels() * p.channels() * p.positions();
  const double pooled = 1.25 * one + p.size() / 4.0;
  const auto of = [&](double moved, double multiplied) {
    p.bytes = moved;
    p.operations = multiplied;
  };
  if (p.op == "style_loss") return of(one, square / 2);
  if (p.op == "style_loss backward") return of(3 * one, square);
  if (p.op == "bias_relu_style_loss") return of(2 * one, square / 2);
  if (p.op == "content_loss backward") return of(3 * one, 0);
  if (p.op == "pool" || p.op == "pool backward") return of(pooled, 0);
  if (p.op == "total_variation") return of(one, 0);
  of(2 * one, 0);  // content_loss, total_variation backward, bias_relu_
}

// Memory of the device, released with its last copy.
template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t count = 0) : count_(count) {
    if (count == 0) return;
    T* memory = nullptr;
    check(cudaMalloc(&memory, sizeof(T) * count), "cudaMalloc");
    memory_ = std::shared_ptr<T>(memory, [](T* p) { cudaFree(p); });
    poison();
  }
  T* get() const { return memory_.get(); }
  int64_t count() const { return count_; }
  // Every value becomes NaN, so that one which a kernel does not write is an error.
  void poison() const { check(cudaMemsetAsync(get(), 0xff, sizeof(T) * count_), "memset"); }
  void copy_from(const Buffer& other) const {
    check(cudaMemcpyAsync(get(), other.get(), sizeof(T) * count_, cudaMemcpyDeviceToDevice), "copy");
  }

 private:
  std::shared_ptr<T> memory_;
  int64_t count_;
};

constexpr int kThreads = 256;

// A launch of `f(i)` for each i < count.
template <typename F>
__global__ void __launch_bounds__(kThreads) each_kernel(int64_t count, F f) {
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) f(i);
}
template <typename F>
void each(int64_t count, F f) {
  const int64_t blocks = std::min<int64_t>((count + kThreads - 1) / kThreads, 1 << 16);
  launch(each_kernel<F>, static_cast<unsigned>(blocks), kThreads, 0, nullptr, count, f);
  check(cudaGetLastError(), "launch");
}

// Noise of variance near one, after a ReLU if asked for.
template <typename T>
Buffer<T> noise(int64_t count, uint64_t seed, bool relu = false) {
  Buffer<T> made(count);
  T* out = made.get();
  each(count, [=] __device__(int64_t i) {
    uint64_t bits = (static_cast<uint64_t>(i) + 1) * 0x9e3779b97f4a7c15ull + seed * 0xd1342543de82ef95ull;
    bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9ull;
    bits = (bits ^ bits >> 27) * 0x94d049bb133111ebull;
    bits ^= bits >> 31;
    float sum = 0;
    for (int k = 0; k < 4; ++k) sum += static_cast<float>(bits >> 16 * k & 0xffff) / 65536.f - 0.5f;
    narrow(out + i, relu && sum < 0 ? 0.f : 1.7320508f * sum);
  });
  return made;
}

constexpr int kErrorBlocks = 512;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    error_kernel(int64_t count, const T* got, const double* exact, double* sums) {
  double difference = 0, norm = 0;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += int64_t{gridDim.x} * kThreads) {
    const double d = static_cast<double>(widen(got[i])) - exact[i];
    difference += d * d;
    norm += exact[i] * exact[i];
  }
  difference = fastnst::kernels::block_sum<kThreads>(difference);
  norm = fastnst::kernels::block_sum<kThreads>(norm);
  if (threadIdx.x > 0) return;
  sums[2 * blockIdx.x] = difference;
  sums[2 * blockIdx.x + 1] = norm;
}

// |got - exact| / |exact|; NaN if a value is NaN.
template <typename T>
double relative_error(const Buffer<T>& got, const Buffer<double>& exact) {
  const Buffer<double> sums(2 * kErrorBlocks);
  launch(error_kernel<T>, kErrorBlocks, kThreads, 0, nullptr, got.count(), static_cast<const T*>(got.get()),
         static_cast<const double*>(exact.get()), sums.get());
  std::vector<double> host(2 * kErrorBlocks);
  check(cudaMemcpy(host.data(), sums.get(), sizeof(double) * host.size(), cudaMemcpyDeviceToHost), "an error's sums");
  double difference = 0, norm = 0;
  for (int i = 0; i < kErrorBlocks; ++i) {
    difference += host[2 * i];
    norm += host[2 * i + 1];
  }
  return std::sqrt(difference / norm);
}

__global__ void spin(int64_t cycles) {
  const int64_t start = clock64();
  while (clock64() - start < cycles) {
  }
}

// One way to compute a problem. `prepare` is not timed; `error` compares the results of the last run with float64.
struct Variant {
  std::string name;
  int64_t splits;
  std::function<void()> prepare, run;
  std::function<double()> error;
};

// Microseconds of each run, by events on the device. The cache is overwritten before each run, and a kernel that waits
// lets the host enqueue it completely.
class Clock {
 public:
  Clock() {
    int device = 0, cache = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    check(cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, device), "the size of the cache");
    junk_ = Buffer<unsigned char>(std::max<int64_t>(4ll * cache, 1 << 26));
  }

  std::vector<float> microseconds(const Variant& variant) const {
    std::vector<float> found;
    cudaEvent_t start, end;
    check(cudaEventCreate(&start), "an event");
    check(cudaEventCreate(&end), "an event");
    for (int i = 0; i < kWarmUp + kRepeats; ++i) {
      if (variant.prepare) variant.prepare();
      launch(spin, 1, 1, 0, nullptr, int64_t{200000});
      junk_.poison();
      check(cudaEventRecord(start), "an event");
      variant.run();
      check(cudaEventRecord(end), "an event");
      check(cudaEventSynchronize(end), variant.name.c_str());
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, start, end), "an event");
      if (i >= kWarmUp) found.push_back(1e3f * milliseconds);
    }
    cudaEventDestroy(start);
    cudaEventDestroy(end);
    std::sort(found.begin(), found.end());
    return found;
  }

 private:
  Buffer<unsigned char> junk_;
};

inline void print_problem(const Problem& p) {
  std::printf("{\"op\": \"%s\", \"layer\": \"%s\", \"side\": %lld, \"precision\": \"%s\", \"layout\": \"%s\", ",
              p.op.c_str(), p.layer.name, static_cast<long long>(p.side), p.precision.c_str(),
              p.channels_last ? "channels_last" : "contiguous");
  std::printf("\"bytes\": %.0f, \"operations\": %.0f", p.bytes, p.operations);
}

// Check, then time, then print a line. A variant whose error exceeds the bound has no time.
inline void measure(const Clock& clock, const Problem& p, const Variant& variant, double bound) {
  if (variant.prepare) variant.prepare();
  variant.run();
  check(cudaGetLastError(), variant.name.c_str());
  check(cudaDeviceSynchronize(), variant.name.c_str());
  const double error = variant.error ? variant.error() : 0;
  print_problem(p);
  std::printf(", \"variant\": \"%s\", \"splits\": %lld, ", variant.name.c_str(),
              static_cast<long long>(variant.splits));
  if (std::isfinite(error))
    std::printf("\"error\": %.3g, ", error);
  else
    std::printf("\"error\": null, ");
  if (error <= bound) {
    const std::vector<float> times = clock.microseconds(variant);
    std::printf("\"microseconds\": %.3f, \"least\": %.3f, \"most\": %.3f}\n", times[times.size() / 2], times.front(),
                times.back());
  } else {
    std::printf("\"microseconds\": null, \"refused\": \"error %.3g above %.0e\"}\n", error, bound);
  }
  std::fflush(stdout);
}

}  // namespace micro
