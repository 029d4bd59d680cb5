// The functions that -fsanitize=thread calls before each load and store. This file is compiled without the flag.
#include "runtime.h"

namespace emulator {
namespace {

inline void watch(const void* p, size_t bytes, bool write, bool aligned, const void* pc) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  if (address - state.stack_low < state.stack_size) return;  // the thread's own variables, or code of the host
  access(address, bytes, write, aligned, pc);
}

template <typename T, typename F>
T exchange(volatile T* to, const F& f) {
  const T old = *to;  // atomic, because there is one host thread
  *to = f(old);
  return old;
}

}  // namespace
}  // namespace emulator

// The names are the compiler's; one of a kind for each width.
#define FASTNST_HOOKS(n)                                                                                       \
  void __tsan_read##n(void* p) { emulator::watch(p, n, false, true, __builtin_return_address(0)); }            \
  void __tsan_write##n(void* p) { emulator::watch(p, n, true, true, __builtin_return_address(0)); }            \
  void __tsan_unaligned_read##n(void* p) { emulator::watch(p, n, false, false, __builtin_return_address(0)); } \
  void __tsan_unaligned_write##n(void* p) { emulator::watch(p, n, true, false, __builtin_return_address(0)); } \
  void __tsan_volatile_read##n(void* p) { emulator::watch(p, n, false, true, __builtin_return_address(0)); }   \
  void __tsan_volatile_write##n(void* p) { emulator::watch(p, n, true, true, __builtin_return_address(0)); }

#define FASTNST_ATOMICS(bits, type)                                                                         \
  type __tsan_atomic##bits##_load(const volatile type* p, int) { return *p; }                               \
  void __tsan_atomic##bits##_store(volatile type* p, type v, int) { *p = v; }                               \
  type __tsan_atomic##bits##_exchange(volatile type* p, type v, int) {                                      \
    return emulator::exchange(p, [=](type) { return v; });                                                  \
  }                                                                                                         \
  type __tsan_atomic##bits##_fetch_add(volatile type* p, type v, int) {                                     \
    return emulator::exchange(p, [=](type x) { return static_cast<type>(x + v); });                         \
  }                                                                                                         \
  type __tsan_atomic##bits##_fetch_sub(volatile type* p, type v, int) {                                     \
    return emulator::exchange(p, [=](type x) { return static_cast<type>(x - v); });                         \
  }                                                                                                         \
  type __tsan_atomic##bits##_fetch_or(volatile type* p, type v, int) {                                      \
    return emulator::exchange(p, [=](type x) { return static_cast<type>(x | v); });                         \
  }                                                                                                         \
  type __tsan_atomic##bits##_fetch_and(volatile type* p, type v, int) {                                     \
    return emulator::exchange(p, [=](type x) { return static_cast<type>(x & v); });                         \
  }                                                                                                         \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile type* p, type* expected, type v, int, int) {   \
    const type old = *p;                                                                                    \
    if (old == *expected) *p = v;                                                                           \
    const bool done = old == *expected;                                                                     \
    *expected = old;                                                                                        \
    return done;                                                                                            \
  }                                                                                                         \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile type* p, type* expected, type v, int a, int b) { \
    return __tsan_atomic##bits##_compare_exchange_strong(p, expected, v, a, b);                             \
  }

#pragma GCC visibility push(hidden)
extern "C" {

FASTNST_HOOKS(1)
FASTNST_HOOKS(2)
FASTNST_HOOKS(4)
FASTNST_HOOKS(8)
FASTNST_HOOKS(16)
FASTNST_ATOMICS(8, uint8_t)
FASTNST_ATOMICS(16, uint16_t)
FASTNST_ATOMICS(32, uint32_t)
FASTNST_ATOMICS(64, uint64_t)

void __tsan_read_range(void* p, size_t n) { emulator::watch(p, n, false, false, __builtin_return_address(0)); }
void __tsan_write_range(void* p, size_t n) { emulator::watch(p, n, true, false, __builtin_return_address(0)); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}
void* __tsan_memcpy(void* to, const void* from, size_t n) {
  emulator::watch(from, n, false, false, __builtin_return_address(0));
  emulator::watch(to, n, true, false, __builtin_return_address(0));
  return std::memcpy(to, from, n);
}
void* __tsan_memset(void* to, int value, size_t n) {
  emulator::watch(to, n, true, false, __builtin_return_address(0));
  return std::memset(to, value, n);
}
void* __tsan_memmove(void* to, const void* from, size_t n) {
  emulator::watch(from, n, false, false, __builtin_return_address(0));
  emulator::watch(to, n, true, false, __builtin_return_address(0));
  return std::memmove(to, from, n);
}

}  // extern "C"
#pragma GCC visibility pop
