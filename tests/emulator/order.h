// Whether accesses to the same memory are ordered.
//
// Within a block by a barrier between them, or a __syncwarp for lanes of a warp. Between blocks, which run sequentially
// here but not on a device: if the first released its writes (a __threadfence after the barrier, then an atomic) and
// the second acquired them (an atomic on the same address, a fence, and for other threads a barrier).
#pragma once

#include <string>

#include "runtime.h"

namespace emulator {

inline bool in_launch(uint32_t block) { return block >= state.launch_base && block <= kLastBlock; }

inline uint32_t own_stamp() {
  const Fiber& self = *state.current;
  return state.warps[warp_of(self.thread)].epoch << kThreadBits | self.thread;
}

// Whether an access of a thread of this block at `stamp` happens before the current access of the current thread.
inline bool ordered(uint32_t stamp) {
  const uint32_t me = state.current->thread, code = stamp & kThreadMask, epoch = stamp >> kThreadBits;
  if (code == me || epoch < state.barrier_epoch) return true;
  const uint32_t warp = code >= kManyLanes ? code - kManyLanes : warp_of(code);
  return code != kManyWarps && warp == warp_of(me) && epoch < state.warps[warp].epoch;
}

[[noreturn]] void fail_at(const Region& region, uintptr_t address, size_t bytes, bool write, const void* pc,
                          const std::string& what);
void check_write_before(const Region& region, const Cell& cell, uintptr_t address, size_t bytes, bool write,
                        const void* pc);
void read_cell(const Region& region, Cell& cell, uintptr_t address, size_t bytes, uint32_t stamp, const void* pc);
void write_cell(const Region& region, Cell& cell, uintptr_t address, size_t bytes, uint32_t stamp, const void* pc);

// For an atomic. The thread's next fence acquires what other blocks released at this address; what this block wrote
// before the thread's last fence, since the last barrier, is released there.
void acquire_and_release(uintptr_t address);

void start_launch_order();
void start_block_order();

}  // namespace emulator
