// Included before every file of a build under ThreadSanitizer: torch::stable::parallel_for over threads of std::thread.
//
// PyTorch's runs on libgomp, which is not instrumented: ThreadSanitizer does not see its barriers and would report
// every result as a race. It does see threads that are created and joined. Work is split as in at::parallel_for.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace torch::stable {

template <class F>
void sanitized_parallel_for(int64_t begin, int64_t end, int64_t grain_size, const F& f) {
  const int64_t count = end - begin;
  if (count <= 0) return;
  const int64_t grain = std::max<int64_t>(grain_size, 1);
  const int64_t parts = std::min<int64_t>(get_num_threads(), (count + grain - 1) / grain);
  const int64_t chunk = (count + parts - 1) / parts;
  std::vector<std::thread> threads;
  for (int64_t at = begin; at < end; at += chunk) {
    threads.emplace_back([&f, at, chunk, end] { f(at, std::min(at + chunk, end)); });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace torch::stable

#define parallel_for sanitized_parallel_for
