// The Gram matrix on tensor cores: lower triangle only, features read once per tile, positions divided among blocks.
//
// A block has four warps. Up to 64 channels, each warp computes the whole triangle for a quarter of the block's
// positions. Above, a tile is either two diagonal units and the unit between them (20 + 20 + 2 x 16 products of 16 x
// 8), or two adjacent units (4 x 16); the warps read the same positions at about the same time, so that these hit L1.
#pragma once

#include "fragments.cuh"

namespace fastnst::kernels {

constexpr int kGramWarps = 4;
constexpr int kGramThreads = kGramWarps * kWarp;
constexpr int kSpan = 4;  // contiguous chunks per block

__host__ __device__ inline bool one_unit(int64_t channels) { return channels <= kUnit; }

// Tile `index` of P x P: in row q of pairs of units, first the diagonal tile, then the tiles left of it.
struct MmaTile {
  int row, pair, count;  // count 1: the one unit; 3: on the diagonal; 2: row `row`, columns of pair `pair`

  __device__ __forceinline__ MmaTile(int index, int64_t channels) {
    int q = 0;
    while ((q + 1) * (q + 1) <= index) ++q;
    const int rest = index - q * q;
    count = one_unit(channels) ? 1 : rest == 0 ? 3 : 2;
    row = rest == 0 ? 2 * q : 2 * q + (rest - 1) % 2;
    pair = rest == 0 ? q : (rest - 1) / 2;
  }

  __device__ __forceinline__ Unit unit(int u) const {
    if (count == 2) return {row, 2 * pair + u};
    return {row + (u > 0), row + (u == 1)};
  }
};

// One 16 x 8 tile of a unit's partial sums.
__device__ __forceinline__ void write_tile(float* out, int row, int column, const float (&d)[4]) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  float* at = out + (row + g) * kUnit + column + 2 * t;
  *reinterpret_cast<float2*>(at) = make_float2(d[0], d[1]);
  *reinterpret_cast<float2*>(at + 8 * kUnit) = make_float2(d[2], d[3]);
}

// The triangle of a diagonal unit, for one warp.
template <typename T, Load kLoad, Multiply kMultiply, bool kWeighted>
struct Diagonal {
  static constexpr int kTiles = 20;
  float acc[kTiles][4] = {};
  float sums[8] = {};

  // `refill` loads the next chunk into x. It is called after the last use of x, so that the last products hide the
  // latency.
  template <typename Refill>
  __device__ __forceinline__ void add(const Rows<T, kLoad, 8>& x, const float* weight, int64_t positions, int chunk,
                                      bool with_sums, Refill refill) {
    constexpr int kSteps = 2;
    const int t = threadIdx.x % 4;
    if (with_sums) {
#pragma unroll
      for (int r = 0; r < 8; ++r) {
        float part = 0;
#pragma unroll
        for (int e = 0; e < kFullWidth<T>; ++e) part += x.value(r, e);
        sums[r] += part;
      }
    }
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      if (never(positions, s)) break;
      Operand<kMultiply, 8> a, b;
      float w[2] = {1, 1};
      if constexpr (kWeighted) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int64_t n = int64_t{chunk} * kChunk<T> + Rows<T, kLoad, 8>::position_of(t, 2 * s + i);
          w[i] = n < positions ? __ldg(weight + n) : 0.f;
        }
      }
#pragma unroll
      for (int r = 0; r < 8; ++r)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if constexpr (kMultiply == Multiply::kNative) {
            a.high[r][i] = x.word(r, 2 * s + i);
          } else {
            const float value = x.value(r, 2 * s + i);
            a.set(r, i, value);
            if constexpr (kWeighted) b.set(r, i, value * w[i]);
          }
        }
      if (s == kSteps - 1) refill();
#pragma unroll
      for (int first = 0; first < kTiles; first += 4) {
        if (never(positions, first)) break;
#pragma unroll
        for (int tile = first; tile < first + 4; ++tile) {
          const int i = tile < 2 ? 0 : tile < 6 ? 1 : tile < 12 ? 2 : 3, j = tile - i * (i + 1);
          if constexpr (kWeighted) {
            multiply_tile<T>(acc[tile], a, i, b, j);
          } else {
            multiply_tile<T>(acc[tile], a, i, a, j);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void write(float* unit) const {
    int tile = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int j = 0; j < 2 * i + 2; ++j, ++tile) write_tile(unit, 16 * i, 8 * j, acc[tile]);
  }

  // The sum of row 8 r + g over its four lanes.
  __device__ __forceinline__ float sum_of(int r) const {
    float sum = sums[r];
    sum += __shfl_xor_sync(kEveryLane, sum, 1);
    return sum + __shfl_xor_sync(kEveryLane, sum, 2);
  }
};

// 32 rows by 64 columns of an off-diagonal unit, for one warp.
template <typename T, Load kLoad, Multiply kMultiply, bool kWeighted>
struct Half {
  float acc[16][4] = {};

  __device__ __forceinline__ void add(const Rows<T, kLoad, 4>& x, const Rows<T, kLoad, 8>& y, const float* weight,
                                      int64_t positions, int chunk) {
    constexpr int kSteps = 2;
    const int t = threadIdx.x % 4;
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      if (never(positions, s)) break;
      Operand<kMultiply, 4> a;
      Operand<kMultiply, 8> b;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float w = 1;
        if constexpr (kWeighted) {
          const int64_t n = int64_t{chunk} * kChunk<T> + Rows<T, kLoad, 8>::position_of(t, 2 * s + i);
          w = n < positions ? __ldg(weight + n) : 0.f;
        }
#pragma unroll
        for (int r = 0; r < 8; ++r) {
          if constexpr (kMultiply == Multiply::kNative) {
            if (r < 4) a.high[r % 4][i] = x.word(r % 4, 2 * s + i);
            b.high[r][i] = y.word(r, 2 * s + i);
          } else {
            if (r < 4) a.set(r % 4, i, x.value(r % 4, 2 * s + i));
            b.set(r, i, kWeighted ? y.value(r, 2 * s + i) * w : y.value(r, 2 * s + i));
          }
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (never(positions, i)) break;
#pragma unroll
        for (int j = 0; j < 4; ++j) multiply_tile<T>(acc[4 * i + j], a, i / 2, b, i % 2 * 4 + j);
      }
    }
  }

  __device__ __forceinline__ void write(float* unit, int first_row) const {
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) write_tile(unit, first_row + 16 * i, 8 * j, acc[8 * i + j]);
  }
};

// The loop of one warp over its chunks. With a bias, features are activated when loaded, and the warps on the diagonal
// write them to `activated`; if the map is one unit wide, each of them is the only reader of what it writes.
template <typename T, Load kLoad, Multiply kMultiply, bool kWeighted, bool kBias>
__global__ void __launch_bounds__(kGramThreads, 2)
    gram_mma(FeatureMap<T> x, GramPlan plan, GramTask<float> task, const T* bias, T* activated) {
  FASTNST_SHARED(float, scratch, kUnit*(kUnit + 1));
  FASTNST_SHARED(float, scratch_sums, kUnit);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const Place at = place_of_block(plan);
  const MmaTile tile(at.tile, x.channels);
  const float* weight = kWeighted ? task.weight + at.image * x.positions : nullptr;
  const int chunks = static_cast<int>((x.positions + kChunk<T> - 1) / kChunk<T>);
  const bool alone = one_unit(x.channels);
  // Chunk number i of this warp.
  const auto chunk_of = [&](int i) {
    return alone ? (at.split + i * plan.splits) * kSpan + warp
                 : (at.split + i / kSpan * plan.splits) * kSpan + i % kSpan;
  };
  float* slot = slot_of(task, plan, at, at.split);
  const int u = alone ? 0 : tile.count == 3 ? (warp < 2 ? warp : 2) : warp / 2;
  const Unit unit = tile.unit(u);
  const int64_t row = int64_t{unit.row} * kUnit, column = int64_t{unit.column} * kUnit;
  if (unit.row == unit.column) {
    Diagonal<T, kLoad, kMultiply, kWeighted> sums;
    if (row < x.channels) {
      Rows<T, kLoad, 8> features;
      int chunk = chunk_of(0);
      begin_main_loop();
      if (chunk < chunks) features.load(x, at.image, row, 0, chunk);
#pragma unroll 1
      for (int i = 1; chunk < chunks; ++i) {
        const int next = chunk_of(i);
        if constexpr (kBias) features.activate(x, bias, activated, true, at.image, row, 0, chunk);
        sums.add(features, weight, x.positions, chunk, task.mean != nullptr, [&] {
          if (next < chunks) features.load(x, at.image, row, 0, next);
        });
        chunk = next;
      }
      end_main_loop();
    }
    if (alone) {
      // The warps add their sums in order.
      for (int turn = 0; turn < kGramWarps; ++turn) {
        if (warp == turn) {
          const int g = lane / 4, t = lane % 4;
          int k = 0;
#pragma unroll
          for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 2 * i + 2; ++j, ++k)
#pragma unroll
              for (int e = 0; e < 4; ++e) {
                float* sum = scratch + (16 * i + g + e / 2 * 8) * (kUnit + 1) + 8 * j + 2 * t + e % 2;
                *sum = turn ? *sum + sums.acc[k][e] : sums.acc[k][e];
              }
          if (task.mean) {
#pragma unroll
            for (int r = 0; r < 8; ++r) {
              const float sum = sums.sum_of(r);
              if (t == 0) scratch_sums[8 * r + g] = turn ? scratch_sums[8 * r + g] + sum : sum;
            }
          }
        }
        __syncthreads();
      }
      for (int e = threadIdx.x; e < kUnitSize; e += kGramThreads)
        if (e % kUnit < 16 * (e / kUnit / 16 + 1)) slot[e] = scratch[e / kUnit * (kUnit + 1) + e % kUnit];
      if (task.mean)
        for (int e = threadIdx.x; e < kUnit; e += kGramThreads)
          slot[int64_t{plan.units} * kUnitSize + e] = scratch_sums[e];
    } else {
      sums.write(slot + u * kUnitSize);
      if (task.mean) {
#pragma unroll
        for (int r = 0; r < 8; ++r) {
          const float sum = sums.sum_of(r);
          if (lane % 4 == 0) slot[int64_t{plan.units} * kUnitSize + u * kUnit + 8 * r + lane / 4] = sum;
        }
      }
    }
  } else {
    Half<T, kLoad, kMultiply, kWeighted> sums;
    const int first = warp % 2 * 4;
    if (row + 8 * first < x.channels) {
      Rows<T, kLoad, 4> a;
      Rows<T, kLoad, 8> b;
      begin_main_loop();
#pragma unroll 1
      for (int i = 0, chunk = chunk_of(0); chunk < chunks; chunk = chunk_of(++i)) {
        a.load(x, at.image, row, first, chunk);
        b.load(x, at.image, column, 0, chunk);
        if constexpr (kBias) {
          a.activate(x, bias, activated, false, at.image, row, first, chunk);
          b.activate(x, bias, activated, false, at.image, column, 0, chunk);
        }
        sums.add(a, b, weight, x.positions, chunk);
      }
      end_main_loop();
    }
    sums.write(slot + u * kUnitSize, 8 * first);
  }
  const bool sums_of_two = !alone && tile.count == 3;
  if (task.mean && alone && threadIdx.x < kUnit) slot[int64_t{plan.units} * kUnitSize + kUnit + threadIdx.x] = 0;
  if (task.mean && !alone && !sums_of_two)
    for (int e = threadIdx.x; e < 2 * kUnit; e += kGramThreads) slot[int64_t{plan.units} * kUnitSize + e] = 0;
  finish_tile<kGramThreads, true>(
      task, plan, at, [&](int i) { return tile.unit(i); }, tile.count, x.channels, x.positions, scratch,
      [](int i) { return channel_of_row<T, kLoad, 8>(i); }, [](int i) { return channel_of_row<T, kLoad, 4>(i); });
}

}  // namespace fastnst::kernels
