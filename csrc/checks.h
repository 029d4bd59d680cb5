// Shape, dtype and device checks shared by the CPU and CUDA bindings, and the view of a feature map that kernels take.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>

#include "allocate.h"

namespace fastnst {

template <typename... Parts>
inline void check(bool ok, const Parts&... parts) {
  if (ok) return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

inline std::string shape_of(const Tensor& x) {
  std::ostringstream out;
  out << "(";
  for (int64_t i = 0; i < x.dim(); ++i) out << (i ? ", " : "") << x.size(i);
  out << (x.dim() == 1 ? ",)" : ")");
  return out.str();
}

inline bool is_floating(const Tensor& x) {
  const ScalarType t = x.scalar_type();
  return t == ScalarType::Float || t == ScalarType::Double || t == ScalarType::BFloat16 || t == ScalarType::Half;
}

inline int64_t element_size(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? 8 : x.scalar_type() == ScalarType::Float ? 4 : 2;
}

// Losses, Gram matrices and their targets are float32, and float64 for float64 features.
inline ScalarType accumulate_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// A feature map [B, C, ...positions] as B matrices of C x N with one stride per axis.
struct Features {
  void* data = nullptr;
  ScalarType dtype = ScalarType::Float;
  int64_t batch = 0, channels = 0, positions = 0;
  int64_t stride_b = 0, stride_c = 0, stride_n = 0;
};

// The stride of the flattened position axes, or -1 if they cannot be flattened without a copy.
inline int64_t position_stride(const Tensor& x) {
  int64_t stride = -1, extent = 1;
  for (int64_t i = x.dim() - 1; i >= 2; --i) {
    if (x.size(i) == 1) continue;
    if (stride == -1) {
      stride = x.stride(i);
    } else if (x.stride(i) != stride * extent) {
      return -1;
    }
    extent *= x.size(i);
  }
  return stride == -1 ? 1 : stride;
}

// `x` if its positions have one stride, as in contiguous and channels_last maps; else a contiguous copy.
inline Tensor with_position_stride(const Tensor& x) {
  return x.numel() == 0 || position_stride(x) > 0 ? x : as_contiguous(x);
}

inline Features features(const char* op, const char* name, const Tensor& x) {
  check(x.dim() >= 2, op, ": expected ", name, " of shape (B, C, ...), got ", shape_of(x));
  check(is_floating(x), op, ": expected ", name, " of dtype float32, float64, bfloat16 or float16");
  Features f;
  f.data = x.data_ptr();
  f.dtype = x.scalar_type();
  f.batch = x.size(0);
  f.channels = x.size(1);
  f.positions = 1;
  for (int64_t i = 2; i < x.dim(); ++i) f.positions *= x.size(i);
  f.stride_b = x.stride(0);
  f.stride_c = x.stride(1);
  f.stride_n = position_stride(x);
  return f;
}

inline bool same_sizes(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (int64_t i = 0; i < a.dim(); ++i)
    if (a.size(i) != b.size(i)) return false;
  return true;
}

inline bool same_strides(const Tensor& a, const Tensor& b) {
  for (int64_t i = 0; i < a.dim(); ++i)
    if (a.size(i) > 1 && a.stride(i) != b.stride(i)) return false;
  return true;
}

// Whether `x` is dense in some order of its axes, so that elementwise kernels can treat it as one-dimensional.
inline bool is_dense(const Tensor& x) {
  int64_t expected = 1, done = 0, n = x.dim();
  for (int64_t i = 0; i < n; ++i) done += x.size(i) == 1;
  while (done < n) {
    bool found = false;
    for (int64_t i = 0; i < n; ++i) {
      if (x.size(i) == 1 || x.stride(i) != expected) continue;
      expected *= x.size(i);
      ++done;
      found = true;
      break;
    }
    if (!found) return x.numel() == 0;
  }
  return true;
}

// `x` if it is dense, else a dense copy in the layout that torch.empty_like gives its gradient.
inline Tensor dense(const Tensor& x) {
  if (is_dense(x)) return x;
  Tensor copy = allocate_like(x);
  return torch::stable::copy_(copy, x);
}

// `other` in the memory layout of `like`, which is dense; copied only if the layouts differ.
inline Tensor in_layout_of(const Tensor& other, const Tensor& like) {
  if (same_strides(other, like)) return other;
  Tensor copy = allocate_like(like);
  return torch::stable::copy_(copy, other);
}

inline void check_pair(const char* op, const Tensor& x, const char* name, const Tensor& other) {
  check(same_sizes(x, other), op, ": expected ", name, " of shape ", shape_of(x), " like x, got ", shape_of(other));
  check(other.scalar_type() == x.scalar_type(), op, ": expected ", name, " of the dtype of x");
  check(other.is_cuda() == x.is_cuda() && other.get_device_index() == x.get_device_index(), op, ": expected ", name,
        " on the device of x");
}

inline void check_matrix(const char* op, const Tensor& x, const char* name, const Tensor& m) {
  const int64_t b = x.size(0), c = x.size(1);
  check(m.dim() == 3 && m.size(0) == b && m.size(1) == c && m.size(2) == c, op, ": expected ", name, " of shape (", b,
        ", ", c, ", ", c, "), got ", shape_of(m));
  check(m.scalar_type() == accumulate_type(x), op, ": expected ", name,
        " of dtype float32, or float64 if x is float64");
  check(m.is_cuda() == x.is_cuda() && m.get_device_index() == x.get_device_index(), op, ": expected ", name,
        " on the device of x");
}

inline void check_weight(const char* op, const Tensor& x, const std::optional<Tensor>& weight) {
  if (!weight) return;
  int64_t n = 1;
  for (int64_t i = 2; i < x.dim(); ++i) n *= x.size(i);
  check(weight->dim() == 2 && weight->size(0) == x.size(0) && weight->size(1) == n, op, ": expected weight of shape (",
        x.size(0), ", ", n, "), one value per position, got ", shape_of(*weight));
  check(weight->scalar_type() == accumulate_type(x), op,
        ": expected weight of dtype float32, or float64 if x is float64");
  check(weight->is_cuda() == x.is_cuda() && weight->get_device_index() == x.get_device_index(), op,
        ": expected weight on the device of x");
}

inline void check_shift(const char* op, const Tensor& x, const std::optional<Tensor>& shift) {
  if (!shift) return;
  check(shift->dim() == 2 && shift->size(0) == x.size(0) && shift->size(1) == x.size(1), op,
        ": expected shift of shape (", x.size(0), ", ", x.size(1), "), got ", shape_of(*shift));
  check(shift->scalar_type() == accumulate_type(x), op,
        ": expected shift of dtype float32, or float64 if x is float64");
  check(shift->is_cuda() == x.is_cuda() && shift->get_device_index() == x.get_device_index(), op,
        ": expected shift on the device of x");
}

inline void check_bias(const char* op, const Tensor& x, const Tensor& bias) {
  check(bias.dim() == 1 && bias.size(0) == x.size(1), op, ": expected bias of shape (", x.size(1), ",), got ",
        shape_of(bias));
  check(bias.scalar_type() == x.scalar_type(), op, ": expected bias of the dtype of x");
  check(bias.is_cuda() == x.is_cuda() && bias.get_device_index() == x.get_device_index(), op,
        ": expected bias on the device of x");
}

// Checks the arguments of layer_backward_. It works in place, so only the target may be copied.
inline void check_layer_backward(const char* op, const Tensor& grad, const Tensor& x,
                                 const std::optional<Tensor>& residual, const std::optional<Tensor>& weight,
                                 const std::optional<Tensor>& shift, const std::optional<Tensor>& target) {
  features(op, "x", x);
  check_pair(op, x, "grad", grad);
  check(is_dense(x) && same_strides(x, grad), op, ": expected grad and x to be dense, with the same strides");
  check(!residual || x.numel() == 0 || position_stride(x) > 0, op, ": expected x contiguous or channels_last");
  if (residual) check_matrix(op, x, "residual", *residual);
  if (target) check_pair(op, x, "target", *target);
  check_weight(op, x, weight);
  check(!shift || residual, op, ": expected a residual with shift");
  check_shift(op, x, shift);
}

}  // namespace fastnst
