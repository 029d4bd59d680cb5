// Loads features from global memory directly into the fragments of mma.sync.
//
// A Gram matrix is invariant to a permutation of positions, and a permutation of channels can be undone in the result.
// So each lane reads 16 contiguous bytes, along positions in NCHW and along channels in channels_last, and assigns them
// to elements of a fragment. The main loop needs no shared memory.
#pragma once

#include <type_traits>

#include "device.cuh"
#include "gram_units.cuh"

namespace fastnst::kernels {

// How features are read: 16 bytes along positions, or along channels.
enum class Load { kRows, kChannels };

// How two numbers are multiplied. kTf32x3: float32 as the sum of two tf32, without the product of the two smaller
// parts. kNative: half or bfloat16 directly.
enum class Multiply { kNative, kTf32, kTf32x3 };

template <typename T>
constexpr int kChunk = 4 * kFullWidth<T>;  // positions of one chunk: 16 bytes for each of 4 lanes

// The channel, within a unit of 64, of row 8 r + g of the fragments; `kBlocks` is that of the Rows that read it.
template <typename T, Load kLoad, int kBlocks>
__device__ __forceinline__ int channel_of_row(int row) {
  if (kLoad != Load::kChannels) return row;
  const int r = row / 8, g = row % 8;
  return sizeof(T) == 4 || kBlocks == 4 ? 32 * (r / 4) + 4 * g + r % 4 : 8 * g + r;
}

// Always false, but unknown to the compiler: a branch on it prevents interleaving one group of loads or products with
// the next, which would exceed the registers.
__device__ __forceinline__ bool never(int64_t positions, int i) { return positions <= i - kUnit; }

// The one or two values of a 32-bit register.
__device__ __forceinline__ float value_of(const float*, uint32_t word, int) { return __uint_as_float(word); }
__device__ __forceinline__ float value_of(const __nv_bfloat16*, uint32_t word, int i) {
  return __uint_as_float(i ? word & 0xffff0000u : word << 16);
}
__device__ __forceinline__ float value_of(const __half*, uint32_t word, int i) {
  union {
    unsigned short bits;
    __half value;
  } pun;
  pun.bits = static_cast<unsigned short>(i ? word >> 16 : word & 0xffffu);
  return __half2float(pun.value);
}

// The part of kRows blocks of 8 channels by one chunk of positions that one lane holds.
template <typename T, Load kLoad, int kBlocks>
struct Rows {
  static constexpr int kWidth = kFullWidth<T>;  // also the number of positions of a lane
  static constexpr int kPerWord = 4 / static_cast<int>(sizeof(T));
  uint32_t q[kBlocks][4];

  // The position of a lane's element e relative to the start of its chunk.
  __device__ static __forceinline__ int position_of(int t, int e) {
    return kLoad == Load::kRows ? t * kWidth + e : 4 * e + t;
  }

  // Block r is block first + r of the unit whose first channel is `unit`.
  __device__ __forceinline__ void load(const FeatureMap<T>& x, int64_t image, int64_t unit, int first, int chunk) {
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
    const T* base = x.data + image * x.stride_b;
    const int64_t start = int64_t{chunk} * kChunk<T>;
    if constexpr (kLoad == Load::kRows) {
      const int64_t n = start + t * kWidth, c = unit + 8 * first + g;
      const T* from = base + c * x.stride_c + n;
      const bool inside = n < x.positions;
#pragma unroll
      for (int r = 0; r < kBlocks; ++r) put(q[r], from + r * 8 * x.stride_c, inside && c + 8 * r < x.channels);
    } else if constexpr (kLoad == Load::kChannels && sizeof(T) == 4) {
      const T* from = base + (start + t) * x.stride_n;
#pragma unroll
      for (int i = 0; i < kBlocks; ++i) {
        const int64_t c = unit + 32 * ((first + i) / 4) + 4 * g;
        put(q[i], from + (i % 4) * 4 * x.stride_n + c, start + t + i % 4 * 4 < x.positions && c < x.channels);
      }
    } else {
      const int64_t c = unit + (kBlocks == 8 ? 8 * g : 8 * first + 4 * g);
      const T* from = base + (start + t) * x.stride_n + c;
      const bool channel = c < x.channels;
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const bool inside = channel && start + t + 4 * e < x.positions;
        if constexpr (kBlocks == 8) {
          put(q[e], from + e * 4 * x.stride_n, inside);
        } else {
          uint2 v = make_uint2(0, 0);
          if (inside) v = __ldg(reinterpret_cast<const uint2*>(from + e * 4 * x.stride_n));
          q[e / 2][e % 2 * 2] = v.x;
          q[e / 2][e % 2 * 2 + 1] = v.y;
        }
      }
    }
  }

  // Word w of block r: element w of the lane, or 2w and 2w + 1, of channel 8 r + g.
  __device__ __forceinline__ uint32_t word(int r, int w) const {
    if constexpr (kLoad != Load::kChannels) return q[r][w];
    if constexpr (sizeof(T) == 4) return q[(r & ~3) + w][r & 3];
    const uint32_t selector = r % 2 ? 0x7632u : 0x5410u;
    if constexpr (kBlocks == 8) return byte_permute(q[2 * w][r / 2], q[2 * w + 1][r / 2], selector);
    return byte_permute(q[w][r / 2], q[w][2 + r / 2], selector);
  }

  __device__ __forceinline__ float value(int r, int e) const {
    return value_of(static_cast<const T*>(nullptr), word(r, e / kPerWord), e % kPerWord);
  }

  // Applies max(x + bias, 0) at valid positions, and writes the result to `out` unless it is null.
  __device__ __forceinline__ void activate(const FeatureMap<T>& x, const T* bias, T* out, bool store, int64_t image,
                                           int64_t unit, int first, int chunk) {
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
    const int64_t start = int64_t{chunk} * kChunk<T>;
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      constexpr bool kHalfRows = kLoad == Load::kChannels && sizeof(T) == 2 && kBlocks == 4;
#pragma unroll
      for (int part = 0; part < (kHalfRows ? 2 : 1); ++part) {  // q[i] then holds two positions
        int64_t c, n;
        if constexpr (kLoad == Load::kRows) {
          c = unit + 8 * (first + i) + g;
          n = start + t * kWidth;
        } else if constexpr (sizeof(T) == 4) {
          c = unit + 32 * ((first + i) / 4) + 4 * g;
          n = start + t + i % 4 * 4;
        } else {
          c = unit + (kHalfRows ? 8 * first + 4 * g : 8 * g);
          n = start + t + 4 * (kHalfRows ? 2 * i + part : i);
        }
        if (c >= x.channels || n >= x.positions) continue;
        constexpr int kWords = kHalfRows ? 2 : 4;
#pragma unroll
        for (int w = 0; w < kWords; ++w) {
          uint32_t& word = q[i][part * 2 + w];
          uint32_t made = 0;
#pragma unroll
          for (int k = 0; k < kPerWord; ++k) {
            // Not __ldg, which the compiler may hoist above the test for half and bfloat16.
            const float b = widen(bias[c + (kLoad == Load::kRows ? 0 : w * kPerWord + k)]);
            const float v = value_of(static_cast<const T*>(nullptr), word, k) + b;
            T rounded;
            narrow(&rounded, v < 0 ? 0.f : v);  // NaN is kept
            made |= bits(rounded) << (16 * k);
          }
          word = made;
        }
        if (store) {
          T* to = out + image * x.stride_b + c * x.stride_c + n * x.stride_n;
          *reinterpret_cast<uint4*>(to) = make_uint4(q[i][0], q[i][1], q[i][2], q[i][3]);
        }
      }
    }
  }

 private:
  __device__ static __forceinline__ uint32_t bits(float x) { return __float_as_uint(x); }
  template <typename H>
  __device__ static __forceinline__ uint32_t bits(H x) {
    union {
      H value;
      unsigned short bits;
    } pun;
    pun.value = x;
    return pun.bits;
  }

  __device__ static __forceinline__ void put(uint32_t (&to)[4], const T* from, bool inside) {
    uint4 v = make_uint4(0, 0, 0, 0);
    if (inside) v = __ldg(reinterpret_cast<const uint4*>(from));
    to[0] = v.x;
    to[1] = v.y;
    to[2] = v.z;
    to[3] = v.w;
  }
};

// x rounded to nearest tf32; mma.sync ignores the lowest 13 bits. Faster than the conversion instruction. NaN is kept:
// CUDA's canonical NaN, 0x7fffffff, would carry into the sign and become zero.
__device__ __forceinline__ uint32_t to_tf32(float x) {
  const uint32_t bits = __float_as_uint(x);
  return x == x ? bits + 0x1000u : bits;
}

// One k-step of kBlocks blocks as operands of mma.sync.
template <Multiply kMultiply, int kBlocks>
struct Operand {
  static constexpr bool kSplit = kMultiply == Multiply::kTf32x3;
  uint32_t high[kBlocks][2];
  uint32_t low[kSplit ? kBlocks : 1][2];

  // The value x of a register, unchanged or as the sum of two tf32. The larger part is x itself, whose lowest bits
  // mma.sync ignores, so it needs no instruction and no register. It carries NaN.
  __device__ __forceinline__ void set(int r, int i, float x) {
    if (!kSplit) {
      high[r][i] = to_tf32(x);
      return;
    }
    high[r][i] = __float_as_uint(x);
    low[r][i] = __float_as_uint(x - __uint_as_float(high[r][i] & 0xffffe000u)) + 0x1000u;
  }
};

// acc += a b for 16-row block i of `a` and 8-column block j of `b`. Tensor cores truncate sums, so they add only the
// products of one k-step; the steps are added here, rounded to nearest.
template <typename T, Multiply kMultiply, int kA, int kB>
__device__ __forceinline__ void multiply_tile(float (&acc)[4], const Operand<kMultiply, kA>& a, int i,
                                              const Operand<kMultiply, kB>& b, int j) {
  float sum[4] = {0, 0, 0, 0};
  const uint32_t high[4] = {a.high[2 * i][0], a.high[2 * i + 1][0], a.high[2 * i][1], a.high[2 * i + 1][1]};
  if constexpr (kMultiply == Multiply::kNative) {
    if constexpr (sizeof(T) == 2) {
      if constexpr (std::is_same<T, __half>::value) {
        mma_f16(sum, high, b.high[j]);
      } else {
        mma_bf16(sum, high, b.high[j]);
      }
    }
  } else {
    if constexpr (kMultiply == Multiply::kTf32x3) {
      const uint32_t low[4] = {a.low[2 * i][0], a.low[2 * i + 1][0], a.low[2 * i][1], a.low[2 * i + 1][1]};
      mma_tf32(sum, low, b.high[j]);
      mma_tf32(sum, high, b.low[j]);
    }
    mma_tf32(sum, high, b.high[j]);
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) acc[k] += sum[k];
}

}  // namespace fastnst::kernels
