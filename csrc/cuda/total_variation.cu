// total_variation on CUDA: checks, allocation, launch. The arithmetic is in csrc/kernels/total_variation.cuh.
#include "../kernels/total_variation.cuh"

#include "binding.h"

namespace fastnst::cuda {
namespace {

kernels::Variation variation_of(const std::string& kind) {
  if (kind == "anisotropic") return kernels::Variation::kAnisotropic;
  if (kind == "isotropic") return kernels::Variation::kIsotropic;
  check(kind == "squared", "total_variation: expected kind anisotropic, isotropic or squared, got ", kind);
  return kernels::Variation::kSquared;
}

void check_image(const Tensor& x) {
  check(x.dim() == 4, "total_variation: expected x of shape (B, C, H, W), got ", shape_of(x));
  check(is_floating(x), "total_variation: expected x of dtype float32, float64, bfloat16 or float16");
}

kernels::ImageShape shape(const Tensor& x) { return {x.size(0), x.size(1), x.size(2), x.size(3)}; }

kernels::ImageStrides strides(const Tensor& x) { return {x.stride(0), x.stride(1), x.stride(2), x.stride(3)}; }

Tensor total_variation(const Tensor& x, std::string kind) {
  check_image(x);
  const kernels::Variation variation = variation_of(kind);
  const DeviceGuard guard(x.get_device_index());
  Tensor out = allocate(x, {}, accumulate_type(x));
  const Tensor partial = workspace("total_variation", x, kernels::kMaxBlocks, ScalarType::Double);
  with_cuda_type(x, [&](auto zero) {
    using T = decltype(zero);
    const int blocks = kernels::launch_total_variation<T>(variation, data<const T>(x), shape(x), strides(x),
                                                          data<double>(partial), current_stream(x));
    kernels::launch_sum_of_blocks(data<double>(partial), blocks, data<kernels::ComputeOf<T>>(out), current_stream(x));
  });
  check_launch("total_variation");
  return out;
}

Tensor total_variation_backward(const Tensor& grad, const Tensor& x, std::string kind) {
  check_image(x);
  check(grad.numel() == 1 && grad.scalar_type() == accumulate_type(x) && grad.is_cuda() &&
            grad.get_device_index() == x.get_device_index(),
        "total_variation_backward: expected grad to be one value on the device of x, float32, or float64 where x is "
        "float64");
  const kernels::Variation variation = variation_of(kind);
  const DeviceGuard guard(x.get_device_index());
  Tensor out = allocate_like(x);
  with_cuda_type(x, [&](auto zero) {
    using T = decltype(zero);
    kernels::launch_total_variation_backward<T>(variation, data<const kernels::ComputeOf<T>>(grad), data<const T>(x),
                                                data<T>(out), shape(x), strides(x), strides(out), current_stream(x));
  });
  check_launch("total_variation_backward");
  return out;
}

}  // namespace
}  // namespace fastnst::cuda

STABLE_TORCH_LIBRARY_IMPL(fastnst, CUDA, m) {
  m.impl("total_variation", TORCH_BOX(&fastnst::cuda::total_variation));
  m.impl("total_variation_backward", TORCH_BOX(&fastnst::cuda::total_variation_backward));
}
