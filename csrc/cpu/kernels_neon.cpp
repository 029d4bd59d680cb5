// The kernels compiled for NEON, which every aarch64 processor has. Its instructions multiply by one lane of a
// register.
#if defined(__aarch64__)
#include "kernel_headers.h"

#define FASTNST_ISA neon
#define FASTNST_VECTOR_BYTES 16
#define FASTNST_REGISTERS 32
#define FASTNST_LANE_OPERANDS
#include "kernels_impl.h"

namespace fastnst::cpu {
const Kernels& neon_kernels() { return neon::table; }
}  // namespace fastnst::cpu
#endif
