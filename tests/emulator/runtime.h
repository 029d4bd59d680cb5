// Shared by the parts of the emulator. State is global, because one launch runs at a time, on one host thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulator.h"

namespace emulator {

constexpr int kMaxThreads = 1024;
constexpr int kLanes = 32;
constexpr size_t kMaxShared = 227 * 1024;  // the maximum of a block on sm_90
constexpr size_t kStack = 128 * 1024;

// Thrown to the host when a kernel violates CUDA's rules.
struct Violation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Who last wrote and read a granule of memory. A block is numbered over all launches; a stamp is epoch << 11 | thread.
struct Cell {
  uint32_t write_block, write_stamp, read_block, read_stamp;
};
// In place of a block that wrote:
constexpr uint32_t kNobody = 0, kHost = 1, kFirstBlock = 2, kPending = ~0u, kHole = ~0u - 1, kLastBlock = ~0u - 2;
// In place of a thread that read: 0x400 + w for several lanes of warp w, kManyWarps for threads of several warps.
constexpr uint32_t kThreadBits = 11, kThreadMask = 0x7ff, kManyLanes = 0x400, kManyWarps = 0x7ff;

// Memory that kernels may access.
struct Region {
  uintptr_t base = 0;
  size_t bytes = 0;
  int shift = 2;  // a granule has 1 << shift bytes
  bool writable = true;
  bool initialized = false;  // everywhere, independent of its cells
  bool is_shared = false;
  Cell* cells = nullptr;       // null for memory that is never written
  uint8_t* touched = nullptr;  // per granule: 1 read, 2 written; for the counters
  std::string name;
};

// One load, store or marker, for the counters.
struct Event {
  const void* pc;
  uintptr_t address;
  uint8_t bytes;
  bool write, shared, main_loop;
};

struct PendingCopy {
  uintptr_t to;
  int group;
  uint8_t data[16];
};

struct Fiber {
  void* context = nullptr;
  uintptr_t stack = 0;
  uint32_t thread = 0;
  enum State : uint8_t { kReady, kAtBarrier, kAtCollective, kDone } state = kDone;
  bool main_loop = false;
  uint32_t fence_epoch = 0;  // of the block's barriers, when this thread last fenced
  uintptr_t acquiring = 0;   // the address of an atomic that no fence has followed yet
  const void* waits_at = nullptr;
  uint64_t result = 0;
  std::vector<PendingCopy> copies;
  int group = 0;  // of copies: the number of groups ended so far
  std::vector<Event> events;
};

enum class Collective : uint8_t { kNone, kShuffle, kBallot, kSync, kMma };

struct Warp {
  uint32_t arrived = 0, mask = 0;
  uint32_t epoch = 0;  // at least the block's; more after __syncwarp
  Collective kind = Collective::kNone;
  uint64_t values[kLanes];
  int sources[kLanes];
  float* d[kLanes];
  const uint32_t* a[kLanes];
  const uint32_t* b[kLanes];
};

struct State {
  // Read by every hook, so first. On the host the "stack" is the whole address space.
  uintptr_t stack_low = 0, stack_size = ~uintptr_t{0};
  Fiber* current = nullptr;
  bool counting = false;
  uint64_t seed = 0;

  uint32_t next_block = kFirstBlock, launch_base = kFirstBlock, block = kFirstBlock;
  uint32_t barrier_epoch = 0;  // the first epoch after the last barrier
  uint32_t blocks = 0;
  int threads = 0, live = 0, at_barrier = 0;
  const void* body = nullptr;
  size_t body_bytes = 0;
  Warp warps[kMaxThreads / kLanes];
  std::vector<Fiber> fibers;
  std::vector<uint16_t> order;  // thread ids, as this block schedules them
  std::vector<uint16_t> ready;  // the next to run is at the back
  std::string violation;
};
extern State state __attribute__((visibility("hidden")));

// While one exists, hooks check nothing: the emulator calls functions of the standard library, and the linker may have
// selected their instrumented copies.
struct Unwatched {
  Unwatched() {
    state.stack_low = 0;
    state.stack_size = ~uintptr_t{0};
  }
  ~Unwatched() {
    if (!state.current) return;
    state.stack_low = state.current->stack;
    state.stack_size = kStack;
  }
};

// fiber.cpp
[[noreturn]] void fail(const void* pc, const std::string& what);
[[noreturn]] void fail(const void* pc, const char* what);
void wait_for_others();  // until this fiber's state is kReady

// order.cpp
void acquire_pending(Fiber* fiber);

// memory.cpp
void add_region(const Region& region);
void remove_region(uintptr_t base);
Region* find_region(uintptr_t address);
const std::vector<Region>& regions();
void access(uintptr_t address, size_t bytes, bool write, bool aligned, const void* pc);
void start_launch_memory(size_t shared_bytes);
void start_block_memory();
void* reserve(size_t bytes);  // zeros without memory until they are accessed

// counters.cpp
enum class Mma { kTf32, kBf16, kF16 };
void start_counters();
void count_mma(Mma kind, bool main_loop);
void count_barrier();
void count_block();  // processes the events of the block that ended

inline uint32_t warp_of(uint32_t thread) { return thread / kLanes; }

}  // namespace emulator
