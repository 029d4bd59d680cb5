// How many threads of a kernel fit on one multiprocessor, computed by cuda_occupancy.h without a device.
//
// Reads lines "architecture registers static_shared dynamic_shared threads" (architecture as in sm_90: 90), writes for
// each "resident_threads most_threads". Built and run by tools/kernel_report.py.
#include <cuda_occupancy.h>

#include <iostream>

namespace {

// The limits of one multiprocessor: the table "Technical Specifications per Compute Capability" of the CUDA C++
// Programming Guide.
cudaOccDeviceProp properties(int architecture) {
  cudaOccDeviceProp p;
  p.computeMajor = architecture / 10;
  p.computeMinor = architecture % 10;
  p.maxThreadsPerBlock = 1024;
  p.warpSize = 32;
  p.regsPerBlock = p.regsPerMultiprocessor = 65536;
  p.sharedMemPerBlock = 48 * 1024;
  p.reservedSharedMemPerBlock = architecture < 80 ? 0 : 1024;
  p.numSms = 1;
  int shared = 0;  // KiB on a multiprocessor
  switch (architecture) {
    case 75:
      shared = 64;
      p.maxThreadsPerMultiprocessor = 1024;
      break;
    case 80:
      shared = 164;
      p.maxThreadsPerMultiprocessor = 2048;
      break;
    case 90:
    case 100:
      shared = 228;
      p.maxThreadsPerMultiprocessor = 2048;
      break;
    default:  // 8.6, 8.9, 12.0
      shared = 100;
      p.maxThreadsPerMultiprocessor = 1536;
  }
  p.sharedMemPerMultiprocessor = static_cast<size_t>(shared) * 1024;
  p.sharedMemPerBlockOptin = p.sharedMemPerMultiprocessor - p.reservedSharedMemPerBlock;
  return p;
}

}  // namespace

int main() {
  int architecture, registers, static_shared, dynamic_shared, threads;
  while (std::cin >> architecture >> registers >> static_shared >> dynamic_shared >> threads) {
    const cudaOccDeviceProp device = properties(architecture);
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = threads;
    kernel.numRegs = registers;
    kernel.sharedSizeBytes = static_cast<size_t>(static_shared);
    kernel.maxDynamicSharedSizeBytes = static_cast<size_t>(dynamic_shared);
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    cudaOccDeviceState state;
    state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
    cudaOccResult result;
    const cudaOccError error = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads,
                                                                       static_cast<size_t>(dynamic_shared));
    if (error != CUDA_OCC_SUCCESS) {
      std::cerr << "cuda_occupancy.h: error " << error << " for sm_" << architecture << "\n";
      return 1;
    }
    std::cout << result.activeBlocksPerMultiprocessor * threads << " " << device.maxThreadsPerMultiprocessor << "\n";
  }
}
