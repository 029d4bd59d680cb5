// The kernels compiled for AVX-512, independent of the flags of the rest of the build.
#if defined(__x86_64__)
#include "kernel_headers.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
#endif
#define FASTNST_ISA avx512
#define FASTNST_VECTOR_BYTES 64
#define FASTNST_REGISTERS 32
#include "kernels_impl.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace fastnst::cpu {
const Kernels& avx512_kernels() { return avx512::table; }
}  // namespace fastnst::cpu
#endif
