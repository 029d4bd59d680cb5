// The Gram matrix on tensor cores: lower triangle only, one tile per block, positions divided among blocks.
//
// A block of eight warps copies features to shared memory in stages of 32 KB, of which two are in flight while a third
// is multiplied. A stage has eight panels of 64 channels by one chunk of positions. Up to 64 channels, every warp
// multiplies one panel with itself. Above, a tile on the diagonal has two units and the unit between them (20 + 20 + 2
// x 16 products of 16 x 8): two groups of four warps take two of a stage's four chunks each. A tile off the diagonal
// has four units; a warp computes 32 x 64 of it, for both chunks of a stage.
#pragma once

#include "gram_pieces.cuh"

namespace fastnst::kernels {

constexpr int kStages = 3;
constexpr int kStagesTuring = 2;  // sm_75 has 64 KB of shared memory per block

__host__ __device__ inline bool one_unit(int64_t channels) { return channels <= kUnit; }

// A triangle or rectangle of G for one warp: products of 16 x 8, and the sums over positions of a diagonal unit.
template <typename T, Load kLoad, Multiply kMultiply, bool kWeighted>
struct WarpSums {
  static constexpr int kSteps = 2;  // k-steps per chunk
  static constexpr int kHalf = 16;
  int argument;  // for never()
  float acc[kTriangleProducts][4] = {};
  float sums[8] = {};

  __device__ __forceinline__ explicit WarpSums(int argument_) : argument(argument_) {}

  // The weights of a lane's elements of k-step s.
  __device__ static __forceinline__ float weight_of(const float* weight, int64_t positions, int64_t start, int s,
                                                    int i) {
    if constexpr (!kWeighted) return 1;
    const int64_t n = start + Rows<T, kLoad, 8>::position_of(threadIdx.x % 4, 2 * s + i);
    return n < positions ? __ldg(weight + n) : 0.f;
  }

  template <int kBlocks>
  __device__ static __forceinline__ void set(Operand<kMultiply, kBlocks>& to, const Rows<T, kLoad, kBlocks>& x, int s,
                                             int i, float w) {
#pragma unroll
    for (int r = 0; r < kBlocks; ++r) {
      if constexpr (kMultiply == Multiply::kNative) {
        to.high[r][i] = x.word(r, 2 * s + i);
      } else {
        to.set(r, i, kWeighted ? x.value(r, 2 * s + i) * w : x.value(r, 2 * s + i));
      }
    }
  }

  // The lower triangle of a unit, from the panels of kChunks chunks, `step` values apart. `panel` is where this lane
  // starts to load, `start` the position of the first chunk.
  template <int kChunks>
  __device__ __forceinline__ void add_triangle(const T* panel, int step, const float* weight, int64_t positions,
                                               int64_t start, bool with_sums) {
    Operand<kMultiply, 8> a[kChunks * kSteps], b[kWeighted ? kChunks * kSteps : 1];
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      Rows<T, kLoad, 8> x;
      x.load(panel + chunk * step);
      if (with_sums) {
#pragma unroll
        for (int r = 0; r < 8; ++r) {
          float part = 0;
#pragma unroll
          for (int e = 0; e < kFullWidth<T>; ++e) {
            const float w = weight_of(weight, positions, start + chunk * kChunk<T>, e / 2, e % 2);
            part += kWeighted ? x.value(r, e) * w : x.value(r, e);
          }
          sums[r] += part;
        }
      }
#pragma unroll
      for (int s = 0; s < kSteps; ++s)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int k = chunk * kSteps + s;
          set(a[k], x, s, i, 1);
          if constexpr (kWeighted) set(b[k], x, s, i, weight_of(weight, positions, start + chunk * kChunk<T>, s, i));
        }
    }
#pragma unroll
    for (int tile = 0; tile < kTriangleProducts; ++tile) {
      if (tile % 4 == 0 && never(argument, tile)) break;
      const int i = triangle_product_row(tile), j = tile - i * (i + 1);
      if constexpr (kWeighted) {
        multiply_tile<T>(acc[tile], a, i, b, j);
      } else {
        multiply_tile<T>(acc[tile], a, i, a, j);
      }
    }
  }

  // 32 rows of one unit by the 64 columns of another.
  template <int kChunks>
  __device__ __forceinline__ void add_half(const T* rows, const T* columns, int step, const float* weight,
                                           int64_t positions, int64_t start) {
    Operand<kMultiply, 4> a[kChunks * kSteps];
    Operand<kMultiply, 8> b[kChunks * kSteps];
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      Rows<T, kLoad, 4> x;
      Rows<T, kLoad, 8> y;
      x.load(rows + chunk * step);
      y.load(columns + chunk * step);
#pragma unroll
      for (int s = 0; s < kSteps; ++s)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int k = chunk * kSteps + s;
          set(a[k], x, s, i, weight_of(weight, positions, start + chunk * kChunk<T>, s, i));
          set(b[k], y, s, i, 1);
        }
    }
#pragma unroll
    for (int tile = 0; tile < kHalf; ++tile) {
      if (tile % 4 == 0 && never(argument, tile)) break;
      multiply_tile<T>(acc[tile], a, tile / 8, b, tile % 8);
    }
  }

  // Partial results of a warp in shared memory, which another warp adds to its own.
  __device__ __forceinline__ void give(float4* to) const {
#pragma unroll
    for (int tile = 0; tile < kTriangleProducts; ++tile) to[tile * kWarp + threadIdx.x % kWarp] = values(tile);
  }
  __device__ __forceinline__ void take(const float4* from) {
#pragma unroll
    for (int tile = 0; tile < kTriangleProducts; ++tile) {
      const float4 other = from[tile * kWarp + threadIdx.x % kWarp];
      acc[tile][0] += other.x;
      acc[tile][1] += other.y;
      acc[tile][2] += other.z;
      acc[tile][3] += other.w;
    }
  }
  __device__ __forceinline__ float4 values(int tile) const {
    return make_float4(acc[tile][0], acc[tile][1], acc[tile][2], acc[tile][3]);
  }

  // The sum over positions of row 8 r + g.
  __device__ __forceinline__ float sum_of(int r) const {
    float sum = sums[r];
    sum += __shfl_xor_sync(kEveryLane, sum, 1);
    return sum + __shfl_xor_sync(kEveryLane, sum, 2);
  }
};

template <typename T, Load kLoad, Multiply kMultiply, bool kWeighted, bool kBias>
__global__ void __launch_bounds__(kGramThreads, 1)
    gram_tiles(FeatureMap<T> x, GramPlan plan, GramTask<float> task, const T* bias, T* activated) {
  FASTNST_DYNAMIC_SHARED(memory);
  reset_counter(task);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const Place at = place_of_block(plan);
  const bool alone = plan.side == 1, diagonal = at.row == at.column;
  const int log_units = alone ? 0 : diagonal ? 1 : 2, units = 1 << log_units, chunks = kStagePanels >> log_units;
  const float* weight = kWeighted ? task.weight + at.image * x.positions : nullptr;
  const T* image = x.data + at.image * x.stride_b;
  const int64_t row0 = int64_t{at.row} * plan.side * kUnit, column0 = int64_t{at.column} * plan.side * kUnit;
  Pieces<T, kLoad, kBias> pieces(x, log_units, row0, column0);
  if constexpr (kBias) pieces.load_bias(bias, x.channels);

  // What this warp computes: a triangle, or 32 rows from block `first` of a unit by another unit.
  const bool triangle = alone || (diagonal && warp % 4 < 2);
  const int first = warp % 2 * 4,
            row_unit = alone      ? 0
                       : triangle ? warp % 2
                       : diagonal ? 1
                                  : warp % 4 / 2,
            column_unit = triangle   ? row_unit
                          : diagonal ? 0
                                     : 2 + warp / 4;
  const int empty = opaque(row0 + row_unit * kUnit + (triangle ? 0 : 8 * first) >= x.channels);
  WarpSums<T, kLoad, kMultiply, kWeighted> sums(plan.stages);

  // The positions of a stage, the stages that have all of them, and those of the map.
  const int per_stage = chunks * kChunk<T>;
  const int full = static_cast<int>(x.positions / per_stage), rest = static_cast<int>(x.positions % per_stage);
  const int stages = full + (rest ? 1 : 0);
  const auto count_of = [&](int stage) { return stage < full ? per_stage : rest; };
  const int64_t advance = int64_t{at.splits} * per_stage * x.stride_n;
  const T* next = image + pieces.offset(x, 0, int64_t{at.split} * per_stage);
  const auto copy = [&](int stage, int slot) {
    T* to = reinterpret_cast<T*>(memory + slot * kStageBytes);
    if (stage < stages) pieces.copy(x, next, to, count_of(stage), stage < full);
    next += advance;
    copy_async_commit();
  };
  // The chunks of this warp: one, or two adjacent ones. Where this lane starts to load those of its units, in a stage;
  // opaque, so that it is not computed for every stage.
  constexpr int kValues = Panel<T, kLoad>::kValues;
  const int first_chunk = alone ? warp : diagonal ? warp / 4 * 2 : 0;
  const int next_chunk = opaque(units * kValues), first_position = opaque(first_chunk * kChunk<T>);
  const int column_at = opaque((first_chunk * units + column_unit) * kValues + Rows<T, kLoad, 8>::start(0));
  const int row_at = opaque((first_chunk * units + row_unit) * kValues + Rows<T, kLoad, 4>::start(first));
  begin_main_loop();
#pragma unroll 1
  for (int i = 0; i < plan.stages - 1; ++i) copy(at.split + i * at.splits, i);
  int slot = 0;
#pragma unroll 1
  for (int stage = at.split; stage < stages; stage += at.splits) {
    if (plan.stages == kStages)
      copy_async_wait<kStages - 2>();
    else
      copy_async_wait<0>();
    T* here = reinterpret_cast<T*>(memory + slot * kStageBytes);
    const int count = count_of(stage);
    const int64_t start = int64_t{stage} * per_stage;  // read only with a bias or weights
    if constexpr (kBias) pieces.activate(x, activated + at.image * x.stride_b, here, start, count);
    __syncthreads();
    const int ahead = plan.stages - 1;
    copy(stage + ahead * at.splits, slot + ahead < plan.stages ? slot + ahead : slot - 1);
    slot = slot + 1 < plan.stages ? slot + 1 : 0;
    if (empty) continue;
    // The chunks from number `chunk` of this warp.
    const auto add = [&](auto chunks_at_once, int chunk) {
      constexpr int kChunks = decltype(chunks_at_once)::value;
      const int position = first_position + chunk * kChunk<T>;
      if (position >= count) return;
      const T* panels = here + chunk * next_chunk;
      if (triangle) {
        sums.template add_triangle<kChunks>(panels + column_at, next_chunk, weight, x.positions, start + position,
                                            task.mean != nullptr);
      } else {
        sums.template add_half<kChunks>(panels + row_at, panels + column_at, next_chunk, weight, x.positions,
                                        start + position);
      }
    };
    // Whether both chunks are multiplied at once. 3xTF32, a bias and weights take the registers that this needs.
    constexpr bool kPairs = kMultiply != Multiply::kTf32x3 && !kBias && !kWeighted && kManyRegisters;
    if constexpr (kPairs) {
      if (!alone)
        add(std::integral_constant<int, 2>{}, 0);
      else if (first_position < count)
        sums.template add_triangle<1>(here + column_at, 0, weight, x.positions, start, task.mean != nullptr);
    } else {
#pragma unroll 1
      for (int chunk = 0; chunk < (alone ? 1 : 2); ++chunk) add(std::integral_constant<int, 1>{}, chunk);
    }
  }
  end_main_loop();
  copy_async_wait<0>();
  __syncthreads();

  float* slots = slot_of_block(task, plan);
  float* scratch = reinterpret_cast<float*>(memory);
  if (task.mean && diagonal) {
    if (triangle) {
#pragma unroll
      for (int r = 0; r < 8; ++r) {
        const float sum = sums.sum_of(r);
        if (lane % 4 == 0) scratch[warp * kUnit + channel_in_unit(plan.order, 8 * r + lane / 4)] = sum;
      }
    }
    __syncthreads();
    if (threadIdx.x < (alone ? kUnit : 2 * kUnit)) {
      const int unit = threadIdx.x / kUnit, channel = threadIdx.x % kUnit;
      float sum = 0;
      for (int w = unit; w < kGramWarps; w += alone ? 1 : 4) sum += scratch[w * kUnit + channel];
      slots[plan.slot() - 2 * kUnit + threadIdx.x] = sum;
    }
    __syncthreads();
  }

  // Warps that share an output add their sums in a fixed order, two and two: up to 64 channels all eight, on the
  // diagonal those of the same place in the two groups.
  float4* held = reinterpret_cast<float4*>(memory);
#pragma unroll 1
  for (int half = kGramWarps / 2; diagonal && half >= (alone ? 1 : kGramWarps / 2); half /= 2) {
    constexpr int kVectors = kTriangleProducts * kWarp;
    if (warp >= half && warp < 2 * half) sums.give(held + (warp - half) * kVectors);
    __syncthreads();
    if (warp < half) sums.take(held + warp * kVectors);
    __syncthreads();
  }
  if (warp >= (alone ? 1 : diagonal ? kGramWarps / 2 : kGramWarps)) return;
  const int from = triangle ? 0 : 4 * first;  // of the unit's products
  float4* to = reinterpret_cast<float4*>(
      slots + product_in_slot(plan, diagonal, row_unit, diagonal ? column_unit : column_unit - 2, from) * kProductSize);
#pragma unroll
  for (int tile = 0; tile < kTriangleProducts; ++tile)
    if (triangle || tile < WarpSums<T, kLoad, kMultiply, kWeighted>::kHalf) to[tile * kWarp + lane] = sums.values(tile);
}

}  // namespace fastnst::kernels
