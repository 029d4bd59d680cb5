// The kernels compiled for the baseline of the build: SSE2 on x86-64, NEON on aarch64.
#include "kernel_headers.h"

#define FASTNST_ISA portable
#define FASTNST_VECTOR_BYTES 16
#define FASTNST_TILE_ROWS 4
#include "kernels_impl.h"

namespace fastnst::cpu {
const Kernels& portable_kernels() { return portable::table; }
}  // namespace fastnst::cpu
