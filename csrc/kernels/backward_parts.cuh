// The parts of the backward on tensor cores: the tile of a block, the products of a warp, the result of a lane.
#pragma once

#include "fragments.cuh"

namespace fastnst::kernels {

constexpr int kSumChannels = 32;  // of a stage

// Whether groups of loads and products are kept apart everywhere; without that, these compilers run out of registers.
// For the others it is enough where M is read in many groups.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 800 || __CUDA_ARCH__ >= 1000)
constexpr bool kManyBarriers = true;
#else
constexpr bool kManyBarriers = false;
#endif

// The shape of a block's tile, and the places of F and M in a stage.
template <typename T, Load kLoad, int kWarps, bool kNarrow>
struct BackwardTile {
  static constexpr int kWidth = kFullWidth<T>;
  static constexpr bool kRowwise = kLoad == Load::kRows;
  // The part of a warp.
  static constexpr int kMTiles = kRowwise ? kWidth / 2 : 4, kNTiles = 16 / kMTiles;
  static constexpr int kJobPositions = kRowwise ? 8 * kWidth : 8 * kNTiles;
  static constexpr int kJobChannels = kRowwise ? 8 * kNTiles : kUnit;

  static constexpr int kChannels = kNarrow ? kUnit : 2 * kUnit;
  static constexpr int kPositions = kWarps * kUnit * 32 / kChannels;
  static constexpr int kFeatureBytes = kSumChannels * kPositions * static_cast<int>(sizeof(T));
  static constexpr int kStageBytes = kFeatureBytes + kChannels * kSumChannels * 4;

  // The first channel and position of the part of a warp, in the tile.
  static constexpr int kAcross = kChannels / kJobChannels;
  __device__ static __forceinline__ int channel_of_warp(int warp) { return warp % kAcross * kJobChannels; }
  __device__ static __forceinline__ int position_of_warp(int warp) { return warp / kAcross * kJobPositions; }

  // The offset in values of channel c of the stage at position n; 16 bytes along the inner one are contiguous. Neither
  // the main loop, whose lanes differ in channels, nor the result, whose lanes differ in positions, has bank conflicts.
  __device__ static __forceinline__ int place(int c, int n) {
    if constexpr (kRowwise)
      return c * kPositions + (n / kWidth ^ (c / 4 % 4 ^ c / 2 % 2 * 2) * 2) * kWidth + n % kWidth;
    if constexpr (sizeof(T) == 4)
      return n * kSumChannels + (c / kWidth ^ n / 2 % 4 * 2 ^ n % 2 * 4) * kWidth + c % kWidth;
    return (n ^ (n / 4 % 2)) * kSumChannels + (c / kWidth ^ n / 2 % 2 * 2) * kWidth + c % kWidth;
  }
  // The place of channel c + k + r at position n, from that of channel c; c is a multiple of 4, r below 4.
  __device__ static __forceinline__ int further_channel(int from, int k, int r) {
    if constexpr (kRowwise) return (from ^ r / 2 * 4 * kWidth) + (k + r) * kPositions;
    return from ^ k;  // r is 0
  }
  // The offset of columns k ... k + 3 of a row of M, k a multiple of 4. 16 columns further it is another by XOR
  // with 16.
  __device__ static __forceinline__ int matrix_place(int row, int k) {
    constexpr int kBit = kRowwise ? 1 : sizeof(T) == 4 ? 4 : 8;  // of the row, in which neighboring lanes differ
    return row * kSumChannels + (k / 4 ^ row / kBit % 2 * 4) * 4;
  }
};

template <typename T>
__device__ __forceinline__ float element(const uint32_t (&words)[4], int i) {
  constexpr int kPerWord = 4 / static_cast<int>(sizeof(T));
  return value_of(static_cast<const T*>(nullptr), words[i / kPerWord], i % kPerWord);
}

// Four values of M as the sum of two bfloat16 each: the larger parts, then the smaller ones. The larger part is
// truncated, so that it is finite where the value is, and NaN stays NaN.
__device__ __forceinline__ uint4 split_bf16(float4 m) {
  const float values[4] = {m.x, m.y, m.z, m.w};
  uint32_t low[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    union {
      __nv_bfloat16 value;
      unsigned short bits;
    } rest;
    narrow(&rest.value, values[i] - __uint_as_float(__float_as_uint(values[i]) & 0xffff0000u));
    low[i] = rest.bits;
  }
  return make_uint4(byte_permute(__float_as_uint(m.x), __float_as_uint(m.y), 0x7632u),
                    byte_permute(__float_as_uint(m.z), __float_as_uint(m.w), 0x7632u), low[0] | low[1] << 16,
                    low[2] | low[3] << 16);
}

// Replaces four columns of two rows of M by their two parts. Channels_last multiplies M from the left: then the first
// row gets the larger parts of both, in the order of registers of a fragment, and the second row the smaller ones.
template <bool kRowwise>
__device__ __forceinline__ void split_rows(float* first, float* second) {
  const uint4 a = split_bf16(*reinterpret_cast<const float4*>(first));
  const uint4 b = split_bf16(*reinterpret_cast<const float4*>(second));
  *reinterpret_cast<uint4*>(first) = kRowwise ? a : make_uint4(a.x, b.x, a.y, b.y);
  *reinterpret_cast<uint4*>(second) = kRowwise ? b : make_uint4(a.z, b.z, a.w, b.w);
}

// 16 x 8 products of a warp, over the 16 channels of one step. A lane's four channels are 4 t ... 4 t + 3.
template <typename T, Load kLoad, Multiply kMultiply, typename Tile>
struct WarpProducts {
  static constexpr bool kRowwise = Tile::kRowwise;
  static constexpr int kMTiles = Tile::kMTiles, kNTiles = Tile::kNTiles;
  static constexpr int kMatrixRows = kRowwise ? kNTiles : 2 * kMTiles, kFeatureRows = kRowwise ? 2 * kMTiles : kNTiles;
  static constexpr int kSteps = kMultiply == Multiply::kNative ? 1 : 2;  // of the 16 channels
  float acc[kMTiles * kNTiles][4] = {};

  // The row of M, within the part of a warp, of this lane's row r.
  __device__ static __forceinline__ int matrix_row(int r, int g) {
    if (kRowwise) return 8 * r + g;
    return sizeof(T) == 4 ? 32 * (r / 4) + 4 * g + r % 4 : 8 * g + r;
  }

  // Where this lane starts to read F and M in a stage; opaque, or they would be computed for every stage.
  int features_at, matrix_at;

  __device__ __forceinline__ explicit WarpProducts(int thread) {
    const int c0 = Tile::channel_of_warp(thread / kWarp), n0 = Tile::position_of_warp(thread / kWarp);
    const int lane = thread % kWarp, g = lane / 4, t = lane % 4;
    features_at = opaque(Tile::place(4 * t, n0 + (kRowwise ? Tile::kWidth : 1) * g));
    matrix_at = opaque(Tile::matrix_place(c0 + matrix_row(0, g), 4 * t));
  }

  // The 16 channels from number k of the stage, 0 or 16. `argument` is for never().
  __device__ __forceinline__ void add(const T* features, const float* matrix, int k, int argument) {
    constexpr int kLoads = kRowwise ? 4 : kNTiles;
    constexpr int kGroup = kRowwise ? 1 : 2, kGroups = kMatrixRows / kGroup, kOthers = kRowwise ? kMTiles : kNTiles;
    uint32_t f[kLoads][4];
#pragma unroll
    for (int r = 0; r < kLoads; ++r) {
      if constexpr (kRowwise) {
        unpack(f[r], *reinterpret_cast<const uint4*>(features + Tile::further_channel(features_at, k, r)));
      } else {
        const T* from = features + Tile::further_channel(features_at, k, 0) + 8 * r * kSumChannels;
        if constexpr (sizeof(T) == 4) {
          unpack(f[r], *reinterpret_cast<const uint4*>(from));
        } else {
          const uint2 v = *reinterpret_cast<const uint2*>(from);
          f[r][0] = v.x;
          f[r][1] = v.y;
        }
      }
    }
    Operand<kMultiply, kFeatureRows> by_features[kSteps];
#pragma unroll
    for (int r = 0; r < kFeatureRows; ++r)
#pragma unroll
      for (int e = 0; e < 2 * kSteps; ++e) {
        if constexpr (kMultiply != Multiply::kNative) {
          by_features[e / 2].set(r, e % 2, kRowwise ? element<T>(f[e % kLoads], r) : element<T>(f[r % kLoads], e));
        } else if constexpr (kRowwise) {
          by_features[0].high[r][e] = byte_permute(f[2 * e][r / 2], f[2 * e + 1][r / 2], r % 2 ? 0x7632u : 0x5410u);
        } else {
          by_features[0].high[r][e] = f[r][e];
        }
      }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      if ((kManyBarriers || (kRowwise && Tile::kChannels == kUnit)) && never(argument, group)) break;
      uint32_t rows[kGroup][4];
#pragma unroll
      for (int r = 0; r < kGroup; ++r)
        unpack(rows[r], *reinterpret_cast<const uint4*>(matrix + (matrix_at ^ k) +
                                                        matrix_row(group * kGroup + r, 0) * kSumChannels));
      Operand<kMultiply == Multiply::kNative ? Multiply::kTf32 : kMultiply, kGroup> by_matrix[2];
      if constexpr (kMultiply != Multiply::kNative) {
#pragma unroll
        for (int r = 0; r < kGroup; ++r)
#pragma unroll
          for (int e = 0; e < 4; ++e) by_matrix[e / 2].set(r, e % 2, __uint_as_float(rows[r][e]));
      }
      const auto sum_of = [&](int other) -> float (&)[4] {
        return acc[kRowwise ? other * kNTiles + group : group * kNTiles + other];
      };
      if constexpr (kMultiply == Multiply::kNative) {
        // M as the sum of two bfloat16, as split_rows stores it. The result is bfloat16 as well, so sums may stay on
        // the tensor cores.
        const auto& high = by_features[0].high;
#pragma unroll
        for (int part = 1; part >= 0; --part)  // outside, so that consecutive products are independent
#pragma unroll
          for (int other = 0; other < kOthers; ++other) {
            if constexpr (kRowwise) {
              const uint32_t row[2] = {rows[0][2 * part], rows[0][2 * part + 1]};
              multiply_registers<T, kMultiply>(sum_of(other), high[2 * other], high[2 * other + 1], row);
            } else {
              mma_bf16(sum_of(other), rows[part], high[other]);
            }
          }
      } else {
#pragma unroll
        for (int other = 0; other < kOthers; ++other) {
          if constexpr (kRowwise)
            multiply_tile<float>(sum_of(other), by_features, other, by_matrix, 0);
          else
            multiply_tile<float>(sum_of(other), by_matrix, 0, by_features, other);
        }
      }
    }
  }
};

// What a lane writes: vectors of 16 bytes, in which value i is from row i of the m-tiles. They are a constant number of
// channels or positions from the first one. The stride along a vector is one.
template <typename T, typename Tile>
struct LaneResult {
  static constexpr bool kRowwise = Tile::kRowwise;
  static constexpr int kVectors = 2 * Tile::kMTiles / Tile::kWidth * Tile::kNTiles * 2;
  int channel, position;  // of the first vector, in the tile
  int channels_left, positions_left;
  int64_t first_at;

  __device__ __forceinline__ LaneResult(const FeatureMap<T>& x, int thread, int64_t offset, int64_t first,
                                        int first_channel) {
    const int lane = thread % kWarp;
    channel = Tile::channel_of_warp(thread / kWarp) + (kRowwise ? lane % 4 * 2 : lane / 4 * Tile::kWidth);
    position = Tile::position_of_warp(thread / kWarp) + (kRowwise ? lane / 4 * Tile::kWidth : lane % 4 * 2);
    channels_left = left_of(x.channels - first_channel);
    positions_left = left_of(x.positions - first);
    first_at = offset + (first_channel + channel) * (kRowwise ? x.stride_c : 1) +
               (first + position) * (kRowwise ? 1 : x.stride_n);
  }

  // n as an int, at most a number that is above the channels and positions of a tile.
  __device__ static __forceinline__ int left_of(int64_t n) {
    return static_cast<int>(n < Tile::kStageBytes ? n : Tile::kStageBytes);
  }
  __device__ static __forceinline__ int further_channel(int v) {
    return kRowwise ? 8 * (v / 2 % Tile::kNTiles) + v % 2 : 32 * (v / 2 / Tile::kNTiles);
  }
  __device__ static __forceinline__ int further_position(int v) {
    return kRowwise ? 0 : 8 * (v / 2 % Tile::kNTiles) + v % 2;
  }
  __device__ __forceinline__ bool inside(int v) const {
    return channel + further_channel(v) < channels_left && position + further_position(v) < positions_left;
  }
  __device__ __forceinline__ int64_t at(const FeatureMap<T>& x, int v) const {
    const int further =
        opaque(kRowwise ? further_channel(v) : further_position(v));  // else 16 offsets are kept in registers
    return first_at + (kRowwise ? further * x.stride_c : further_channel(v) + further * x.stride_n);
  }
};

}  // namespace fastnst::kernels
