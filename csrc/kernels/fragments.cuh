// Features from shared memory as the fragments of mma.sync.
//
// A Gram matrix is invariant to a permutation of positions, and a permutation of channels can be undone in the result.
// So each lane reads 16 contiguous bytes, along positions in NCHW and along channels in channels_last, and assigns them
// to elements of a fragment.
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
constexpr int kChunk = 4 * kFullWidth<T>;  // positions of a panel: 16 bytes for each of 4 lanes

// 64 channels of one chunk of positions in shared memory. The pieces of 16 bytes of a position are permuted in
// channels_last, so that neither copies nor fragments have bank conflicts.
template <typename T, Load kLoad>
struct Panel {
  static constexpr int kWidth = kFullWidth<T>;
  static constexpr int kValues = kUnit * kChunk<T>;

  // The offset, in values, of channel c at position n; c or n is a multiple of 16 bytes, as the layout has it.
  __device__ static __forceinline__ int place(int c, int n) {
    if (kLoad == Load::kRows) return c * kChunk<T> + n;
    return n * kUnit + (c / kWidth ^ n % 4 * 2) * kWidth + c % kWidth;
  }
};

// Always false, because `count` is not negative and i is below kUnit. If `count` comes from an argument of the kernel,
// the compiler does not know that: a branch on it keeps it from interleaving one group of loads or products with the
// next, which would exceed the registers.
__device__ __forceinline__ bool never(int count, int i) { return count <= i - kUnit; }

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

__device__ __forceinline__ void unpack(uint32_t (&to)[4], uint4 v) {
  to[0] = v.x;
  to[1] = v.y;
  to[2] = v.z;
  to[3] = v.w;
}

// The part of kBlocks blocks of 8 channels by one chunk of positions that one lane holds.
template <typename T, Load kLoad, int kBlocks>
struct Rows {
  static constexpr int kPerWord = 4 / static_cast<int>(sizeof(T));
  uint32_t q[kBlocks][4];

  // The position of a lane's element e relative to the start of its chunk.
  __device__ static __forceinline__ int position_of(int t, int e) {
    return kLoad == Load::kRows ? t * kFullWidth<T> + e : 4 * e + t;
  }

  // The offset in a panel from which a lane loads, where block r is block first + r of the panel.
  __device__ static __forceinline__ int start(int first) {
    using P = Panel<T, kLoad>;
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
    if (kLoad == Load::kRows) return P::place(8 * first + g, t * P::kWidth);
    if (sizeof(T) == 4) return P::place(8 * first + 4 * g, t);  // `first` is 0 or 4
    return P::place(kBlocks == 8 ? 8 * g : 8 * first + 4 * g, t);
  }

  __device__ __forceinline__ void load(const T* from) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if constexpr (kLoad == Load::kRows) {
        if (i < kBlocks) put(q[i % kBlocks], from + 8 * i * kChunk<T>);
      } else if constexpr (sizeof(T) == 4) {
        if (i < kBlocks) put(q[i % kBlocks], from + i / 4 * 32 + i % 4 * 4 * kUnit);
      } else if constexpr (kBlocks == 8) {
        put(q[i], from + 4 * i * kUnit);
      } else {
        const uint2 v = *reinterpret_cast<const uint2*>(from + 4 * i * kUnit);
        q[i / 2][i % 2 * 2] = v.x;
        q[i / 2][i % 2 * 2 + 1] = v.y;
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

 private:
  __device__ static __forceinline__ void put(uint32_t (&to)[4], const T* from) {
    unpack(to, *reinterpret_cast<const uint4*>(from));
  }
};

// x for a product in tf32: mma.sync ignores the lowest 13 bits, which loses half a unit on average. One multiplication
// makes up for it, where rounding to nearest takes three instructions, because of NaN. It adds 0.36 to 0.72 units:
// values of tf32 are kept, and the mean of relative errors is zero where mantissas are distributed logarithmically. NaN
// and infinities are kept.
__device__ __forceinline__ uint32_t to_tf32(float x) { return __float_as_uint(x * (1.f + 0.72135f / 2048.f)); }

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

// d += a b for registers a of 16 rows and b of 8 columns.
template <typename T, Multiply kMultiply>
__device__ __forceinline__ void multiply_registers(float (&d)[4], const uint32_t (&a0)[2], const uint32_t (&a1)[2],
                                                   const uint32_t (&b)[2]) {
  const uint32_t a[4] = {a0[0], a1[0], a0[1], a1[1]};
  if constexpr (kMultiply != Multiply::kNative || sizeof(T) == 4) {
    mma_tf32(d, a, b);
  } else if constexpr (std::is_same<T, __half>::value) {
    mma_f16(d, a, b);
  } else {
    mma_bf16(d, a, b);
  }
}

// acc += a b over kSteps k-steps, for 16-row block i of `a` and 8-column block j of `b`. Tensor cores truncate sums, so
// they add only these few products, smaller ones first; longer sums are added here, rounded to nearest.
template <typename T, Multiply kMultiply, int kSteps, int kA, int kB>
__device__ __forceinline__ void multiply_tile(float (&acc)[4], const Operand<kMultiply, kA> (&a)[kSteps], int i,
                                              const Operand<kMultiply, kB> (&b)[kSteps], int j) {
  float sum[4] = {0, 0, 0, 0};
  if constexpr (kMultiply == Multiply::kTf32x3) {
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      multiply_registers<T, kMultiply>(sum, a[s].low[2 * i], a[s].low[2 * i + 1], b[s].high[j]);
      multiply_registers<T, kMultiply>(sum, a[s].high[2 * i], a[s].high[2 * i + 1], b[s].low[j]);
    }
  }
#pragma unroll
  for (int s = 0; s < kSteps; ++s)
    multiply_registers<T, kMultiply>(sum, a[s].high[2 * i], a[s].high[2 * i + 1], b[s].high[j]);
#pragma unroll
  for (int k = 0; k < 4; ++k) acc[k] += sum[k];
}

}  // namespace fastnst::kernels
