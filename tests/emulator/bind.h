// What a binding file needs: buffers that kernels may touch, made from NumPy arrays, and the dtype as a type.
//
// A file bind_xxx.cpp is compiled with every access watched, so it holds kernels and little else. It defines
// `void bind_xxx(py::module_& m)`, which module.cpp calls. A binding takes buffers and passes raw pointers on:
//
//   m.def("squared_difference", [](const Buffer& x, const Buffer& y, const Buffer& partial, ...) {
//     with_type(x, [&](auto zero) {
//       using T = decltype(zero);
//       launch_squared_difference<T>(x.data<T>(), y.data<T>(), x.count(), partial.data<double>(), ..., nullptr);
//     });
//   });
//
// Wherever a kernel takes a null pointer for "not asked for", a binding takes `const Buffer*` and Python passes None.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulator.h"

namespace py = pybind11;

namespace emulator {

enum class Dtype { kFloat32, kFloat64, kFloat16, kBfloat16, kUint8, kInt32 };

// Memory that kernels may touch, as a strided view. Elements between those of the view are padding: touching them is an
// error, as is anything outside, or writing where it is an input.
class Buffer {
 public:
  enum class Kind { kInput, kInPlace, kOutput };

  Buffer(std::string name, Dtype dtype, std::vector<int64_t> shape, std::vector<int64_t> strides, int64_t offset,
         Kind kind, bool sparse);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  // The view's first element.
  template <typename T>
  T* data() const {
    if (sizeof(T) != item_) throw std::invalid_argument(name_ + ": the kernel takes values of another width");
    return reinterpret_cast<T*>(first_);
  }
  uintptr_t address() const { return reinterpret_cast<uintptr_t>(first_); }
  Dtype dtype() const { return dtype_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  const std::vector<int64_t>& strides() const { return strides_; }
  int64_t count() const {
    int64_t n = 1;
    for (const int64_t size : shape_) n *= size;
    return n;
  }

  // Raw bytes of the view's elements, in the order of its shape.
  void fill(const std::string& bytes);
  py::bytes read() const;
  // `n` elements from the flat position `at` of memory, whatever the view is.
  void poke(int64_t at, const std::string& bytes);
  py::bytes peek(int64_t at, int64_t n) const;
  // Marks what there is as written by the host, as between two launches of which the second reads the first's output.
  void initialize();
  uint64_t touched(int bit) const;  // bytes that kernels read (1) or wrote (2) while counters were on
  const std::string& name() const { return name_; }

 private:
  template <typename F>
  void for_each_run(const F& f) const;  // f(first element, count) for runs of contiguous elements
  void mark(int64_t element, int64_t count, uint32_t by);

  std::string name_;
  Dtype dtype_;
  std::vector<int64_t> shape_, strides_;
  size_t item_, bytes_, mapped_, cells_mapped_ = 0, touched_mapped_ = 0;
  int shift_;
  unsigned char* base_ = nullptr;  // of the registered memory; the view starts `offset` elements later
  unsigned char* first_ = nullptr;
  void* cells_ = nullptr;
  uint8_t* touched_ = nullptr;
};

// The pointer of an optional buffer.
template <typename T>
T* data(const Buffer* buffer) {
  return buffer ? buffer->data<T>() : nullptr;
}

// Calls f with a zero of the element type of the buffer.
template <typename F>
void with_type(const Buffer& x, const F& f) {
  switch (x.dtype()) {
    case Dtype::kFloat32:
      return f(float{});
    case Dtype::kFloat64:
      return f(double{});
    case Dtype::kFloat16:
      return f(__half{});
    case Dtype::kBfloat16:
      return f(__nv_bfloat16{});
    default:
      throw std::invalid_argument(x.name() + ": features are floating-point numbers");
  }
}

}  // namespace emulator
