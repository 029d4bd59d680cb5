// The counters of one launch.
#pragma once

#include <cstdint>

namespace emulator {

// Global memory. `bytes` are the distinct bytes of a request.
struct Traffic {
  uint64_t requests = 0, sectors = 0, bytes = 0, widest = 0;
};

// Shared memory. `least`: the wavefronts without bank conflicts.
struct Banks {
  uint64_t requests = 0, wavefronts = 0, least = 0;
};

struct Part {
  Traffic reads, writes;
  Banks shared;
};

struct Counters {
  uint64_t blocks = 0, threads = 0, barriers = 0;
  uint64_t mma[3] = {};  // tf32, bf16, f16
  uint64_t mma_main = 0;
  uint64_t block_read_bytes = 0;  // each sector once per block, as with an ideal L1
  Part main_loop, elsewhere;
};

Counters& launch_counters();

}  // namespace emulator
