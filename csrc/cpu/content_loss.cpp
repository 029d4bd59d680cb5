// content_loss and its backward on the CPU, one pass each.
#include "gram.h"
#include "pair_sums.h"

namespace fastnst::cpu {
namespace {

Tensor content_loss(const Tensor& x_, const Tensor& target) {
  check(is_floating(x_), "content_loss: expected x of dtype float32, float64, bfloat16 or float16");
  check_pair("content_loss", x_, "target", target);
  const Tensor x = dense(x_);
  const Tensor wanted = in_layout_of(target, x);
  const double total = sum_of_pairs(x, wanted, kernels().squared_difference);
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
