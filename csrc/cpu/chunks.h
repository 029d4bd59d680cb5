// Distribution of work over threads: chunks that idle threads take, so that a thread that has to wait for a core, on a
// machine with other work, does not make the others wait with a share of its own.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace fastnst::cpu {

// Runs worker() in every thread; it returns a function, which that thread calls with the numbers of chunks in 0..count.
// Results must not depend on which thread takes a chunk.
template <typename Worker>
void for_chunks_with(int64_t count, const Worker& worker) {
  const int64_t threads = std::min<int64_t>(count, torch::stable::get_num_threads());
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    int64_t i = next.fetch_add(1, std::memory_order_relaxed);
    if (i >= count) return;
    auto work = worker();
    for (; i < count; i = next.fetch_add(1, std::memory_order_relaxed)) work(i);
  });
}

// Calls f(i) for the chunks 0..count.
template <typename F>
void for_chunks(int64_t count, const F& f) {
  for_chunks_with(count, [&] { return [&](int64_t i) { f(i); }; });
}

// Calls f(begin, end) for ranges of at most `length` in 0..n.
template <typename F>
void for_ranges(int64_t n, int64_t length, const F& f) {
  for_chunks((n + length - 1) / length, [&](int64_t i) { f(i * length, std::min(n, (i + 1) * length)); });
}

}  // namespace fastnst::cpu
