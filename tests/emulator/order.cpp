// Whether accesses to the same memory are ordered: barriers within a block, release and acquire between blocks.
#include "order.h"

#include <algorithm>
#include <unordered_map>

namespace emulator {

namespace {

// The stamp up to which the writes of a block are visible, and by whose atomic.
struct Release {
  uint32_t stamp = 0, by = 0;
};
std::unordered_map<uintptr_t, std::vector<uint32_t>> releases;  // by address; one stamp per block, 0 for none
std::vector<Release> acquired;                                  // by this block

std::string block_name(uint32_t serial) { return "block " + std::to_string(serial - state.launch_base); }
std::string thread_name(uint32_t stamp) {
  const uint32_t code = stamp & kThreadMask;
  if (code == kManyWarps) return "several threads";
  return code >= kManyLanes ? "lanes of warp " + std::to_string(code - kManyLanes) : "thread " + std::to_string(code);
}

// Whether the access of `block` at `stamp` was released by it and acquired by this block, visible to this thread.
bool visible(uint32_t block, uint32_t stamp) {
  const uint32_t index = block - state.launch_base;
  if (index >= acquired.size()) return false;
  const Release& release = acquired[index];
  if (!release.stamp || !ordered(release.by)) return false;
  return stamp >> kThreadBits < release.stamp >> kThreadBits || stamp == release.stamp;
}

}  // namespace

[[noreturn]] void fail_at(const Region& region, uintptr_t address, size_t bytes, bool write, const void* pc,
                          const std::string& what) {
  fail(pc, std::string(write ? "write" : "read") + " of " + std::to_string(bytes) + " bytes at byte " +
               std::to_string(address - region.base) + " of " + (region.is_shared ? "shared " : "") + region.name +
               ": " + what);
}

void check_write_before(const Region& region, const Cell& cell, uintptr_t address, size_t bytes, bool write,
                        const void* pc) {
  if (cell.write_block == state.block) {
    if (!ordered(cell.write_stamp))
      fail_at(region, address, bytes, write, pc,
              "race: " + thread_name(cell.write_stamp) + " wrote there with no barrier between");
  } else if (cell.write_block == kPending) {
    fail_at(region, address, bytes, write, pc, "data of copy_async is pending there: not waited for");
  } else if (cell.write_block == kHole) {
    fail_at(region, address, bytes, write, pc, "padding of the buffer, which is uninitialized and not the kernel's");
  } else if (!region.is_shared && in_launch(cell.write_block)) {
    if (!visible(cell.write_block, cell.write_stamp))
      fail_at(region, address, bytes, write, pc,
              block_name(cell.write_block) + (write ? " wrote there too" : " wrote there") +
                  ", and did not release it to this thread");
  }
}

void read_cell(const Region& region, Cell& cell, uintptr_t address, size_t bytes, uint32_t stamp, const void* pc) {
  const bool mine = cell.write_block == state.block;
  if (!(mine && cell.write_stamp == stamp)) {
    check_write_before(region, cell, address, bytes, false, pc);
    if (region.is_shared ? !mine : cell.write_block == kNobody && !region.initialized)
      fail_at(region, address, bytes, false, pc, "uninitialized memory");
  }
  if (cell.read_block == state.block && !ordered(cell.read_stamp)) {
    const uint32_t code = cell.read_stamp & kThreadMask, me = stamp & kThreadMask;
    const uint32_t warp = code >= kManyLanes ? code - kManyLanes : warp_of(code);
    const uint32_t together = code != kManyWarps && warp == warp_of(me) ? kManyLanes + warp : kManyWarps;
    cell.read_stamp = (stamp & ~kThreadMask) | together;
    return;
  }
  cell.read_block = state.block;
  cell.read_stamp = stamp;
}

void write_cell(const Region& region, Cell& cell, uintptr_t address, size_t bytes, uint32_t stamp, const void* pc) {
  check_write_before(region, cell, address, bytes, true, pc);
  if (cell.read_block == state.block) {
    if (!ordered(cell.read_stamp))
      fail_at(region, address, bytes, true, pc,
              "race: " + thread_name(cell.read_stamp) + " read there with no barrier between");
  } else if (!region.is_shared && in_launch(cell.read_block) && !visible(cell.read_block, cell.read_stamp)) {
    fail_at(region, address, bytes, true, pc, block_name(cell.read_block) + " read there, in no order with this write");
  }
  cell.write_block = state.block;
  cell.write_stamp = stamp;
}

void acquire_and_release(uintptr_t address) {
  Fiber& self = *state.current;
  self.acquiring = address;
  if (self.fence_epoch != state.barrier_epoch) return;
  auto& stamps = releases[address];
  stamps.resize(state.blocks);
  stamps[state.block - state.launch_base] = state.barrier_epoch << kThreadBits | self.thread;
  for (size_t i = 0; i < acquired.size(); ++i) stamps[i] = std::max(stamps[i], acquired[i].stamp);
}

void acquire_pending(Fiber* fiber) {
  const auto found = releases.find(fiber->acquiring);
  fiber->acquiring = 0;
  if (found == releases.end()) return;
  acquired.resize(state.blocks);
  for (uint32_t i = 0; i < state.blocks; ++i)
    if (found->second[i] > acquired[i].stamp) acquired[i] = {found->second[i], own_stamp()};
}

void start_launch_order() { releases.clear(); }
void start_block_order() { acquired.clear(); }

}  // namespace emulator
