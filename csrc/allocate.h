// Allocation of tensors with a readable out-of-memory error; that of the stable ABI names only the call that failed.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <sstream>
#include <stdexcept>

namespace fastnst {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename Make>
inline Tensor or_out_of_memory(const Make& make, std::initializer_list<int64_t> sizes) {
  try {
    return make();
  } catch (const std::exception&) {
    std::ostringstream message;
    message << "fastnst: out of memory: could not allocate a tensor of shape (";
    for (const int64_t* size = sizes.begin(); size != sizes.end(); ++size)
      message << (size == sizes.begin() ? "" : ", ") << *size;
    message << (sizes.size() == 1 ? ",)" : ")");
    throw std::runtime_error(message.str());
  }
}

inline Tensor allocate(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType dtype) {
  return or_out_of_memory([&] { return torch::stable::new_empty(like, sizes, dtype); }, sizes);
}

inline Tensor allocate_zeros(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType dtype) {
  return or_out_of_memory([&] { return torch::stable::new_zeros(like, sizes, dtype); }, sizes);
}

inline Tensor allocate_like(const Tensor& x) {
  return or_out_of_memory([&] { return torch::stable::empty_like(x); }, {x.numel()});
}

using torch::headeronly::MemoryFormat;

inline Tensor as_contiguous(const Tensor& x, MemoryFormat format = MemoryFormat::Contiguous) {
  return or_out_of_memory([&] { return torch::stable::contiguous(x, format); }, {x.numel()});
}

}  // namespace fastnst
