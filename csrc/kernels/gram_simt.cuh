// A 64 x 64 product with ordinary multiply-adds, for float64, for GPUs whose tensor cores lack the dtype, and for
// layouts without aligned 16-byte reads.
#pragma once

#include "gram_units.cuh"

namespace fastnst::kernels {

constexpr int kSimtThreads = 256;
constexpr int kDepth = 16;

// Two operands of kDepth x 64 in shared memory and the 4 x 4 sums of each thread: rows y + 16 i, columns x + 16 j.
template <typename A>
struct SimtTile {
  // Adjacent rows and columns are in different banks.
  static constexpr int kPitch = sizeof(A) == 4 ? kUnit + 2 : kUnit + 1;
  A *left, *right;
  A sums[4][4] = {};

  __device__ __forceinline__ SimtTile(A* left_, A* right_) : left(left_), right(right_) {}

  // operand[k][i] = value(i, k) for k < kDepth, i < 64; neighboring threads load neighbors in k or in i.
  template <typename Value>
  __device__ __forceinline__ void fill(A* operand, bool along_k, Value value) {
#pragma unroll 4
    for (int e = threadIdx.x; e < kDepth * kUnit; e += kSimtThreads) {
      const int k = along_k ? e % kDepth : e / kUnit, i = along_k ? e / kDepth : e % kUnit;
      operand[k * kPitch + i] = value(i, k);
    }
  }

  // 16 products are added before they are added to the sum, which keeps long sums accurate.
  __device__ __forceinline__ void multiply(const A* columns) {
    const int y = threadIdx.x / 16, x = threadIdx.x % 16;
    A part[4][4] = {};
#pragma unroll 4
    for (int k = 0; k < kDepth; ++k) {
      A a[4], b[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = left[k * kPitch + y + 16 * i];
        b[i] = columns[k * kPitch + x + 16 * i];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) part[i][j] += a[i] * b[j];
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[i][j] += part[i][j];
  }
};

template <typename T>
__global__ void __launch_bounds__(kSimtThreads, 1)
    gram_simt(FeatureMap<T> x, GramPlan plan, GramTask<ComputeOf<T>> task) {
  using A = ComputeOf<T>;
  using Tile = SimtTile<A>;
  FASTNST_SHARED(A, left, kDepth * Tile::kPitch);
  FASTNST_SHARED(A, right, kDepth * Tile::kPitch);
  reset_counter(task);
  const Place at = place_of_block(plan);
  const bool diagonal = at.row == at.column, along_k = x.stride_n < x.stride_c;
  const int64_t row0 = int64_t{at.row} * kUnit, column0 = int64_t{at.column} * kUnit;
  const T* base = x.data + at.image * x.stride_b;
  const A* weight = task.weight ? task.weight + at.image * x.positions : nullptr;
  const int64_t steps = (x.positions + kDepth - 1) / kDepth;
  Tile tile(left, right);
  A row_sum = 0;
  begin_main_loop();
#pragma unroll 1
  for (int64_t step = at.split; step < steps; step += at.splits) {
    const int64_t first = step * kDepth;
    const auto value = [&](int64_t c, int64_t n) -> A {
      return c < x.channels && n < x.positions ? A(widen(base[c * x.stride_c + n * x.stride_n])) : A(0);
    };
    tile.fill(left, along_k, [&](int i, int k) { return value(row0 + i, first + k); });
    if (!diagonal || weight)
      tile.fill(right, along_k, [&](int i, int k) {
        const A v = value(column0 + i, first + k);
        return weight ? v * (first + k < x.positions ? weight[first + k] : A(0)) : v;
      });
    __syncthreads();
    tile.multiply(diagonal && !weight ? left : right);
    if (task.mean && diagonal && threadIdx.x < kUnit) {
      const A* terms = weight ? right : left;
      A part = 0;
      for (int k = 0; k < kDepth; ++k) part += terms[k * Tile::kPitch + threadIdx.x];
      row_sum += part;
    }
    __syncthreads();
  }
  end_main_loop();
  A* slot = slot_of_block(task, plan);
  // Products of 16 x 8 in the order of the fragments of mma.sync.
  const int y = threadIdx.x / 16, column = threadIdx.x % 8, right_half = threadIdx.x / 8 % 2;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int product = diagonal ? i * (i + 1) + 2 * j + right_half : 8 * i + 2 * j + right_half;
      if (!diagonal || j <= i)
        slot[product * kProductSize + (y % 8 * 4 + column / 2) * 4 + y / 8 * 2 + column % 2] = tile.sums[i][j];
    }
  if (task.mean && diagonal && threadIdx.x < kUnit) slot[plan.slot() - 2 * kUnit + threadIdx.x] = row_sum;
}

}  // namespace fastnst::kernels
