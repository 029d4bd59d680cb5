// The memory that a kernel may access: buffers, and the shared memory of the running block.
#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "order.h"
#include "runtime.h"
#include "symbols.h"

namespace emulator {

namespace {

std::vector<Region> all_regions;
size_t last_region = 0;

// Shared memory of the running block: one arena per size of granule, because values of two bytes have other neighbors
// than values of four. The last is the dynamic one.
constexpr size_t kArena = 256 * 1024;
constexpr int kArenas = 4;
uintptr_t arenas = 0;
Cell* arena_cells[kArenas];
size_t arena_used[kArenas];
size_t dynamic_bytes = 0;
struct SharedArray {
  uintptr_t base;
  size_t bytes;
  std::string name;
};
std::vector<SharedArray> shared_arrays;
constexpr int arena_shift(int arena) { return arena < 3 ? arena : 1; }

// The array of shared memory that holds `address`, as a region.
bool find_shared(uintptr_t address, size_t bytes, Region* found) {
  const uintptr_t offset = address - arenas;
  if (offset >= kArena * kArenas) return false;
  const auto arena = static_cast<int>(offset / kArena);
  found->is_shared = true;
  found->shift = arena_shift(arena);
  for (const SharedArray& array : shared_arrays)
    if (address >= array.base && address < array.base + array.bytes) {
      found->base = array.base;
      found->bytes = array.bytes;
      found->name = array.name;
      found->cells = arena_cells[arena] + ((array.base - arenas) % kArena >> found->shift);
      return address + bytes <= array.base + array.bytes;
    }
  return false;
}

bool in_arrays(uintptr_t address, size_t bytes) {
  static size_t last = 0;
  if (last < shared_arrays.size() && address - shared_arrays[last].base < shared_arrays[last].bytes)
    return address - shared_arrays[last].base + bytes <= shared_arrays[last].bytes;
  for (size_t i = 0; i < shared_arrays.size(); ++i)
    if (address - shared_arrays[i].base < shared_arrays[i].bytes) {
      last = i;
      return address - shared_arrays[i].base + bytes <= shared_arrays[i].bytes;
    }
  return false;
}

void access_cells(const Region& region, Cell* cells, uintptr_t address, size_t bytes, bool write, const void* pc) {
  const size_t first = (address - region.base) >> region.shift,
               last = (address - region.base + bytes - 1) >> region.shift;
  const uint32_t stamp = own_stamp();
  for (size_t i = first; i <= last; ++i)
    write ? write_cell(region, cells[i], address, bytes, stamp, pc)
          : read_cell(region, cells[i], address, bytes, stamp, pc);
}

void access_shared(uintptr_t address, size_t bytes, bool write, const void* pc) {
  const size_t offset = address - arenas;
  const auto arena = static_cast<int>(offset / kArena);
  const int shift = arena_shift(arena);
  Cell* cells = arena_cells[arena] + (offset % kArena >> shift);
  const size_t count = ((offset + bytes - 1) >> shift) - (offset >> shift) + 1;
  // The common, cheap case: this thread wrote there, or others did before the last barrier and no thread read since.
  const uint32_t stamp = own_stamp();
  Region region;
  region.is_shared = true;
  bool named = false;
  for (size_t i = 0; i < count; ++i) {
    Cell& cell = cells[i];
    const bool written = cell.write_block == state.block && ordered(cell.write_stamp);
    if (!write && written) {
      if (cell.read_block != state.block || cell.read_stamp >> kThreadBits < state.barrier_epoch) {
        cell.read_block = state.block;
        cell.read_stamp = stamp;
        continue;
      }
      if (cell.read_stamp == stamp) continue;
    }
    if (write && (written || (cell.write_block != state.block && cell.write_block != kPending)) &&
        (cell.read_block != state.block || ordered(cell.read_stamp))) {
      cell.write_block = state.block;
      cell.write_stamp = stamp;
      continue;
    }
    if (!named) find_shared(address, bytes, &region);
    named = true;
    write ? write_cell(region, cell, address, bytes, stamp, pc) : read_cell(region, cell, address, bytes, stamp, pc);
  }
}

void log_event(uintptr_t address, size_t bytes, bool write, bool is_shared, const void* pc) {
  Fiber& self = *state.current;
  self.events.push_back({pc, address, static_cast<uint8_t>(bytes), write, is_shared, self.main_loop});
}

void write_without_record(const Region& region, const PendingCopy& copy) {
  std::memcpy(reinterpret_cast<void*>(copy.to), copy.data, 16);
  const uint32_t stamp = own_stamp();
  for (size_t i = (copy.to - region.base) >> region.shift; i <= (copy.to - region.base + 15) >> region.shift; ++i) {
    region.cells[i].write_block = state.block;
    region.cells[i].write_stamp = stamp;
  }
}

}  // namespace

void* reserve(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  return p;
}

void add_region(const Region& region) { all_regions.push_back(region); }
void remove_region(uintptr_t base) {
  all_regions.erase(std::remove_if(all_regions.begin(), all_regions.end(), [&](auto& r) { return r.base == base; }),
                    all_regions.end());
  last_region = 0;
}
const std::vector<Region>& regions() { return all_regions; }

Region* find_region(uintptr_t address) {
  if (last_region < all_regions.size() && address - all_regions[last_region].base < all_regions[last_region].bytes)
    return &all_regions[last_region];
  for (size_t i = 0; i < all_regions.size(); ++i)
    if (address - all_regions[i].base < all_regions[i].bytes) {
      last_region = i;
      return &all_regions[i];
    }
  return nullptr;
}

void access(uintptr_t address, size_t bytes, bool write, bool aligned, const void* pc) {
  const Unwatched unwatched;
  if (address - arenas < kArena * kArenas) {
    if (!in_arrays(address, bytes)) {
      Region region;
      find_shared(address, 1, &region);
      if (region.name.empty()) fail(pc, "access to shared memory that lies in none of the block's arrays");
      fail_at(region, address, bytes, write, pc, "out of bounds");
    }
    if (aligned && address % bytes != 0) {
      Region region;
      find_shared(address, bytes, &region);
      fail_at(region, address, bytes, write, pc, "misaligned");
    }
    access_shared(address, bytes, write, pc);
    if (state.counting) log_event(address, bytes, write, true, pc);
    return;
  }
  Region* region = find_region(address);
  if (!region) {
    const auto* p = reinterpret_cast<const void*>(address);
    if (!write && address - reinterpret_cast<uintptr_t>(state.body) < state.body_bytes) return;  // parameters
    if (!write && in_module_data(p, bytes)) return;
    std::string nearest = "no buffer";
    for (const Region& r : all_regions) {
      if (address >= r.base + r.bytes && address < r.base + r.bytes + 4096)
        nearest = std::to_string(address - r.base - r.bytes) + " bytes past the end of " + r.name;
      if (address < r.base && address + 4096 > r.base)
        nearest = std::to_string(r.base - address) + " bytes before " + r.name;
    }
    fail(pc,
         std::string(write ? "write" : "read") + " of " + std::to_string(bytes) + " bytes out of bounds: " + nearest);
  }
  if (address + bytes > region->base + region->bytes) fail_at(*region, address, bytes, write, pc, "out of bounds");
  if (aligned && address % bytes != 0) fail_at(*region, address, bytes, write, pc, "misaligned");
  if (write && !region->writable) fail_at(*region, address, bytes, write, pc, "an input is not to be written");
  if (region->cells) access_cells(*region, region->cells, address, bytes, write, pc);
  if (state.counting) log_event(address, bytes, write, false, pc);
}

void start_launch_memory(size_t shared_bytes) {
  if (!arenas) {
    arenas = reinterpret_cast<uintptr_t>(reserve(kArena * kArenas));
    for (int i = 0; i < kArenas; ++i)
      arena_cells[i] = static_cast<Cell*>(reserve((kArena >> arena_shift(i)) * sizeof(Cell)));
  }
  if (shared_bytes > kMaxShared) throw Violation("launch: more shared memory than a block can have");
  dynamic_bytes = shared_bytes;
  start_launch_order();
}

void start_block_memory() {
  for (size_t& used : arena_used) used = 0;
  shared_arrays.clear();
  if (dynamic_bytes) {
    const uintptr_t base = arenas + 3 * kArena;
    std::memset(reinterpret_cast<void*>(base), 0xff, dynamic_bytes);
    shared_arrays.push_back({base, dynamic_bytes, "memory"});
    // copy_async that an earlier block never waited for
    Cell* cells = arena_cells[3];
    for (size_t i = 0; i < dynamic_bytes >> arena_shift(3); ++i)
      if (cells[i].write_block == kPending) cells[i].write_block = kNobody;
  }
  start_block_order();
}

unsigned char* dynamic_shared() { return reinterpret_cast<unsigned char*>(arenas + 3 * kArena); }

void* shared(SharedSlot* slot, size_t bytes, size_t item, size_t align, const char* name) {
  if (slot->block == state.block) return slot->data;
  const Unwatched unwatched;
  const int arena = item % 4 == 0 ? 2 : item % 2 == 0 ? 1 : 0;
  // CUDA promises no more alignment than the type has.
  size_t& used = arena_used[arena];
  used = (used + align - 1) / align * align;
  if (align < 16 && used % (2 * align) == 0) used += align;
  const uintptr_t base = arenas + static_cast<size_t>(arena) * kArena + used;
  used += bytes;
  if (arena_used[0] + arena_used[1] + arena_used[2] > 48 * 1024 + 64)
    fail(__builtin_return_address(0), "more than 48 KiB of static shared memory");
  std::memset(reinterpret_cast<void*>(base), 0xff, bytes);
  Cell* cells = arena_cells[arena] + ((base - arenas) % kArena >> arena_shift(arena));
  for (size_t i = 0; i < bytes >> arena_shift(arena); ++i)
    if (cells[i].write_block == kPending) cells[i].write_block = kNobody;
  shared_arrays.push_back({base, bytes, name});
  *slot = {state.block, reinterpret_cast<void*>(base)};
  return slot->data;
}

void load(void* to, const void* from, size_t bytes) {
  access(reinterpret_cast<uintptr_t>(from), bytes, false, true, __builtin_return_address(0));
  std::memcpy(to, from, bytes);
}
void load_constant(void* to, const void* from, size_t bytes) {
  const auto address = reinterpret_cast<uintptr_t>(from);
  access(address, bytes, false, true, __builtin_return_address(0));
  const Region* region = find_region(address);
  if (region && region->cells)
    for (size_t i = (address - region->base) >> region->shift;
         i <= (address - region->base + bytes - 1) >> region->shift; ++i)
      if (in_launch(region->cells[i].write_block))
        fail_at(*region, address, bytes, false, __builtin_return_address(0), "__ldg of what this launch wrote");
  std::memcpy(to, from, bytes);
}
void store(void* to, const void* from, size_t bytes) {
  access(reinterpret_cast<uintptr_t>(to), bytes, true, true, __builtin_return_address(0));
  std::memcpy(to, from, bytes);
}

void atomic_begin(void* to, size_t bytes) {
  const Unwatched unwatched;
  const void* pc = __builtin_return_address(0);
  const auto address = reinterpret_cast<uintptr_t>(to);
  if (address % bytes != 0) fail(pc, "misaligned atomic");
  if (address - arenas < kArena * kArenas) {
    Region region;
    if (!find_shared(address, bytes, &region)) fail(pc, "atomic out of bounds of shared memory");
    const Cell& cell = region.cells[(address - region.base) >> region.shift];
    if (cell.write_block != state.block) fail_at(region, address, bytes, true, pc, "uninitialized memory");
    return;
  }
  Region* region = find_region(address);
  if (!region || address + bytes > region->base + region->bytes) fail(pc, "atomic out of bounds");
  if (!region->writable) fail_at(*region, address, bytes, true, pc, "an input is not to be written");
  const Cell& cell = region->cells[(address - region->base) >> region->shift];
  check_write_before(*region, cell, address, bytes, true, pc);
  if (cell.write_block == kNobody && !region->initialized)
    fail_at(*region, address, bytes, true, pc, "uninitialized memory");
  acquire_and_release(address);
}

}  // namespace emulator

namespace fastnst::kernels {

using namespace emulator;

void copy_async(void* shared, const void* global, bool valid) {
  const void* pc = __builtin_return_address(0);
  const Unwatched unwatched;
  PendingCopy copy{reinterpret_cast<uintptr_t>(shared), state.current->group, {}};
  Region region;
  if (!find_shared(copy.to, 16, &region)) fail(pc, "copy_async out of bounds of shared memory");
  if (copy.to % 16 != 0) fail_at(region, copy.to, 16, true, pc, "misaligned");
  if (reinterpret_cast<uintptr_t>(global) % 16 != 0) fail(pc, "copy_async from a misaligned address");
  if (valid) {
    access(reinterpret_cast<uintptr_t>(global), 16, false, true, pc);
    std::memcpy(copy.data, global, 16);
  }
  access(copy.to, 16, true, true, pc);
  std::memset(shared, 0xff, 16);
  for (size_t i = (copy.to - region.base) >> region.shift; i <= (copy.to - region.base + 15) >> region.shift; ++i)
    region.cells[i].write_block = kPending;
  state.current->copies.push_back(copy);
}

void copy_async_commit() { ++state.current->group; }

void copy_async_wait(int pending) {
  const Unwatched unwatched;
  Fiber& self = *state.current;
  std::vector<PendingCopy> later;
  for (const PendingCopy& copy : self.copies) {
    if (copy.group >= self.group - pending) {
      later.push_back(copy);
      continue;
    }
    Region region;
    find_shared(copy.to, 16, &region);
    write_without_record(region, copy);
  }
  self.copies.swap(later);
}

}  // namespace fastnst::kernels
