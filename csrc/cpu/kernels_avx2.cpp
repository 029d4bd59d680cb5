// The kernels compiled for AVX2, independent of the flags of the rest of the build.
#if defined(__x86_64__)
#include "kernel_headers.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#define FASTNST_ISA avx2
#define FASTNST_VECTOR_BYTES 32
#define FASTNST_REGISTERS 16
#include "kernels_impl.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace fastnst::cpu {
const Kernels& avx2_kernels() { return avx2::table; }
}  // namespace fastnst::cpu
#endif
