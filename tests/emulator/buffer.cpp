// Buffers: memory registered with the emulator, filled from bytes, read back as bytes.
#include <sys/mman.h>

#include "bind.h"
#include "runtime.h"

namespace emulator {

namespace {

size_t item_size(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat64:
      return 8;
    case Dtype::kFloat16:
    case Dtype::kBfloat16:
      return 2;
    case Dtype::kUint8:
      return 1;
    default:
      return 4;
  }
}

constexpr size_t kGuard = 4096;  // before and after, so that a pointer just outside is in no other buffer

}  // namespace

Buffer::Buffer(std::string name, Dtype dtype, std::vector<int64_t> shape, std::vector<int64_t> strides, int64_t offset,
               Kind kind, bool sparse)
    : name_(std::move(name)), dtype_(dtype), shape_(std::move(shape)), strides_(std::move(strides)) {
  if (shape_.size() != strides_.size()) throw std::invalid_argument(name_ + ": expected a stride for each dimension");
  item_ = item_size(dtype);
  shift_ = item_ == 8 ? 3 : item_ == 4 ? 2 : item_ == 2 ? 1 : 0;
  int64_t extent = count() ? 1 : 0;
  for (size_t i = 0; i < shape_.size() && extent; ++i) extent += (shape_[i] - 1) * strides_[i];
  bytes_ = static_cast<size_t>(offset + extent) * item_;
  mapped_ = bytes_ + 2 * kGuard;
  base_ = static_cast<unsigned char*>(reserve(mapped_)) + kGuard;
  first_ = base_ + static_cast<size_t>(offset) * item_;

  Region region;
  region.base = reinterpret_cast<uintptr_t>(base_);
  region.bytes = bytes_;
  region.shift = shift_;
  region.name = name_;
  region.writable = kind != Kind::kInput;
  region.initialized = sparse;
  const size_t granules = (bytes_ >> shift_) + 1;
  const bool holes = extent != count() || offset != 0;
  if (!sparse && bytes_) std::memset(base_, 0xff, bytes_);  // NaN
  if (kind != Kind::kInput || (holes && !sparse)) {
    cells_mapped_ = granules * sizeof(Cell);
    cells_ = reserve(cells_mapped_);
  }
  if (state.counting && !sparse) {
    touched_mapped_ = granules;
    touched_ = static_cast<uint8_t*>(reserve(granules));
  }
  region.cells = static_cast<Cell*>(cells_);
  region.touched = touched_;
  if (cells_ && !sparse) {
    if (holes) mark(0, offset + extent, kHole);
    for_each_run([&](int64_t at, int64_t n) { mark(at, n, kind == Kind::kOutput ? kNobody : kHost); });
  }
  add_region(region);
}

Buffer::~Buffer() {
  remove_region(reinterpret_cast<uintptr_t>(base_));
  munmap(base_ - kGuard, mapped_);
  if (cells_) munmap(cells_, cells_mapped_);
  if (touched_) munmap(touched_, touched_mapped_);
}

void Buffer::mark(int64_t element, int64_t count, uint32_t by) {
  auto* cells = static_cast<Cell*>(cells_);
  for (int64_t i = element; i < element + count; ++i) cells[i] = {by, 0, kNobody, 0};
}

template <typename F>
void Buffer::for_each_run(const F& f) const {
  const int64_t n = count(), start = (first_ - base_) / static_cast<int64_t>(item_);
  if (n == 0) return;
  const size_t rank = shape_.size();
  const bool whole = rank && strides_.back() == 1;
  const int64_t run = whole ? shape_.back() : 1;
  const size_t outer = whole ? rank - 1 : rank;
  std::vector<int64_t> at(outer, 0);
  for (int64_t done = 0; done < n; done += run) {
    int64_t position = start;
    for (size_t i = 0; i < outer; ++i) position += at[i] * strides_[i];
    f(position, run);
    for (size_t i = outer; i-- > 0;) {
      if (++at[i] < shape_[i]) break;
      at[i] = 0;
    }
  }
}

void Buffer::fill(const std::string& bytes) {
  if (bytes.size() != static_cast<size_t>(count()) * item_) throw std::invalid_argument(name_ + ": not as many values");
  size_t from = 0;
  for_each_run([&](int64_t at, int64_t n) {
    std::memcpy(base_ + at * item_, bytes.data() + from, n * item_);
    from += n * item_;
  });
}

py::bytes Buffer::read() const {
  std::string bytes(static_cast<size_t>(count()) * item_, '\0');
  size_t to = 0;
  for_each_run([&](int64_t at, int64_t n) {
    std::memcpy(&bytes[to], base_ + at * item_, n * item_);
    to += n * item_;
  });
  return bytes;
}

void Buffer::poke(int64_t at, const std::string& bytes) {
  if (at < 0 || at * item_ + bytes.size() > bytes_) throw std::invalid_argument(name_ + ": outside the buffer");
  std::memcpy(base_ + at * item_, bytes.data(), bytes.size());
}

py::bytes Buffer::peek(int64_t at, int64_t n) const {
  if (at < 0 || n < 0 || static_cast<size_t>(at + n) * item_ > bytes_)
    throw std::invalid_argument(name_ + ": outside the buffer");
  return {reinterpret_cast<const char*>(base_) + at * item_, static_cast<size_t>(n) * item_};
}

void Buffer::initialize() {
  if (cells_) for_each_run([&](int64_t at, int64_t n) { mark(at, n, kHost); });
}

uint64_t Buffer::touched(int bit) const {
  uint64_t granules = 0;
  if (touched_)
    for (size_t i = 0; i < touched_mapped_; ++i) granules += (touched_[i] & bit) != 0;
  return granules * item_;
}

}  // namespace emulator
