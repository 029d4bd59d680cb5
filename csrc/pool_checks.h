// Checks, memory layouts and allocation shared by the bindings of pool, pool_backward and the convolutions.
#pragma once

#include <initializer_list>

#include "checks.h"

namespace fastnst {

// Whether `x` is dense in this order of axes, the innermost first.
inline bool is_dense_in_order(const Tensor& x, std::initializer_list<int> axes) {
  int64_t expected = 1;
  for (const int axis : axes) {
    if (x.size(axis) == 1) continue;
    if (x.stride(axis) != expected) return false;
    expected *= x.size(axis);
  }
  return true;
}

inline bool is_contiguous(const Tensor& x) { return x.numel() == 0 || is_dense_in_order(x, {3, 2, 1, 0}); }
inline bool is_channels_last(const Tensor& x) { return is_dense_in_order(x, {1, 3, 2, 0}); }

// Whether a pool of x and its backward return channels_last: see pool_layout in fastnst/ops/reference.
inline bool output_is_channels_last(const Tensor& x) { return is_channels_last(x) && !is_contiguous(x); }

inline Tensor laid_out(const Tensor& x, bool channels_last) {
  if (channels_last ? is_channels_last(x) : is_contiguous(x)) return x;
  return as_contiguous(x, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

inline Tensor new_channels_last(const Tensor& like, int64_t channels, int64_t height, int64_t width, ScalarType dtype) {
  const Tensor pixels = allocate(like, {like.size(0), height, width, channels}, dtype);
  return torch::stable::transpose(torch::stable::transpose(pixels, 1, 3), 2, 3);
}

inline Tensor new_map(const Tensor& like, int64_t height, int64_t width, ScalarType dtype, bool channels_last) {
  if (channels_last) return new_channels_last(like, like.size(1), height, width, dtype);
  return allocate(like, {like.size(0), like.size(1), height, width}, dtype);
}

inline void check_map(const char* op, const char* name, const Tensor& x) {
  check(x.dim() == 4, op, ": expected ", name, " of shape (B, C, H, W), got ", shape_of(x));
  check(is_floating(x), op, ": expected ", name, " of dtype float32, float64, bfloat16 or float16");
}

// Checks an input that the kind needs and returns it in the layout of the gradient.
inline std::optional<Tensor> needed(const char* name, const Tensor& grad, const std::optional<Tensor>& given,
                                    int64_t height, int64_t width, ScalarType dtype, bool channels_last) {
  const char* op = "pool_backward";
  check(given.has_value(), op, ": expected ", name, " for this kind");
  const Tensor& t = *given;
  check(t.dim() == 4 && t.size(0) == grad.size(0) && t.size(1) == grad.size(1) && t.size(2) == height &&
            t.size(3) == width,
        op, ": expected ", name, " of shape (", grad.size(0), ", ", grad.size(1), ", ", height, ", ", width, "), got ",
        shape_of(t));
  check(t.scalar_type() == dtype, op, ": expected ", name,
        dtype == ScalarType::Byte ? " of dtype uint8" : " of the dtype of grad");
  check(t.is_cuda() == grad.is_cuda() && t.get_device_index() == grad.get_device_index(), op, ": expected ", name,
        " on the device of grad");
  return laid_out(t, channels_last);
}

// Checks the arguments of pool_backward that every kind has.
inline void check_pooled(const Tensor& grad, const std::string& kind, int64_t height, int64_t width, bool relu) {
  const char* op = "pool_backward";
  check_map(op, "grad", grad);
  check(height >= 0 && width >= 0 && grad.size(2) == height / 2 && grad.size(3) == width / 2, op,
        ": expected grad of shape (B, C, ", height / 2, ", ", width / 2, "), got ", shape_of(grad));
  check(!relu || kind == "max", op, ": expected relu with kind max only, got ", kind);
}

// An uninitialized argmax in the shape of the pooled map for max; empty for other kinds.
inline Tensor new_argmax(const Tensor& x, const std::string& kind, bool channels_last) {
  if (kind != "max") return allocate(x, {0}, ScalarType::Byte);
  return new_map(x, x.size(2) / 2, x.size(3) / 2, ScalarType::Byte, channels_last);
}

}  // namespace fastnst
