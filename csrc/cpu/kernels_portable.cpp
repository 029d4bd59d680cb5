// The kernels compiled for the baseline of the build, such as SSE2 on x86-64, with tiles for 16 registers.
#include "kernel_headers.h"

#define FASTNST_ISA portable
#define FASTNST_VECTOR_BYTES 16
#define FASTNST_REGISTERS 16
#include "kernels_impl.h"

namespace fastnst::cpu {
const Kernels& portable_kernels() { return portable::table; }
}  // namespace fastnst::cpu
