// The backward on tensor cores. A block keeps a strip of positions with all channels in shared memory; M is streamed
// from L2; each element of F, of the incoming gradient and of the result is transferred once.
//
// As in the forward, rows of fragments are assigned so that a lane holds 16 bytes of the result: NCHW multiplies F^T by
// M (a lane's rows are neighboring positions), channels_last M by F (neighboring channels). Blocks of 16 bytes are
// permuted within a row of shared memory, so that reads in the main loop have no bank conflicts.
#pragma once

#include "backward_simt.cuh"
#include "fragments.cuh"

namespace fastnst::kernels {

// The shape of the strip and of a warp's part of it.
template <typename T, Load kLoad>
struct Strip {
  static constexpr int kWidth = kFullWidth<T>;
  static constexpr bool kRowwise = kLoad == Load::kRows;
  static constexpr int kMTiles = kRowwise ? kWidth / 2 : 4, kNTiles = 16 / kMTiles;
  static constexpr int kJobPositions = kRowwise ? 8 * kWidth : 8 * kNTiles;
  static constexpr int kJobChannels = kRowwise ? 8 * kNTiles : kUnit;
  static constexpr int kBytes = 32 * 1024;  // of shared memory, unless the smallest strip needs more

  int channels;   // whole units
  int positions;  // whole parts of warps

  __host__ __device__ explicit Strip(int64_t c) {
    channels = static_cast<int>((c + kUnit - 1) / kUnit * kUnit);
    const int fit = kBytes / (channels * static_cast<int>(sizeof(T))) / kJobPositions * kJobPositions;
    positions = fit > kJobPositions ? fit : kJobPositions;
  }
  __host__ __device__ int bytes() const { return channels * positions * static_cast<int>(sizeof(T)); }
  __host__ __device__ int threads() const { return bytes() > kBytes ? 256 : 128; }
  __host__ __device__ int jobs() const { return positions / kJobPositions * (channels / kJobChannels); }

  // The offset of 16 bytes, in values: those of channel c at positions n.., or of position n at channels c... The
  // blocks of a row are permuted so that neither the main loop, which iterates over channels, nor the epilogue, which
  // iterates over the result, has bank conflicts.
  __device__ __forceinline__ int place(int c, int n) const {
    if constexpr (kRowwise) {
      return c * positions + (n / kWidth ^ (c / 4 % 4 ^ c / 2 % 2 * 2) * 2) * kWidth;
    } else {
      const int turn = sizeof(T) == 4 ? n % 2 * 4 ^ n / 2 % 4 * 2 : (n % 4 ^ n / 4 % 2) * 2;
      return n * channels + (c / kWidth ^ turn) * kWidth + c % kWidth;
    }
  }
};

template <typename T>
__device__ __forceinline__ float element(const uint32_t (&words)[4], int i) {
  constexpr int kPerWord = 4 / static_cast<int>(sizeof(T));
  return value_of(static_cast<const T*>(nullptr), words[i / kPerWord], i % kPerWord);
}

__device__ __forceinline__ void unpack(uint32_t (&to)[4], uint4 v) {
  to[0] = v.x;
  to[1] = v.y;
  to[2] = v.z;
  to[3] = v.w;
}

// kTerms: tf32 products per product of F M; 3 give the accuracy of float32.
template <typename T, Load kLoad, int kTerms>
__global__ void __launch_bounds__(256, 1) backward_strips(FeatureMap<T> x, BackwardTask<T> task) {
  using S = Strip<T, kLoad>;
  constexpr Multiply kMultiply = kTerms == 3 ? Multiply::kTf32x3 : Multiply::kTf32;
  constexpr int kWidth = S::kWidth, kMTiles = S::kMTiles, kNTiles = S::kNTiles;
  constexpr int kMatrixRows = S::kRowwise ? kNTiles : 2 * kMTiles, kFeatureRows = S::kRowwise ? 2 * kMTiles : kNTiles;
  FASTNST_DYNAMIC_SHARED(memory);
  T* strip = reinterpret_cast<T*>(memory);
  const S shape(x.channels);
  const int64_t strips = (x.positions + shape.positions - 1) / shape.positions;
  const int64_t image = blockIdx.x / strips, first = blockIdx.x % strips * shape.positions;
  const int64_t offset = image * x.stride_b;

  const int inner = (S::kRowwise ? shape.positions : shape.channels) / kWidth;
  for (int i = threadIdx.x; i < inner * (S::kRowwise ? shape.channels : shape.positions); i += blockDim.x) {
    const int c = S::kRowwise ? i / inner : i % inner * kWidth, n = S::kRowwise ? i % inner * kWidth : i / inner;
    const bool inside = c < x.channels && first + n < x.positions;
    const T* from = inside ? x.data + offset + c * x.stride_c + (first + n) * x.stride_n : x.data;
    copy_async(strip + shape.place(c, n), from, inside);
  }
  copy_async_wait();
  __syncthreads();

  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const float* matrix = task.matrix + image * task.padded * task.padded;
  for (int job = warp; job < shape.jobs(); job += blockDim.x / kWarp) {
    const int across = shape.channels / S::kJobChannels;
    const int c0 = job % across * S::kJobChannels, n0 = job / across * S::kJobPositions;
    // The row of M of this lane's row r.
    const auto matrix_row = [&](int r) {
      if (S::kRowwise) return c0 + 8 * r + g;
      return sizeof(T) == 4 ? c0 + 32 * (r / 4) + 4 * g + r % 4 : c0 + 8 * g + r;
    };
    float acc[kMTiles * kNTiles][4] = {};
    float4 m[kMatrixRows];
    const auto load_matrix = [&](int k) {
#pragma unroll
      for (int r = 0; r < kMatrixRows; ++r)
        m[r] = __ldg(reinterpret_cast<const float4*>(matrix + matrix_row(r) * task.padded + k + 4 * t));
    };
    load_matrix(0);
    begin_main_loop();
#pragma unroll 1
    for (int k = 0; k < shape.channels; k += 16) {
      uint32_t f[S::kRowwise ? 4 : kNTiles][4];
#pragma unroll
      for (int r = 0; r < (S::kRowwise ? 4 : kNTiles); ++r) {
        if constexpr (S::kRowwise) {
          unpack(f[r], *reinterpret_cast<const uint4*>(strip + shape.place(k + 4 * t + r, n0 + kWidth * g)));
        } else if constexpr (sizeof(T) == 4) {
          unpack(f[r], *reinterpret_cast<const uint4*>(strip + shape.place(k + 4 * t, n0 + 8 * r + g)));
        } else {
          const uint2 v = *reinterpret_cast<const uint2*>(strip + shape.place(k + 4 * t, n0 + 8 * r + g));
          f[r][0] = v.x;
          f[r][1] = v.y;
        }
      }
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        if (never(x.positions, s)) break;
        Operand<kMultiply, kMatrixRows> by_matrix;
        Operand<kMultiply, kFeatureRows> by_features;
#pragma unroll
        for (int r = 0; r < kMatrixRows; ++r) {
          by_matrix.set(r, 0, s ? m[r].z : m[r].x);
          by_matrix.set(r, 1, s ? m[r].w : m[r].y);
        }
#pragma unroll
        for (int r = 0; r < kFeatureRows; ++r)
#pragma unroll
          for (int i = 0; i < 2; ++i)
            by_features.set(r, i,
                            S::kRowwise ? element<T>(f[(2 * s + i) % 4], r) : element<T>(f[r % kNTiles], 2 * s + i));
        if (s == 1 && k + 16 < shape.channels) load_matrix(k + 16);
#pragma unroll
        for (int i = 0; i < kMTiles * kNTiles; ++i) {
          if (i % 4 == 0 && never(x.positions, i)) break;
          if constexpr (S::kRowwise) {
            multiply_tile<float>(acc[i], by_features, i / kNTiles, by_matrix, i % kNTiles);
          } else {
            multiply_tile<float>(acc[i], by_matrix, i / kNTiles, by_features, i % kNTiles);
          }
        }
      }
    }
    end_main_loop();

    // 16 bytes of the result at a time: value i of a vector is from row i of the m-tiles.
    constexpr int kGroups = 2 * kMTiles / kWidth;  // vectors of the m-tiles
#pragma unroll
    for (int v = 0; v < kGroups * kNTiles * 2; ++v) {
      const int column = v % 2, nt = v / 2 % kNTiles, group = v / 2 / kNTiles;
      const int along = 8 * nt + 2 * t + column;
      const int c = S::kRowwise ? c0 + along : c0 + 32 * group + kWidth * g,
                n = S::kRowwise ? n0 + kWidth * g : n0 + along;
      if (c >= x.channels || first + n >= x.positions) continue;
      using P = Pack<T, kWidth>;
      const int64_t at = offset + c * x.stride_c + (first + n) * x.stride_n;
      const P here = *reinterpret_cast<const P*>(strip + shape.place(c, n));
      const P above = task.above ? *reinterpret_cast<const P*>(task.above + at) : here;
      const P target = task.target ? *reinterpret_cast<const P*>(task.target + at) : here;
      P out;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const int mt = group * kWidth / 2 + i / 2;
        float value = task.factor * acc[mt * kNTiles + nt][2 * (i % 2) + column];
        if (task.weight) value *= __ldg(task.weight + image * x.positions + first + n + (S::kRowwise ? i : 0));
        const float shift = task.shift ? __ldg(task.shift + image * x.channels + c + (S::kRowwise ? 0 : i)) : 0.f;
        finish_value<T>(task, value, shift, here.values[i], above.values[i], target.values[i], &out.values[i]);
      }
      *reinterpret_cast<P*>(task.out + at) = out;
    }
  }
}

template <typename T, Load kLoad, int kTerms>
void launch_strips(const FeatureMap<T>& x, const BackwardTask<T>& task, cudaStream_t stream) {
  const Strip<T, kLoad> shape(x.channels);
  const int64_t strips = (x.positions + shape.positions - 1) / shape.positions;
  launch(backward_strips<T, kLoad, kTerms>, grid_of(x.batch * strips), shape.threads(),
         static_cast<size_t>(shape.bytes()), stream, x, task);
}

}  // namespace fastnst::kernels
