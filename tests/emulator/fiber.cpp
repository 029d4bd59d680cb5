// Fibers, barriers and the collectives of a warp.
#include <sys/mman.h>

#include <cstdlib>
#include <random>

#include "runtime.h"
#include "symbols.h"
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace emulator {

State state;
void (*redirect)(const KernelLaunch&) = nullptr;
Indices indices;

namespace {

#ifdef __x86_64__
// Saves the registers that a callee must keep, and the stack; continues where `to` was saved.
extern "C" void fastnst_switch(void** from, void* to);
asm(R"(
.text
.globl fastnst_switch
.hidden fastnst_switch
.type fastnst_switch, @function
fastnst_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fastnst_switch, .-fastnst_switch
)");
using Context = void*;
void switch_context(Context& from, Context& to) { fastnst_switch(&from, to); }
Context make_context(uintptr_t top, void (*entry)()) {
  auto* stack = reinterpret_cast<void**>(top & ~uintptr_t{15});
  *--stack = nullptr;  // where entry would return to; keeps the stack aligned as after a call
  *--stack = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--stack = nullptr;
  return stack;
}
#else
using Context = void*;
void switch_context(Context& from, Context& to) {
  auto* saved = new ucontext_t;
  from = saved;
  auto* next = static_cast<ucontext_t*>(to);
  ucontext_t going = *next;
  delete next;
  swapcontext(saved, &going);
}
Context make_context(uintptr_t top, void (*entry)()) {
  auto* made = new ucontext_t;
  getcontext(made);
  made->uc_stack.ss_sp = reinterpret_cast<void*>(top - kStack / 2);
  made->uc_stack.ss_size = kStack / 2;
  made->uc_link = nullptr;
  makecontext(made, entry, 0);
  return made;
}
#endif

Context host;
void (*kernel)(const void*);

void enter(Fiber* fiber) {
  state.current = fiber;
  state.stack_low = fiber->stack;
  state.stack_size = kStack;
  indices.thread.x = fiber->thread;
}

void leave_to_host(Context& from) {
  state.current = nullptr;
  state.stack_low = 0;
  state.stack_size = ~uintptr_t{0};
  switch_context(from, host);
}

std::string position(const Fiber& fiber) {
  const dim3& b = indices.block;
  return "block (" + std::to_string(b.x) + ", " + std::to_string(b.y) + ", " + std::to_string(b.z) + "), thread " +
         std::to_string(fiber.thread);
}

// Deadlock: all remaining fibers wait, for different conditions.
[[noreturn]] void fail_divergent() {
  const Unwatched unwatched;
  int at_barrier = 0, at_collective = 0, done = 0;
  const Fiber* example = nullptr;
  for (const uint16_t thread : state.order) {
    const Fiber& fiber = state.fibers[thread];
    at_barrier += fiber.state == Fiber::kAtBarrier;
    at_collective += fiber.state == Fiber::kAtCollective;
    done += fiber.state == Fiber::kDone;
    if (fiber.state == Fiber::kAtCollective || (!example && fiber.state == Fiber::kAtBarrier)) example = &fiber;
  }
  std::string what = at_collective ? "divergent warp collective: lanes are missing" : "divergent barrier";
  what += " (" + std::to_string(at_barrier) + " threads at a barrier, " + std::to_string(at_collective) +
          " at a collective, " + std::to_string(done) + " have returned)";
  state.current = const_cast<Fiber*>(example);
  fail(example->waits_at, what);
}

void run_next(Context& from) {
  if (state.ready.empty()) {
    if (state.live == 0) leave_to_host(from);
    fail_divergent();
  }
  Fiber* next = &state.fibers[state.ready.back()];
  state.ready.pop_back();
  enter(next);
  switch_context(from, next->context);
}

void fiber_main() {
  kernel(state.body);
  Fiber* self = state.current;
  self->state = Fiber::kDone;
  --state.live;
  run_next(self->context);
  std::abort();  // a finished fiber is not resumed
}

void prepare_stacks(int threads) {
  if (state.fibers.empty()) state.fibers.resize(kMaxThreads);
  static uintptr_t stacks = 0;
  if (!stacks) stacks = reinterpret_cast<uintptr_t>(reserve(kMaxThreads * kStack));
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = state.fibers[i];
    fiber.stack = stacks + i * kStack;
    fiber.thread = static_cast<uint32_t>(i);
  }
}

void shuffle_order(uint32_t block) {
  std::minstd_rand random(static_cast<unsigned>(state.seed * 7919 + block * 104729 + 1));
  const int warps = (state.threads + kLanes - 1) / kLanes;
  std::vector<int> warp_order(warps);
  for (int i = 0; i < warps; ++i) warp_order[i] = i;
  if (state.seed) std::shuffle(warp_order.begin(), warp_order.end(), random);
  state.order.clear();
  for (const int warp : warp_order) {
    const auto first = static_cast<std::ptrdiff_t>(state.order.size());
    for (int i = warp * kLanes; i < state.threads && i < (warp + 1) * kLanes; ++i)
      state.order.push_back(static_cast<uint16_t>(i));
    if (state.seed) std::shuffle(state.order.begin() + first, state.order.end(), random);
  }
}

void run_block(uint32_t serial) {
  state.block = state.launch_base + serial;
  shuffle_order(serial);
  start_block_memory();
  state.barrier_epoch = 1;
  state.live = state.threads;
  state.at_barrier = 0;
  for (Warp& warp : state.warps) {
    warp.arrived = 0;
    warp.epoch = 1;
  }
  state.ready.assign(state.order.rbegin(), state.order.rend());
  for (const uint16_t thread : state.order) {
    Fiber& fiber = state.fibers[thread];
    fiber.state = Fiber::kReady;
    fiber.main_loop = false;
    fiber.fence_epoch = 0;
    fiber.acquiring = 0;
    fiber.copies.clear();
    fiber.group = 0;
    fiber.events.clear();
    // Stacks a multiple of 128 KiB apart would share cache sets.
    fiber.context = make_context(fiber.stack + kStack - thread % 32 * 1088 - 64, fiber_main);
  }
  run_next(host);
}

// Records an arrival at a collective; returns whether it was the last.
Warp& arrive(Collective kind, unsigned mask, bool* last, const void* pc) {
  Fiber* self = state.current;
  Warp& warp = state.warps[warp_of(self->thread)];
  const uint32_t bit = 1u << self->thread % kLanes;
  if (!(mask & bit)) fail(pc, "a warp collective whose mask leaves out the calling lane");
  if (warp.arrived == 0) {
    warp.kind = kind;
    warp.mask = mask;
  } else if (warp.kind != kind || warp.mask != mask) {
    fail(pc, "divergent warp collective: lanes of one warp are at different collectives or name different masks");
  }
  warp.arrived |= bit;
  self->waits_at = pc;
  *last = warp.arrived == mask;
  return warp;
}

// Resumes every waiting lane of the warp except the caller, which is running.
void release(Warp& warp) {
  const uint32_t base = state.current->thread & ~31u;
  warp.arrived = 0;
  for (int lane = kLanes - 1; lane >= 0; --lane) {
    Fiber& fiber = state.fibers[base + lane];
    if (!(warp.mask >> lane & 1) || &fiber == state.current) continue;
    fiber.state = Fiber::kReady;
    state.ready.push_back(static_cast<uint16_t>(base + lane));
  }
}

void await(Warp& warp, bool last) {
  if (last) {
    release(warp);
  } else {
    state.current->state = Fiber::kAtCollective;
    wait_for_others();
  }
}

int source_lane(Shuffle kind, int lane, int argument, int width) {
  const int first = lane & ~(width - 1), last = first + width - 1;
  int source = lane;
  if (kind == Shuffle::kFrom) return first + (argument & (width - 1));
  if (kind == Shuffle::kUp) source = lane - argument;
  if (kind == Shuffle::kDown) source = lane + argument;
  if (kind == Shuffle::kXor) source = lane ^ argument;
  return source < first || source > last ? lane : source;
}

}  // namespace

void wait_for_others() { run_next(state.current->context); }

void fail(const void* pc, const char* what) {
  const Unwatched unwatched;
  fail(pc, std::string(what));
}

void fail(const void* pc, const std::string& what) {
  const Unwatched unwatched;
  Fiber* self = state.current;
  state.violation = kernel_name(state.body, state.body_bytes, pc) + ": " + position(*self) + ": " + what;
  Context abandoned;
  leave_to_host(abandoned);
  std::abort();
}

void run(dim3 grid, int threads, size_t shared_bytes, void (*call)(const void*), const void* body, size_t body_bytes) {
  if (threads < 1 || threads > kMaxThreads)
    throw Violation("launch: a block of " + std::to_string(threads) + " threads");
  if (grid.x < 1 || grid.x > 0x7fffffffu || grid.y < 1 || grid.y > 65535 || grid.z < 1 || grid.z > 65535)
    throw Violation("launch: a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " +
                    std::to_string(grid.z) + " blocks");
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  if (blocks > 1u << 30) throw Violation("launch: too many blocks to emulate");
  if (state.next_block + blocks > kLastBlock) throw Violation("launch: out of block numbers; start a new process");
  kernel = call;
  state.body = body;
  state.body_bytes = body_bytes;
  state.threads = threads;
  state.blocks = static_cast<uint32_t>(blocks);
  state.launch_base = state.next_block;
  state.next_block += static_cast<uint32_t>(blocks);
  state.violation.clear();
  indices = {dim3(0, 0, 0), dim3(0, 0, 0), dim3(static_cast<unsigned>(threads)), grid};
  prepare_stacks(threads);
  start_launch_memory(shared_bytes);
  if (state.counting) start_counters();
  std::vector<uint32_t> block_order(state.blocks);
  for (uint32_t i = 0; i < state.blocks; ++i) block_order[i] = i;
  if (state.seed) std::shuffle(block_order.begin(), block_order.end(), std::minstd_rand(unsigned(state.seed)));
  for (const uint32_t serial : block_order) {
    indices.block = dim3(serial % grid.x, serial / grid.x % grid.y, serial / grid.x / grid.y);
    run_block(serial);
    if (!state.violation.empty()) throw Violation(state.violation);
    if (state.counting) count_block();
  }
}

void begin_main_loop() {
  if (state.current) state.current->main_loop = true;
}
void end_main_loop() {
  if (state.current) state.current->main_loop = false;
}

uint64_t shuffle(Shuffle kind, unsigned mask, uint64_t value, int argument, int width) {
  const void* pc = __builtin_return_address(0);
  bool last = false;
  Warp& warp = arrive(Collective::kShuffle, mask, &last, pc);
  Fiber* self = state.current;
  const int lane = static_cast<int>(self->thread % kLanes);
  warp.values[lane] = value;
  warp.sources[lane] = source_lane(kind, lane, argument, width);
  if (last) {
    Fiber* lanes = &state.fibers[self->thread & ~31u];
    for (int i = 0; i < kLanes; ++i) {
      if (!(mask >> i & 1)) continue;
      if (!(mask >> warp.sources[i] & 1)) fail(pc, "a shuffle that reads a lane outside its mask");
      lanes[i].result = warp.values[warp.sources[i]];
    }
  }
  await(warp, last);
  return self->result;
}

unsigned ballot(unsigned mask, bool value) {
  bool last = false;
  Warp& warp = arrive(Collective::kBallot, mask, &last, __builtin_return_address(0));
  Fiber* self = state.current;
  warp.values[self->thread % kLanes] = value;
  if (last) {
    unsigned result = 0;
    for (int i = 0; i < kLanes; ++i)
      if (mask >> i & 1 && warp.values[i]) result |= 1u << i;
    for (int i = 0; i < kLanes; ++i)
      if (mask >> i & 1) state.fibers[(self->thread & ~31u) + i].result = result;
  }
  await(warp, last);
  return static_cast<unsigned>(self->result);
}

// All lanes of the warp must call it; the last to arrive calls multiply(warp).
void mma(float* d, const uint32_t* a, const uint32_t* b, void (*multiply)(Warp&), Mma kind, const void* pc) {
  bool last = false;
  Warp& warp = arrive(Collective::kMma, ~0u, &last, pc);
  const uint32_t lane = state.current->thread % kLanes;
  warp.d[lane] = d;
  warp.a[lane] = a;
  warp.b[lane] = b;
  if (last) {
    multiply(warp);
    if (state.counting) count_mma(kind, state.current->main_loop);
  }
  await(warp, last);
}

}  // namespace emulator

void __syncwarp(unsigned mask) {
  using namespace emulator;
  bool last = false;
  Warp& warp = arrive(Collective::kSync, mask, &last, __builtin_return_address(0));
  if (last && mask == ~0u) ++warp.epoch;
  await(warp, last);
}

void __syncthreads() {
  using namespace emulator;
  Fiber* self = state.current;
  self->waits_at = __builtin_return_address(0);
  if (++state.at_barrier < state.threads) {
    self->state = Fiber::kAtBarrier;
    wait_for_others();
    return;
  }
  state.at_barrier = 0;
  uint32_t epoch = state.barrier_epoch;
  for (const Warp& warp : state.warps) epoch = std::max(epoch, warp.epoch);
  state.barrier_epoch = epoch + 1;
  if (state.barrier_epoch >= 1u << (32 - kThreadBits)) fail(self->waits_at, "too many barriers for the emulator");
  for (Warp& warp : state.warps) warp.epoch = epoch + 1;
  for (auto i = state.order.rbegin(); i != state.order.rend(); ++i) {
    if (*i == self->thread) continue;
    state.fibers[*i].state = Fiber::kReady;
    state.ready.push_back(*i);
  }
  if (state.counting) count_barrier();
}

void __threadfence() {
  using namespace emulator;
  Fiber* self = state.current;
  if (self->acquiring) acquire_pending(self);
  self->fence_epoch = state.barrier_epoch;
}
