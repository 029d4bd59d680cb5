// content_loss on CUDA: checks, allocation, launch. The arithmetic is in csrc/kernels/content_loss.cuh.
#include "../kernels/content_loss.cuh"

#include "binding.h"

namespace fastnst::cuda {
namespace {

Tensor content_loss(const Tensor& x_, const Tensor& target) {
  check(is_floating(x_), "content_loss: expected x of dtype float32, float64, bfloat16 or float16");
  check_pair("content_loss", x_, "target", target);
  const DeviceGuard guard(x_.get_device_index());
  const Tensor x = dense(x_);
  const Tensor wanted = in_layout_of(target, x);
  Tensor out = allocate(x, {}, accumulate_type(x));
  const Tensor partial = workspace("content_loss", x, kernels::kMaxBlocks, ScalarType::Double);
  with_cuda_type(x, [&](auto zero) {
    using T = decltype(zero);
    const int blocks = kernels::launch_squared_difference<T>(data<const T>(x), data<const T>(wanted), x.numel(),
                                                             data<double>(partial), current_stream(x));
    kernels::launch_sum_of_blocks(data<double>(partial), blocks, data<kernels::ComputeOf<T>>(out), current_stream(x));
  });
  check_launch("content_loss");
  return out;
}

Tensor content_loss_backward(const Tensor& grad, const Tensor& x_, const Tensor& target) {
  check(is_floating(x_), "content_loss_backward: expected x of dtype float32, float64, bfloat16 or float16");
  check_pair("content_loss_backward", x_, "target", target);
  check(grad.numel() == 1 && grad.scalar_type() == accumulate_type(x_) && grad.is_cuda() &&
            grad.get_device_index() == x_.get_device_index(),
        "content_loss_backward: expected grad to be one value on the device of x, float32, or float64 where x is "
        "float64");
  const DeviceGuard guard(x_.get_device_index());
  const Tensor x = dense(x_);
  const Tensor wanted = in_layout_of(target, x);
  Tensor out = allocate_like(x);
  if (x.numel() == 0) return out;
  with_cuda_type(x, [&](auto zero) {
    using T = decltype(zero);
    kernels::launch_scaled_difference<T>(data<const kernels::ComputeOf<T>>(grad), data<const T>(x),
                                         data<const T>(wanted), data<T>(out), x.numel(), current_stream(x));
  });
  check_launch("content_loss_backward");
  return out;
}

}  // namespace
}  // namespace fastnst::cuda

STABLE_TORCH_LIBRARY_IMPL(fastnst, CUDA, m) {
  m.impl("content_loss", TORCH_BOX(&fastnst::cuda::content_loss));
  m.impl("content_loss_backward", TORCH_BOX(&fastnst::cuda::content_loss_backward));
}
