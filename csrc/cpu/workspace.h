// Memory for the intermediate values of one call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace fastnst::cpu {

// Aligned to a cache line by hand, because glibc before 2.38 does not reuse a freed block for an aligned allocation of
// its size, so that the heap would grow with every call.
class Workspace {
 public:
  static constexpr size_t kLine = 64;
  explicit Workspace(int64_t bytes) : block_(::operator new(static_cast<size_t>(bytes) + kLine)) {}
  Workspace(Workspace&& other) noexcept : block_(other.block_) { other.block_ = nullptr; }
  ~Workspace() { ::operator delete(block_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  Workspace& operator=(Workspace&&) = delete;

  void* data() const {
    return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(block_) + kLine - 1) / kLine * kLine);
  }

 private:
  void* block_;
};

}  // namespace fastnst::cpu
