// Shared by the Gram kernels: the lower triangle of G as units of 64 x 64, their partial sums, and the final reduction.
//
// Positions are divided into splits. Each block writes the sums of its split to the workspace; sixteen splits form a
// group, whose last block adds them in order; the last block of all adds the groups in order, mirrors, and writes G, or
// R = G - A and its square. So a result does not depend on the order in which blocks finish.
#pragma once

#include "device.cuh"

namespace fastnst::kernels {

constexpr int kUnit = 64;
constexpr int kUnitSize = kUnit * kUnit;
constexpr int kGroup = 16;
// Enough blocks to fill any GPU twice, few enough that the reduction is cheap.
constexpr int kMaxGramBlocks = 256;

// A feature map [B, C, N]; strides in elements.
template <typename T>
struct FeatureMap {
  const T* data;
  int64_t batch, channels, positions, stride_b, stride_c, stride_n;
};

// The partition of a Gram matrix; a function of the shape only, so that a result does not depend on the GPU.
struct GramPlan {
  int tiles;   // per image
  int units;   // of 64 x 64, at most, per tile
  int splits;  // of the positions
  int64_t batch;

  __host__ __device__ int groups() const { return (splits + kGroup - 1) / kGroup; }
  // In values of the accumulate type. A slot ends with the sums over positions of the tile's 128 channels.
  __host__ __device__ int64_t slot() const { return int64_t{units} * kUnitSize + 2 * kUnit; }
  int64_t partial_values() const { return batch * tiles * splits * slot(); }
  int64_t counters() const { return batch * tiles * (groups() + 1) + 1; }
  __host__ __device__ int64_t losses() const { return batch * tiles; }
  int64_t blocks() const { return batch * tiles * splits; }
};

// The outputs; those with null pointers are omitted. `counters` start at zero.
template <typename A>
struct GramTask {
  A scale;
  const A* weight;  // [B, N]
  const A* target;  // [B, C, C]
  A* out;           // [B, C, C]
  A* mean;          // [B, C]
  A* loss;
  A* partial;
  double* losses;
  unsigned* counters;
};

// A block of G: rows 64 row .. + 63, columns 64 column .. + 63, row >= column.
struct Unit {
  int row, column;
};

struct Place {
  int64_t image;
  int tile, split;
};

__device__ __forceinline__ Place place_of_block(const GramPlan& plan) {
  const int64_t block = blockIdx.x;
  return {block / plan.splits / plan.tiles, static_cast<int>(block / plan.splits % plan.tiles),
          static_cast<int>(block % plan.splits)};
}

template <typename A>
__device__ __forceinline__ A* slot_of(const GramTask<A>& task, const GramPlan& plan, const Place& at, int split) {
  return task.partial + ((at.image * plan.tiles + at.tile) * plan.splits + split) * plan.slot();
}

// The sum of one value over `count` slots, in order.
template <typename A>
__device__ __forceinline__ A sum_slots(const A* value, int64_t step, int count) {
  A sum = 0;
#pragma unroll 4
  for (int i = 0; i < count; ++i) sum += __ldcg(value + i * step);
  return sum;
}

// All threads of the block call this after they have written their part of the slot. `kTriangle`: diagonal units
// contain rows of 16 only up to their diagonal block. `physical` maps a row or column of a unit to its channel;
// `physical_row` does so for the rows of an off-diagonal unit.
template <int kThreads, bool kTriangle, typename A, typename UnitOf, typename Physical, typename PhysicalRow>
__device__ void finish_tile(const GramTask<A>& task, const GramPlan& plan, const Place& at, UnitOf unit_of,
                            int unit_count, int64_t channels, int64_t positions, A* shared_tile, Physical physical,
                            PhysicalRow physical_row) {
  constexpr int kPitch = kUnit + 1;
  const int64_t tile = at.image * plan.tiles + at.tile;
  unsigned* counters = task.counters + tile * (plan.groups() + 1);
  const int group = at.split / kGroup, first = group * kGroup;
  const int size = plan.splits - first < kGroup ? plan.splits - first : kGroup;
  const auto held = [&](const Unit& unit, int row, int column) {
    return !kTriangle || unit.row != unit.column || column < 16 * (row / 16 + 1);
  };
  if (!last_to_arrive(counters + group, static_cast<unsigned>(size))) return;
  int64_t step = plan.slot();
  int count = size;
  A* base = slot_of(task, plan, at, first);
  if (plan.groups() > 1) {
    for (int u = 0; u < unit_count; ++u)
      for (int e = threadIdx.x; e < kUnitSize; e += kThreads)
        if (held(unit_of(u), e / kUnit, e % kUnit)) {
          A* value = base + u * kUnitSize + e;
          *value = sum_slots(value, step, count);
        }
    if (task.mean)
      for (int e = threadIdx.x; e < 2 * kUnit; e += kThreads) {
        A* value = base + int64_t{plan.units} * kUnitSize + e;
        *value = sum_slots(value, step, count);
      }
    if (!last_to_arrive(counters + plan.groups(), static_cast<unsigned>(plan.groups()))) return;
    base = slot_of(task, plan, at, 0);
    step *= kGroup;
    count = plan.groups();
  }

  double loss = 0;
  A* out = task.out + at.image * channels * channels;
  const A* target = task.target ? task.target + at.image * channels * channels : nullptr;
  const auto write = [&](int64_t row, int64_t column, A value) {
    if (row >= channels || column >= channels) return;
    const int64_t i = row * channels + column;
    if (target) {
      value -= target[i];
      loss += static_cast<double>(value) * value;
    }
    out[i] = value;
  };
  for (int u = 0; u < unit_count; ++u) {
    const Unit unit = unit_of(u);
    if (int64_t{unit.row} * kUnit >= channels) continue;  // the same for every thread
    const bool diagonal = unit.row == unit.column;
    for (int e = threadIdx.x; e < kUnitSize; e += kThreads) {
      const int row = e / kUnit, column = e % kUnit;
      if (!held(unit, row, column) || (diagonal && column > row)) continue;
      const A value = task.scale * sum_slots(base + u * kUnitSize + e, step, count);
      const int i = diagonal ? physical(row) : physical_row(row), j = physical(column);
      shared_tile[i * kPitch + j] = value;
      if (diagonal) shared_tile[j * kPitch + i] = value;
    }
    __syncthreads();
    const int64_t row0 = int64_t{unit.row} * kUnit, column0 = int64_t{unit.column} * kUnit;
    for (int e = threadIdx.x; e < kUnitSize; e += kThreads) {
      const int i = e / kUnit, j = e % kUnit;
      write(row0 + i, column0 + j, shared_tile[i * kPitch + j]);
      if (!diagonal) write(column0 + i, row0 + j, shared_tile[j * kPitch + i]);
    }
    __syncthreads();
  }
  if (task.mean) {
    const A* sums = base + int64_t{plan.units} * kUnitSize;
    for (int u = 0; u < unit_count && u < 2; ++u) {
      const Unit unit = unit_of(u);
      if (unit.row != unit.column) continue;
      for (int e = threadIdx.x; e < kUnit; e += kThreads) {
        const int64_t channel = int64_t{unit.row} * kUnit + physical(e);
        if (channel >= channels) continue;
        const A sum = sum_slots(sums + u * kUnit + e, step, count);
        task.mean[at.image * channels + channel] = positions ? sum / static_cast<A>(positions) : A(0);
      }
    }
  }
  if (!task.loss) return;
  loss = block_sum<kThreads>(loss);
  if (threadIdx.x == 0) task.losses[tile] = loss;
  const int64_t tiles = plan.losses();
  if (!last_to_arrive(task.counters + tiles * (plan.groups() + 1), static_cast<unsigned>(tiles))) return;
  double total = 0;
  for (int64_t i = threadIdx.x; i < tiles; i += kThreads) total += __ldcg(task.losses + i);
  total = block_sum<kThreads>(total);
  if (threadIdx.x == 0) *task.loss = static_cast<A>(total);
}

}  // namespace fastnst::kernels
