// content_loss and its backward on the CPU, one pass each.
#include <vector>

#include "chunks.h"
#include "gram.h"

namespace fastnst::cpu {
namespace {

const char* at(const Tensor& x, int64_t element) {
  return static_cast<const char*>(x.data_ptr()) + element * element_size(x);
}

Tensor content_loss(const Tensor& x_, const Tensor& target) {
  check(is_floating(x_), "content_loss: expected x of dtype float32, float64, bfloat16 or float16");
  check_pair("content_loss", x_, "target", target);
  const Tensor x = dense(x_);
  const Tensor wanted = in_layout_of(target, x);
  const int64_t n = x.numel(), blocks = (n + kElementBlock - 1) / kElementBlock;
  std::vector<double> parts(static_cast<size_t>(blocks), 0.0);
  for_ranges(blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * kElementBlock, count = std::min(kElementBlock, n - first);
      parts[static_cast<size_t>(i)] =
          kernels().squared_difference(x.scalar_type(), at(x, first), at(wanted, first), count);
    }
  });
  double total = 0;
  for (const double part : parts) total += part;
  Tensor out = allocate(x, {}, accumulate_type(x));
  with_accumulate_type(x, [&](auto zero) { *static_cast<decltype(zero)*>(out.data_ptr()) = total; });
  return out;
}

Tensor content_loss_backward(const Tensor& grad, const Tensor& x_, const Tensor& target) {
  check(is_floating(x_), "content_loss_backward: expected x of dtype float32, float64, bfloat16 or float16");
  check_pair("content_loss_backward", x_, "target", target);
  check(grad.numel() == 1 && grad.scalar_type() == accumulate_type(x_),
        "content_loss_backward: expected grad to be one value, float32, or float64 if x is float64");
  const Tensor x = dense(x_);
  const Tensor wanted = in_layout_of(target, x);
  Tensor out = allocate_like(x);
  double factor = 0;
  with_accumulate_type(x, [&](auto zero) { factor = 2.0 * *static_cast<const decltype(zero)*>(grad.data_ptr()); });
  for_ranges(x.numel(), kElementBlock, [&](int64_t begin, int64_t end) {
    kernels().scaled_difference(x.scalar_type(), at(x, begin), at(wanted, begin), const_cast<char*>(at(out, begin)),
                                factor, end - begin);
  });
  return out;
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) {
  m.impl("content_loss", TORCH_BOX(&fastnst::cpu::content_loss));
  m.impl("content_loss_backward", TORCH_BOX(&fastnst::cpu::content_loss_backward));
}
