// The backward with ordinary multiply-adds, for any strides, in 64 x 64 blocks of M F.
#pragma once

#include "gram_simt.cuh"

namespace fastnst::kernels {

// The terms of the result; those with null pointers are omitted. `above`, `target` and `out` have the strides of F;
// `above` may be `out`.
template <typename T>
struct BackwardTask {
  using A = ComputeOf<T>;
  const A* matrix;  // [B, padded, padded], symmetric
  int64_t padded;
  A factor;
  const A* weight;  // [B, N]
  const A* shift;   // [B, C]
  const T* above;
  const T* target;
  A content;
  bool relu;
  T* out;
};

// One value of `out`, given that of (factor M F + shift) diag(w); the order of the terms is the same on every path.
template <typename T>
__device__ __forceinline__ void finish_value(const BackwardTask<T>& task, ComputeOf<T> value, ComputeOf<T> x,
                                             ComputeOf<T> above, ComputeOf<T> target, T* out) {
  if (task.above) value += above;
  if (task.target) value += task.content * (x - target);
  narrow(out, !task.relu || x > 0 ? value : 0);
}

template <typename T>
__global__ void __launch_bounds__(kSimtThreads, 1) backward_simt(FeatureMap<T> x, BackwardTask<T> task) {
  using A = ComputeOf<T>;
  using Tile = SimtTile<A>;
  FASTNST_SHARED(A, left, kDepth * Tile::kPitch);
  FASTNST_SHARED(A, right, kDepth * Tile::kPitch);
  const int64_t strips = (x.positions + kUnit - 1) / kUnit, units = (x.channels + kUnit - 1) / kUnit;
  const int64_t block = blockIdx.x, image = block / units / strips;
  const int64_t row0 = block % units * kUnit, first = block / units % strips * kUnit;
  const A* matrix = task.matrix + image * task.padded * task.padded;
  const T* base = x.data + image * x.stride_b;
  const bool along_k = x.stride_c < x.stride_n;
  Tile tile(left, right);
  begin_main_loop();
#pragma unroll 1
  for (int64_t k0 = 0; k0 < x.channels; k0 += kDepth) {
    tile.fill(left, true, [&](int i, int k) {
      return row0 + i < x.channels && k0 + k < x.channels ? matrix[(row0 + i) * task.padded + k0 + k] : A(0);
    });
    tile.fill(right, along_k, [&](int n, int k) -> A {
      return k0 + k < x.channels && first + n < x.positions
                 ? A(widen(base[(k0 + k) * x.stride_c + (first + n) * x.stride_n]))
                 : A(0);
    });
    __syncthreads();
    tile.multiply(right);
    __syncthreads();
  }
  end_main_loop();
  const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t c = row0 + ty + 16 * i, n = first + tx + 16 * j;
      if (c >= x.channels || n >= x.positions) continue;
      const int64_t at = image * x.stride_b + c * x.stride_c + n * x.stride_n;
      A value = task.factor * tile.sums[i][j];
      if (task.shift) value += task.shift[image * x.channels + c];
      if (task.weight) value *= task.weight[image * x.positions + n];
      const A here = widen(x.data[at]);
      finish_value<T>(task, value, here, task.above ? widen(task.above[at]) : here,
                      task.target ? widen(task.target[at]) : here, task.out + at);
    }
}

template <typename T>
void launch_backward_simt(const FeatureMap<T>& x, const BackwardTask<T>& task, cudaStream_t stream) {
  const int64_t strips = (x.positions + kUnit - 1) / kUnit, units = (x.channels + kUnit - 1) / kUnit;
  launch(backward_simt<T>, grid_of(x.batch * strips * units), kSimtThreads, 0, stream, x, task);
}

}  // namespace fastnst::kernels
