// Shared by the Gram kernels: the partition of G and of the positions, and the sum of the partial results.
//
// G is computed as its lower triangle, in units of 64 x 64. A block computes one tile, of one or 2 x 2 units, for its
// share of the positions, the split, and writes it to the workspace as products of 16 x 8, in the order of the
// fragments of mma.sync. The kernel gram_finish then adds the splits of each product in a fixed order, maps rows and
// columns to channels, mirrors them, and writes G, or R = G - A and its square. Results do not depend on the order in
// which blocks finish. They depend on the number of splits, which is a function of the shape, the dtype, the layout and
// the number of multiprocessors of the GPU.
#pragma once

#include <type_traits>

#include "device.cuh"

namespace fastnst::kernels {

constexpr int kUnit = 64;
constexpr int kProductSize = 16 * 8;
constexpr int kUnitProducts = 32;
constexpr int kTriangleProducts = 20;  // of a unit on the diagonal

// A feature map [B, C, N]; strides in elements.
template <typename T>
struct FeatureMap {
  const T* data;
  int64_t batch, channels, positions, stride_b, stride_c, stride_n;
};

// The channels of rows and columns of a unit, in the order in which kernels compute them: the same order; 16 bytes of
// float32 along channels, or half a unit of half precision; 16 bytes of half precision.
enum class ChannelOrder { kSame, kFours, kEights };

// The partition of a Gram matrix.
struct GramPlan {
  int64_t batch, channels;
  int side;             // units per side of a tile: 1 or 2
  int splits;           // of the positions, for tiles off the diagonal
  int diagonal_splits;  // for those on the diagonal, which have less work
  int stages;           // of the pipeline of copies to shared memory
  ChannelOrder order;

  __host__ __device__ int units() const { return static_cast<int>((channels + kUnit - 1) / kUnit); }
  __host__ __device__ int rows() const { return (units() + side - 1) / side; }
  __host__ __device__ int off_diagonal_tiles() const { return rows() * (rows() - 1) / 2; }
  __host__ __device__ int blocks_per_image() const { return off_diagonal_tiles() * splits + rows() * diagonal_splits; }
  // The products of G's lower triangle.
  __host__ __device__ int products() const {
    return kTriangleProducts * units() + kUnitProducts * (units() * (units() - 1) / 2);
  }
  // The values that a block writes: products, then the sums over positions of the channels of a tile on the diagonal.
  __host__ __device__ int64_t slot() const {
    const int products = side == 1    ? kUnitProducts
                         : rows() > 1 ? 4 * kUnitProducts
                                      : 2 * kTriangleProducts + kUnitProducts;
    return products * kProductSize + 2 * kUnit;
  }
  // gram_finish: warps that share the splits of one product, and blocks for the products of one image.
  __host__ __device__ int finish_groups() const { return splits > 80 ? 8 : splits > 20 ? 4 : 2; }
  __host__ __device__ int finish_blocks() const { return products() / (8 / finish_groups()); }
  int64_t blocks() const { return batch * blocks_per_image(); }
  int64_t partial_values() const { return blocks() * slot(); }
  __host__ __device__ int64_t losses() const { return batch * finish_blocks(); }
};

// The outputs; those with null pointers are omitted.
template <typename A>
struct GramTask {
  A scale;
  const A* weight;  // [B, N]
  const A* target;  // [B, C, C]
  A* out;           // [B, C, C]
  A* mean;          // [B, C]: F w, or F 1 / N without weights
  A* loss;
  A* partial;
  double* losses;
  // Of the blocks of gram_finish, the last of which adds their losses. Any value before: the kernel that fills the
  // slots resets it.
  unsigned* counter;
};

// The tile in row `row` and column `column` of tiles, row >= column, and the share of the positions of a block.
struct Place {
  int64_t image;
  int row, column, split, splits;
};

// The row of entry `index` of a lower triangle, whose rows have 1, 2, 3, ... entries.
__device__ __forceinline__ int triangle_row(int index) {
  int row = static_cast<int>((sqrtf(8.f * static_cast<float>(index) + 1.f) - 1.f) / 2.f);
  if ((row + 1) * (row + 2) / 2 <= index) ++row;  // the root is rounded
  if (row * (row + 1) / 2 > index) --row;
  return row;
}

__device__ __forceinline__ Place place_of_block(const GramPlan& plan) {
  const int per_image = plan.blocks_per_image();
  const int64_t image = blockIdx.x / per_image;
  const int block = static_cast<int>(blockIdx.x % per_image), off = plan.off_diagonal_tiles() * plan.splits;
  if (block >= off) {
    const int tile = (block - off) / plan.diagonal_splits;
    return {image, tile, tile, (block - off) % plan.diagonal_splits, plan.diagonal_splits};
  }
  const int tile = block / plan.splits, row = triangle_row(tile) + 1;
  return {image, row, tile - row * (row - 1) / 2, block % plan.splits, plan.splits};
}

// The first of the blocks of a tile: their partial results are contiguous, in the order of splits.
__device__ __forceinline__ int64_t first_block(const GramPlan& plan, int64_t image, int row, int column) {
  const int tile = row == column ? plan.off_diagonal_tiles() * plan.splits + row * plan.diagonal_splits
                                 : (row * (row - 1) / 2 + column) * plan.splits;
  return image * plan.blocks_per_image() + tile;
}

template <typename A>
__device__ __forceinline__ A* slot_of_block(const GramTask<A>& task, const GramPlan& plan) {
  return task.partial + int64_t{blockIdx.x} * plan.slot();
}

// The row, in 16s, of product `index` of a unit on the diagonal; its column, in 8s, is index - row (row + 1).
__host__ __device__ __forceinline__ int triangle_product_row(int index) {
  return index < 2 ? 0 : index < 6 ? 1 : index < 12 ? 2 : 3;
}

// The number in a slot of product `index` of a unit, which is unit (row, column) of its tile.
__device__ __forceinline__ int product_in_slot(const GramPlan& plan, bool diagonal_tile, int row, int column,
                                               int index) {
  if (plan.side == 1) return index;
  if (!diagonal_tile) return (2 * row + column) * kUnitProducts + index;
  return (row != column ? 2 : row) * kTriangleProducts + index;
}

__device__ __forceinline__ int channel_in_unit(ChannelOrder order, int row) {
  const int r = row / 8, g = row % 8;
  if (order == ChannelOrder::kSame) return row;
  return order == ChannelOrder::kFours ? 32 * (r / 4) + 4 * g + r % 4 : 8 * g + r;
}

template <typename A>
__device__ __forceinline__ void reset_counter(const GramTask<A>& task) {
  if (task.loss && blockIdx.x == 0 && threadIdx.x == 0) *task.counter = 0;
}

constexpr int kFinishThreads = 256;
constexpr int kFinishLoads = 4;  // in flight per thread

// Four values, 16 or 32 bytes.
template <typename A>
struct alignas(16) Four {
  A values[4];
};

// The sum of `count` values that are `step` apart, in order, with many loads in flight: all of them are unconditional,
// because the compiler waits for a conditional load before the next.
template <typename A>
__device__ __forceinline__ Four<A> sum_of_slots(const A* from, int64_t step, int count) {
  Four<A> sum = {};
  const auto add = [&](auto whole, int i) {
    constexpr bool kWhole = decltype(whole)::value;
    Four<A> next[kFinishLoads];
#pragma unroll
    for (int k = 0; k < kFinishLoads; ++k)
      next[k] = *reinterpret_cast<const Four<A>*>(from + (kWhole || i + k < count ? i + k : count - 1) * step);
#pragma unroll
    for (int k = 0; k < kFinishLoads; ++k)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (kWhole || i + k < count) sum.values[e] += next[k].values[e];
  };
  int i = 0;
#pragma unroll 1
  for (; i + kFinishLoads <= count; i += kFinishLoads) add(std::true_type{}, i);
  if (i < count) add(std::false_type{}, i);
  return sum;
}

// Blocks for the products of G's lower triangle, a warp per product and share of the splits, and, for the mean, a block
// per 64 channels.
template <typename A>
__global__ void __launch_bounds__(kFinishThreads)
    gram_finish(GramPlan plan, GramTask<A> task, int64_t channels, int64_t positions) {
  FASTNST_SHARED(Four<A>, parts, kFinishThreads);
  const int blocks = plan.finish_blocks(), units = task.mean ? plan.units() : 0;
  const int64_t image = blockIdx.x / (blocks + units);
  const int block = static_cast<int>(blockIdx.x % (blocks + units));
  if (block >= blocks) {
    const int unit = block - blocks, tile = unit / plan.side;
    const int64_t channel = int64_t{unit} * kUnit + threadIdx.x;
    if (threadIdx.x >= kUnit || channel >= channels) return;
    const A* from = task.partial + (first_block(plan, image, tile, tile) + 1) * plan.slot() - 2 * kUnit +
                    unit % plan.side * kUnit + threadIdx.x;
    A sum = 0;
#pragma unroll 8
    for (int i = 0; i < plan.diagonal_splits; ++i) sum += from[i * plan.slot()];
    task.mean[image * channels + channel] = task.weight || !positions ? sum : sum / static_cast<A>(positions);
    return;
  }

  // The products of a block belong to one unit. Row u of units starts at product 16 u^2 + 4 u.
  const int groups = plan.finish_groups(), per_block = 8 / groups, warp = threadIdx.x / kWarp;
  const int product = block * per_block + warp % per_block, group = warp / per_block;
  int row = static_cast<int>((sqrtf(1.f + 4.f * static_cast<float>(product)) - 1.f) / 8.f);
  if (16 * (row + 1) * (row + 1) + 4 * (row + 1) <= product) ++row;  // the root is rounded
  if (16 * row * row + 4 * row > product) --row;
  const int rest = product - 16 * row * row - 4 * row, column = rest / kUnitProducts;
  const bool diagonal = column >= row;
  const int index = diagonal ? rest - kUnitProducts * row : rest % kUnitProducts, unit_column = diagonal ? row : column;
  const int i = diagonal ? triangle_product_row(index) : index / 8, j = diagonal ? index - i * (i + 1) : index % 8;
  const int tile_row = row / plan.side, tile_column = unit_column / plan.side;
  const bool diagonal_tile = tile_row == tile_column;
  const int splits = diagonal_tile ? plan.diagonal_splits : plan.splits;
  const int in_slot = product_in_slot(plan, diagonal_tile, row % plan.side, unit_column % plan.side, index);
  const int lane = threadIdx.x % kWarp;
  const A* from =
      task.partial + first_block(plan, image, tile_row, tile_column) * plan.slot() + in_slot * kProductSize + 4 * lane;
  parts[threadIdx.x] =
      sum_of_slots(from + group * plan.slot(), groups * plan.slot(), (splits - group + groups - 1) / groups);
  __syncthreads();

  double loss = 0;
  if (group == 0) {
    Four<A> sum = parts[threadIdx.x];
    for (int k = 1; k < groups; ++k)
#pragma unroll
      for (int e = 0; e < 4; ++e) sum.values[e] += parts[threadIdx.x + k * per_block * kWarp].values[e];
    A* out = task.out + image * channels * channels;
    const A* target = task.target ? task.target + image * channels * channels : nullptr;
    const ChannelOrder by_row =
        diagonal || plan.order != ChannelOrder::kEights ? plan.order : ChannelOrder::kFours;  // of half units
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int at_row = 16 * i + lane / 4 + e / 2 * 8, at_column = 8 * j + lane % 4 * 2 + e % 2;
      const int64_t r = int64_t{row} * kUnit + channel_in_unit(by_row, at_row);
      const int64_t c = int64_t{unit_column} * kUnit + channel_in_unit(plan.order, at_column);
      // On the diagonal only the lower half is used.
      if (r >= channels || c >= channels || (diagonal && at_column > at_row)) continue;
      const A value = task.scale * sum.values[e];
#pragma unroll
      for (int mirrored = 0; mirrored < 2; ++mirrored) {
        if (mirrored && r == c) continue;
        const int64_t to = mirrored ? c * channels + r : r * channels + c;
        const A result = target ? value - target[to] : value;
        if (target) loss += static_cast<double>(result) * result;
        out[to] = result;
      }
    }
  }
  if (!task.loss) return;
  loss = block_sum<kFinishThreads>(loss);
  const auto count = static_cast<unsigned>(plan.losses());
  if (threadIdx.x == 0) task.losses[image * blocks + block] = loss;
  if (!last_to_arrive(task.counter, count)) return;
  double total = 0;
#pragma unroll 4
  for (unsigned k = threadIdx.x; k < count; k += kFinishThreads) total += __ldcg(task.losses + k);
  total = block_sum<kFinishThreads>(total);
  if (threadIdx.x == 0) *task.loss = static_cast<A>(total);
}

template <typename A>
void launch_gram_finish(const GramPlan& plan, const GramTask<A>& task, int64_t positions, cudaStream_t stream) {
  const int units = task.mean ? plan.units() : 0;
  launch(gram_finish<A>, grid_of(plan.batch * (plan.finish_blocks() + units)), kFinishThreads, 0, stream, plan, task,
         plan.channels, positions);
}

}  // namespace fastnst::kernels
