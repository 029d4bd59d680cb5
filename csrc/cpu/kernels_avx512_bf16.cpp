// The kernels compiled for AVX-512 with AVX512_BF16, independent of the flags of the rest of the build.
#if defined(__x86_64__)
#include "kernel_headers.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#endif
#define FASTNST_ISA avx512_bf16
#define FASTNST_VECTOR_BYTES 64
#define FASTNST_REGISTERS 32
#define FASTNST_BFLOAT16_PAIRS
#include "kernels_impl.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace fastnst::cpu {
const Kernels& avx512_bf16_kernels() { return avx512_bf16::table; }
}  // namespace fastnst::cpu
#endif
