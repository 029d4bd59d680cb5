// content_loss on CUDA: checks, allocation, launch. The arithmetic is in csrc/kernels/content_loss.cuh.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "../checks.h"
#include "../kernels/content_loss.cuh"

namespace fastnst::cuda {
namespace {

cudaStream_t current_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

template <typename F>
void with_cuda_type(const Tensor& x, const F& f) {
  switch (x.scalar_type()) {
    case ScalarType::Double:
      return f(double{});
    case ScalarType::BFloat16:
      return f(__nv_bfloat16{});
    case ScalarType::Half:
      return f(__half{});
    default:
      return f(float{});
  }
}

Tensor content_loss(const Tensor& x_, const Tensor& target) {
  check(is_floating(x_), "content_loss: expected x of dtype float32, float64, bfloat16 or float16");
  check_pair("content_loss", x_, "target", target);
  const torch::stable::accelerator::DeviceGuard guard(x_.get_device_index());
  const Tensor x = is_dense(x_) ? x_ : torch::stable::contiguous(x_);
  const Tensor wanted = in_layout_of(target, x);
  Tensor out = torch::stable::new_empty(x, {}, accumulate_type(x));
  Tensor partial = torch::stable::new_empty(x, {kernels::kMostBlocks}, ScalarType::Double);
  Tensor counter = torch::stable::new_zeros(x, {1}, ScalarType::Int);
  with_cuda_type(x, [&](auto zero) {
    using T = decltype(zero);
    kernels::launch_squared_difference<T>(
        static_cast<const T*>(x.data_ptr()), static_cast<const T*>(wanted.data_ptr()), x.numel(),
        static_cast<double*>(partial.data_ptr()), static_cast<unsigned*>(counter.data_ptr()),
        static_cast<typename kernels::Compute<T>::type*>(out.data_ptr()), current_stream(x));
  });
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

Tensor content_loss_backward(const Tensor& grad, const Tensor& x_, const Tensor& target) {
  check(is_floating(x_), "content_loss_backward: expected x of dtype float32, float64, bfloat16 or float16");
  check_pair("content_loss_backward", x_, "target", target);
  check(grad.numel() == 1 && grad.scalar_type() == accumulate_type(x_) && grad.is_cuda() &&
            grad.get_device_index() == x_.get_device_index(),
        "content_loss_backward: expected grad to be one value on the device of x, float32, or float64 where x is "
        "float64");
  const torch::stable::accelerator::DeviceGuard guard(x_.get_device_index());
  const Tensor x = is_dense(x_) ? x_ : torch::stable::contiguous(x_);
  const Tensor wanted = in_layout_of(target, x);
  Tensor out = torch::stable::empty_like(x);
  if (x.numel() == 0) return out;
  with_cuda_type(x, [&](auto zero) {
    using T = decltype(zero);
    kernels::launch_scaled_difference<T>(static_cast<const typename kernels::Compute<T>::type*>(grad.data_ptr()),
                                         static_cast<const T*>(x.data_ptr()), static_cast<const T*>(wanted.data_ptr()),
                                         static_cast<T*>(out.data_ptr()), x.numel(), current_stream(x));
  });
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace
}  // namespace fastnst::cuda

STABLE_TORCH_LIBRARY_IMPL(fastnst, CUDA, m) {
  m.impl("content_loss", TORCH_BOX(&fastnst::cuda::content_loss));
  m.impl("content_loss_backward", TORCH_BOX(&fastnst::cuda::content_loss_backward));
}
