// One step of Adam for an image, guarded: where a loss or the gradient is not finite, nothing changes but `values`.
// Two kernels. The first tests what the second must know before it writes; they need no counter and no initialized
// memory, so that a step can be captured and several can run at once.
#pragma once

#include "total.cuh"

namespace fastnst::kernels {

// The image, the last accepted image, the moments and the gradient: `n` values each, contiguous.
template <typename T>
struct AdamTensors {
  T* image;
  T* good;
  T* mean;
  T* square;
  const T* gradient;
  int64_t n;
};

// The losses of the step, `parts` of them, float32 or float64; `values` takes them and 1 or 0 for finite.
struct AdamLosses {
  const float* singles;
  const double* doubles;
  double* values;
  int parts;
};

// `factors` has for each count from 0 to `most` the learning rate with its bias correction, and the root of the bias of
// the second moment. `count` is of the steps taken; `rate` multiplies the learning rate.
struct AdamSchedule {
  int* count;
  const double* factors;
  const double* rate;
  int most;
};

struct AdamConstants {
  double first, second;  // decay rates of the moments
  double epsilon;
  double unit;  // factor of the gradient
  bool clamp;   // to 0..255
};

template <typename C>
__device__ __forceinline__ bool is_finite(C x) {
  return x - x == 0;
}

// What the first kernel leaves to the second: for each of its blocks whether all values were finite, and the count.
struct AdamFound {
  int* finite;
  int* count;
};

template <typename T, int kWidth>
__global__ void __launch_bounds__(kSumThreads)
    adam_check(AdamTensors<T> tensors, AdamLosses losses, AdamSchedule schedule, AdamFound found) {
  using P = Pack<T, kWidth>;
  const int64_t packs = tensors.n / kWidth, stride = static_cast<int64_t>(gridDim.x) * kSumThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSumThreads + threadIdx.x;
  int wrong = 0;
  begin_main_loop();
#pragma unroll kPacksPerThread
  for (int64_t i = first; i < packs; i += stride) {
    const P values = reinterpret_cast<const P*>(tensors.gradient)[i];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) wrong |= !is_finite(values.values[k]);
  }
  end_main_loop();
  for (int64_t i = packs * kWidth + first; i < tensors.n; i += stride) wrong |= !is_finite(tensors.gradient[i]);
  double sum = 0;
  if (blockIdx.x == 0) {
    for (int i = threadIdx.x; i < losses.parts; i += kSumThreads) {
      const double value = losses.doubles ? losses.doubles[i] : static_cast<double>(losses.singles[i]);
      losses.values[i] = value;
      sum += value;
    }
  }
  const int count = block_sum<kSumThreads>(wrong);
  const double total = block_sum<kSumThreads>(sum);
  if (threadIdx.x != 0) return;
  found.finite[blockIdx.x] = count == 0 && is_finite(total);
  if (blockIdx.x == 0) *found.count = *schedule.count;
}

// `blocks` is the number of blocks of adam_check.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kSumThreads)
    adam_update(AdamTensors<T> tensors, AdamLosses losses, AdamSchedule schedule, AdamConstants constants,
                AdamFound found, int blocks) {
  using P = Pack<T, kWidth>;
  FASTNST_SHARED(int, finite, 1);
  int sum = 0;
  for (int i = threadIdx.x; i < blocks; i += kSumThreads) sum += found.finite[i];
  sum = block_sum<kSumThreads>(sum);
  if (threadIdx.x == 0) *finite = sum == blocks;
  __syncthreads();
  const bool accepted = *finite != 0;
  const int count = *found.count, next = count < schedule.most ? count + 1 : count;
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    losses.values[losses.parts] = accepted;
    if (accepted) *schedule.count = next;
  }
  if (!accepted) return;
  const T rate = static_cast<T>(schedule.factors[2 * next] * *schedule.rate);
  const T bias = static_cast<T>(schedule.factors[2 * next + 1]);
  const T by_first = static_cast<T>(1 - constants.first), second = static_cast<T>(constants.second);
  const T by_second = static_cast<T>(1 - constants.second), epsilon = static_cast<T>(constants.epsilon);
  const T unit = static_cast<T>(constants.unit);
  const auto step = [&](T image, T gradient, T& mean, T& square) {
    const T g = gradient * unit;
    mean += by_first * (g - mean);
    square = square * second + by_second * g * g;
    const T value = image - mean * rate / (square_root(square) / bias + epsilon);
    if (!constants.clamp) return value;
    return value < 0 ? T(0) : value > 255 ? T(255) : value;  // NaN is kept
  };
  const int64_t packs = tensors.n / kWidth, stride = static_cast<int64_t>(gridDim.x) * kSumThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSumThreads + threadIdx.x;
  begin_main_loop();
  for (int64_t i = first; i < packs; i += stride) {
    P image = reinterpret_cast<const P*>(tensors.image)[i];
    const P gradient = reinterpret_cast<const P*>(tensors.gradient)[i];
    P mean = reinterpret_cast<const P*>(tensors.mean)[i], square = reinterpret_cast<const P*>(tensors.square)[i];
    reinterpret_cast<P*>(tensors.good)[i] = image;
#pragma unroll
    for (int k = 0; k < kWidth; ++k)
      image.values[k] = step(image.values[k], gradient.values[k], mean.values[k], square.values[k]);
    reinterpret_cast<P*>(tensors.image)[i] = image;
    reinterpret_cast<P*>(tensors.mean)[i] = mean;
    reinterpret_cast<P*>(tensors.square)[i] = square;
  }
  end_main_loop();
  for (int64_t i = packs * kWidth + first; i < tensors.n; i += stride) {
    const T image = tensors.image[i];
    tensors.good[i] = image;
    tensors.image[i] = step(image, tensors.gradient[i], tensors.mean[i], tensors.square[i]);
  }
}

template <typename T>
inline bool in_packs(const AdamTensors<T>& tensors) {
  return aligned(tensors.image) && aligned(tensors.good) && aligned(tensors.mean) && aligned(tensors.square) &&
         aligned(tensors.gradient);
}

// `scratch` holds kMaxBlocks + 1 values; returns the number of blocks, which launch_adam_update takes.
template <typename T>
inline int launch_adam_check(const AdamTensors<T>& tensors, const AdamLosses& losses, const AdamSchedule& schedule,
                             int* scratch, cudaStream_t stream) {
  constexpr int kFull = kFullWidth<T>;
  const bool full = in_packs(tensors);
  const int blocks = blocks_for(tensors.n, full ? kFull : 1);
  launch(full ? adam_check<T, kFull> : adam_check<T, 1>, dim3(blocks), kSumThreads, 0, stream, tensors, losses,
         schedule, AdamFound{scratch, scratch + kMaxBlocks});
  return blocks;
}

template <typename T>
inline void launch_adam_update(const AdamTensors<T>& tensors, const AdamLosses& losses, const AdamSchedule& schedule,
                               const AdamConstants& constants, int* scratch, int blocks, cudaStream_t stream) {
  constexpr int kFull = kFullWidth<T>;
  launch(in_packs(tensors) ? adam_update<T, kFull> : adam_update<T, 1>, dim3(blocks), kSumThreads, 0, stream, tensors,
         losses, schedule, constants, AdamFound{scratch, scratch + kMaxBlocks}, blocks);
}

}  // namespace fastnst::kernels
