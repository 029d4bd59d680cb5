// Counters of a launch: sectors, bank conflicts, bytes, MMA instructions.
#include "counters.h"

#include <algorithm>
#include <unordered_map>

#include "runtime.h"

namespace emulator {

namespace {

Counters counters;

struct Access {
  uintptr_t address;
  uint8_t bytes;
};

// Lanes of one warp at one instruction, in the same iteration.
struct Request {
  bool write, shared, main_loop;
  std::vector<Access> lanes;
};

// Bytes of a granule set: sum of the union of the accesses.
uint64_t distinct_bytes(std::vector<Access>& lanes) {
  std::sort(lanes.begin(), lanes.end(), [](const Access& a, const Access& b) { return a.address < b.address; });
  uint64_t total = 0;
  uintptr_t end = 0;
  for (const Access& a : lanes) {
    const uintptr_t from = std::max(a.address, end), to = a.address + a.bytes;
    if (to > from) total += to - from;
    end = std::max(end, to);
  }
  return total;
}

void count_global(Request& request, Traffic& traffic, std::vector<uint64_t>& block_sectors) {
  std::vector<uint64_t> sectors;
  for (const Access& a : request.lanes)
    for (uintptr_t s = a.address / 32; s <= (a.address + a.bytes - 1) / 32; ++s) sectors.push_back(s);
  std::sort(sectors.begin(), sectors.end());
  sectors.erase(std::unique(sectors.begin(), sectors.end()), sectors.end());
  ++traffic.requests;
  traffic.sectors += sectors.size();
  traffic.bytes += distinct_bytes(request.lanes);
  traffic.widest = std::max<uint64_t>(traffic.widest, request.lanes.front().bytes);
  if (!request.write) block_sectors.insert(block_sectors.end(), sectors.begin(), sectors.end());
}

// Lanes that are served together: all for up to 4 bytes, half a warp for 8, a quarter for 16.
void count_shared(const Request& request, Banks& banks) {
  const size_t bytes = request.lanes.front().bytes, group = bytes <= 4 ? 32 : bytes <= 8 ? 16 : 8;
  ++banks.requests;
  for (size_t first = 0; first < request.lanes.size(); first += group) {
    std::vector<uintptr_t> words;
    for (size_t i = first; i < std::min(first + group, request.lanes.size()); ++i)
      for (uintptr_t w = request.lanes[i].address / 4; w <= (request.lanes[i].address + bytes - 1) / 4; ++w)
        words.push_back(w);
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    uint64_t per_bank[32] = {};
    for (const uintptr_t w : words) ++per_bank[w % 32];
    banks.wavefronts += *std::max_element(per_bank, per_bank + 32);
    banks.least += (words.size() + 31) / 32;
  }
}

void mark_touched(const Event& event) {
  const Region* region = find_region(event.address);
  if (!region || !region->touched) return;
  for (size_t i = (event.address - region->base) >> region->shift;
       i <= (event.address - region->base + event.bytes - 1) >> region->shift; ++i)
    region->touched[i] |= event.write ? 2 : 1;
}

}  // namespace

Counters& launch_counters() { return counters; }

void start_counters() {
  counters = {};
  counters.blocks = state.blocks;
  counters.threads = static_cast<uint64_t>(state.threads);
}

void count_mma(Mma kind, bool main_loop) {
  ++counters.mma[static_cast<int>(kind)];
  counters.mma_main += main_loop;
}
void count_barrier() { ++counters.barriers; }

void count_block() {
  std::vector<uint64_t> block_sectors;
  std::unordered_map<const void*, uint32_t> occurrence;
  for (int first = 0; first < state.threads; first += kLanes) {
    std::unordered_map<const void*, std::vector<Request>> sites;
    for (int t = first; t < std::min(first + kLanes, state.threads); ++t) {
      occurrence.clear();
      for (const Event& event : state.fibers[t].events) {
        auto& requests = sites[event.pc];
        const uint32_t index = occurrence[event.pc]++;
        if (index >= requests.size()) requests.push_back({event.write, event.shared, event.main_loop, {}});
        requests[index].lanes.push_back({event.address, event.bytes});
        if (!event.shared) mark_touched(event);
      }
    }
    for (auto& [pc, requests] : sites)
      for (Request& request : requests) {
        Part& part = request.main_loop ? counters.main_loop : counters.elsewhere;
        if (request.shared)
          count_shared(request, part.shared);
        else
          count_global(request, request.write ? part.writes : part.reads, block_sectors);
      }
  }
  std::sort(block_sectors.begin(), block_sectors.end());
  const auto end = std::unique(block_sectors.begin(), block_sectors.end());
  counters.block_read_bytes += 32 * static_cast<uint64_t>(end - block_sectors.begin());
}

}  // namespace emulator
