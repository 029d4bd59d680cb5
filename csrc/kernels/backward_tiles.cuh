// The backward on tensor cores: M F in tiles of positions by channels.
//
// A block copies F and M to shared memory in stages of 32 channels of the sum, of which three are in flight. Its warps
// then add the other terms and write the tile. Rows of fragments are assigned so that a lane holds 16 bytes of the
// result: NCHW multiplies F^T by M (a lane's rows are neighboring positions), channels_last M by F (neighboring
// channels). Pieces of 16 bytes are permuted within a row of shared memory, so that reads in the main loop have no bank
// conflicts.
#pragma once

#include "backward_parts.cuh"
#include "backward_simt.cuh"

namespace fastnst::kernels {

constexpr int kSlots = 4;  // for stages in shared memory

// Blocks per multiprocessor, as its shared memory allows.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 860 || __CUDA_ARCH__ == 890 || __CUDA_ARCH__ >= 1200)
constexpr int kBackwardBlocks = 1;
#else
constexpr int kBackwardBlocks = 2;
#endif

// Bfloat16 is multiplied by M as the sum of two bfloat16, half by M in tf32, float32 as 3xTF32 or tf32.
template <typename T, Load kLoad, Multiply kMultiply, int kWarps, bool kNarrow>
__global__ void __launch_bounds__(kWarps* kWarp, kBackwardBlocks)
    backward_tiles(FeatureMap<T> x, BackwardTask<T> task) {
  using Tile = BackwardTile<T, kLoad, kWarps, kNarrow>;
  constexpr int kThreads = kWarps * kWarp, kWidth = Tile::kWidth;
  constexpr bool kRowwise = Tile::kRowwise;
  FASTNST_DYNAMIC_SHARED(memory);
  const auto across = static_cast<unsigned>((x.channels + Tile::kChannels - 1) / Tile::kChannels);
  const auto strips = static_cast<unsigned>((x.positions + Tile::kPositions - 1) / Tile::kPositions);
  const int64_t image = blockIdx.x / across / strips;
  const int64_t first = int64_t{blockIdx.x / across % strips} * Tile::kPositions;
  const int first_channel = static_cast<int>(blockIdx.x % across) * Tile::kChannels;
  const int64_t offset = image * x.stride_b;
  const int stages = static_cast<int>((x.channels + kSumChannels - 1) / kSumChannels);
  // The stages end with the tile's own channels, so that its F is in shared memory when the result is written.
  const int own_end = first_channel / kSumChannels + Tile::kChannels / kSumChannels;
  const int end = own_end < stages ? own_end : stages;

  using Result = LaneResult<T, Tile>;
  const auto left_of = Result::left_of;
  const int positions_left = left_of(x.positions - first);
  // Computed where it is needed, which saves registers in the main loop.
  const auto result_of_lane = [&] {
    return Result(x, opaque(static_cast<int>(threadIdx.x)), offset, first, first_channel);
  };
  WarpProducts<T, kLoad, kMultiply, Tile> products(threadIdx.x);

  // The copies of this thread: pieces of 16 bytes of F and of M. Those of F are a constant number of rows apart, those
  // of M are pairs of rows, which split_rows takes.
  constexpr int kInner = (kRowwise ? Tile::kPositions : kSumChannels) / kWidth, kStep = kThreads / kInner;
  constexpr int kFeaturePieces = Tile::kFeatureBytes / 16 / kThreads;
  constexpr int kMatrixInner = kSumChannels / 4, kMatrixStep = kThreads / kMatrixInner;
  constexpr int kMatrixPieces = Tile::kChannels / kMatrixStep, kPair = kRowwise ? 1 : 2;
  const int inner = static_cast<int>(threadIdx.x) % kInner * kWidth, outer = static_cast<int>(threadIdx.x) / kInner;
  const T* features = x.data + offset + first * x.stride_n + inner + outer * (kRowwise ? x.stride_c : x.stride_n);
  const int matrix_row = static_cast<int>(threadIdx.x) / kMatrixInner * kPair,
            matrix_k = threadIdx.x % kMatrixInner * 4;
  const int matrix_place = Tile::matrix_place(matrix_row, matrix_k);  // rows of other pieces are permuted alike
  const auto further_row = [](int j) { return j % kPair + j / kPair * kPair * kMatrixStep; };
  const int matrix_left = left_of(task.padded - first_channel);
  const float* matrix = task.matrix + (image * task.padded + first_channel + matrix_row) * task.padded + matrix_k;
  const auto stage_of = [&](int stage) { return memory + stage % kSlots * Tile::kStageBytes; };
  const auto features_of = [&](int stage) { return reinterpret_cast<T*>(stage_of(stage)); };
  const auto matrix_of = [&](int stage) { return reinterpret_cast<float*>(stage_of(stage) + Tile::kFeatureBytes); };
  // The gradient from above follows the stages, in two halves. A thread copies what it uses itself. The first or second
  // part of a slot, whichever is larger, holds half a tile; it is no longer needed.
  constexpr int kHalf = Result::kVectors / 2;
  const auto above_of = [&](int v) {
    return reinterpret_cast<uint4*>(stage_of(stages + v / kHalf) + (kNarrow ? 0 : Tile::kFeatureBytes)) +
           v % kHalf * kThreads + threadIdx.x;
  };
  const auto copy_above = [&](auto half) {
    const Result result = result_of_lane();
#pragma unroll
    for (int k = 0; k < kHalf; ++k) {
      const int v = decltype(half)::value * kHalf + k;
      const bool valid = result.inside(v);
      copy_async(above_of(v), valid ? task.above + result.at(x, v) : x.data, valid);
    }
  };
  // `whole`: all pieces are inside the map, the usual case, which needs no tests.
  const auto copy_stage = [&](auto whole, int stage, int k0) {
    constexpr bool kWhole = decltype(whole)::value;
    const int left = left_of(x.channels - k0);
    const T* from = features + k0 * (kRowwise ? x.stride_c : 1);
    T* to = features_of(stage);
#pragma unroll
    for (int j = 0; j < kFeaturePieces; ++j) {
      const int c = kRowwise ? outer + j * kStep : inner, n = kRowwise ? inner : outer + j * kStep;
      const bool valid = kWhole || (c < left && n < positions_left);
      copy_async(to + Tile::place(c, n), valid ? from : x.data, valid);
      from += kStep * (kRowwise ? x.stride_c : x.stride_n);
    }
    float* to_matrix = matrix_of(stage) + matrix_place;
#pragma unroll
    for (int j = 0; j < kMatrixPieces; ++j) {
      const bool valid = kWhole || matrix_row + further_row(j) < matrix_left;
      const float* from_matrix = matrix + k0 + further_row(j) * task.padded;
      copy_async(to_matrix + further_row(j) * kSumChannels, valid ? from_matrix : task.matrix, valid);
    }
  };
  const auto copy = [&](int stage) {
    if (stage < stages) {
      const int k0 = (end + stage - (end + stage < stages ? 0 : stages)) * kSumChannels;
      if (x.channels - k0 >= kSumChannels && positions_left >= Tile::kPositions && matrix_left >= Tile::kChannels)
        copy_stage(std::true_type{}, stage, k0);
      else
        copy_stage(std::false_type{}, stage, k0);
    } else if (task.above) {
      if (stage == stages) copy_above(std::integral_constant<int, 0>{});
      if (stage == stages + 1) copy_above(std::integral_constant<int, 1>{});
    }
    copy_async_commit();
  };

  begin_main_loop();
#pragma unroll 1
  for (int i = 0; i < kSlots - 1; ++i) copy(i);
#pragma unroll 1
  for (int stage = 0; stage < stages; ++stage) {
    copy_async_wait<kSlots - 2>();
    if constexpr (kMultiply == Multiply::kNative) {
      float* held = matrix_of(stage) + matrix_place;
#pragma unroll
      for (int j = 0; j < kMatrixPieces; j += 2)
        split_rows<kRowwise>(held + further_row(j) * kSumChannels, held + further_row(j + 1) * kSumChannels);
    }
    __syncthreads();
    copy(stage + kSlots - 1);
#pragma unroll
    for (int k = 0; k < kSumChannels; k += 16) {
      if (kMultiply == Multiply::kTf32x3 && never(static_cast<int>(task.padded), k)) break;
      products.add(features_of(stage), matrix_of(stage), k, static_cast<int>(task.padded));
    }
  }
  end_main_loop();

  copy_async_wait<0>();
  const Result result = result_of_lane();
#pragma unroll
  for (int v = 0; v < Result::kVectors; ++v) {
    if (v % 4 == 0 && never(stages, v)) break;
    if (!result.inside(v)) continue;
    const int column = v % 2, nt = v / 2 % Tile::kNTiles, group = v / 2 / Tile::kNTiles;
    const int c = result.channel + Result::further_channel(v), n = result.position + Result::further_position(v);
    float values[kWidth];
#pragma unroll
    for (int i = 0; i < kWidth; ++i)
      values[i] = task.factor * products.acc[(group * kWidth / 2 + i / 2) * Tile::kNTiles + nt][2 * (i % 2) + column];
    if (task.shift) {
      const float* shift = task.shift + image * x.channels + first_channel + c;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) values[i] += shift[kRowwise ? 0 : i];
    }
    if (task.weight) {
      const float* weight = task.weight + image * x.positions + first + n;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) values[i] *= weight[kRowwise ? i : 0];
    }
    if (task.above) {
      uint32_t above[4];
      unpack(above, *above_of(v));
#pragma unroll
      for (int i = 0; i < kWidth; ++i) values[i] += element<T>(above, i);
    }
    uint32_t f[4];
    unpack(f, *reinterpret_cast<const uint4*>(features_of(stages - end + (first_channel + c) / kSumChannels) +
                                              Tile::place(c % kSumChannels, n)));
    if (task.target) {
      uint32_t target[4];
      unpack(target, *reinterpret_cast<const uint4*>(task.target + result.at(x, v)));
#pragma unroll
      for (int i = 0; i < kWidth; ++i) values[i] += task.content * (element<T>(f, i) - element<T>(target, i));
    }
    Pack<T, kWidth> out;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) narrow(&out.values[i], !task.relu || element<T>(f, i) > 0 ? values[i] : 0.f);
    *reinterpret_cast<Pack<T, kWidth>*>(task.out + result.at(x, v)) = out;
  }
}

template <typename T, Load kLoad, Multiply kMultiply, int kWarps, bool kNarrow>
void launch_backward_tiles(const FeatureMap<T>& x, const BackwardTask<T>& task, cudaStream_t stream) {
  using Tile = BackwardTile<T, kLoad, kWarps, kNarrow>;
  const int64_t strips = (x.positions + Tile::kPositions - 1) / Tile::kPositions;
  const int64_t across = (x.channels + Tile::kChannels - 1) / Tile::kChannels;
  launch(backward_tiles<T, kLoad, kMultiply, kWarps, kNarrow>, grid_of(x.batch * strips * across), kWarps * kWarp,
         static_cast<size_t>(kSlots) * Tile::kStageBytes, stream, x, task);
}

// Eight warps read M half as often as four. Four where tf32 products need the registers, or where eight leave
// multiprocessors idle.
template <typename T, Load kLoad, Multiply kMultiply>
void launch_backward_load(const FeatureMap<T>& x, const BackwardTask<T>& task, int multiprocessors,
                          cudaStream_t stream) {
  const bool narrow = x.channels <= kUnit;
  if constexpr (kMultiply == Multiply::kNative) {
    const int64_t blocks = x.batch * x.positions * x.channels / (8 * kUnit * 32);
    if (4 * blocks >= 3 * multiprocessors) {
      return narrow ? launch_backward_tiles<T, kLoad, kMultiply, 8, true>(x, task, stream)
                    : launch_backward_tiles<T, kLoad, kMultiply, 8, false>(x, task, stream);
    }
  }
  return narrow ? launch_backward_tiles<T, kLoad, kMultiply, 4, true>(x, task, stream)
                : launch_backward_tiles<T, kLoad, kMultiply, 4, false>(x, task, stream);
}

}  // namespace fastnst::kernels
