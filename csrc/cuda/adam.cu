// adam_step_ on CUDA: checks, scratch memory, launches. The arithmetic is in csrc/kernels/adam.cuh.
#include "../kernels/adam.cuh"

#include "../pool_checks.h"
#include "binding.h"

namespace fastnst::cuda {
namespace {

void check_state(const Tensor& image, const char* name, const Tensor& t) {
  check_pair("adam_step_", image, name, t);
  check(is_contiguous(t), "adam_step_: expected ", name, " to be contiguous");
}

void check_numbers(const Tensor& image, const char* name, const Tensor& t, int64_t count, bool dtype) {
  check(t.numel() == count && dtype && t.is_cuda() && t.get_device_index() == image.get_device_index(),
        "adam_step_: expected ", name, " of ", count, " values on the device of image, got ", shape_of(t));
}

void adam_step(Tensor image, Tensor good, Tensor mean, Tensor square, Tensor count, Tensor values, const Tensor& losses,
               const Tensor& gradient, const Tensor& factors, const Tensor& rate, double first, double second,
               double epsilon, double unit, bool clamp) {
  const char* op = "adam_step_";
  const ScalarType dtype = image.scalar_type();
  check(image.dim() == 4 && (dtype == ScalarType::Float || dtype == ScalarType::Double) && is_contiguous(image), op,
        ": expected image of shape (B, C, H, W), contiguous, of dtype float32 or float64");
  check_state(image, "good", good);
  check_state(image, "mean", mean);
  check_state(image, "square", square);
  check_pair(op, image, "gradient", gradient);
  check(factors.dim() == 2 && factors.size(1) == 2 && factors.size(0) >= 1, op, ": expected factors of shape (N, 2)");
  const bool wide = losses.scalar_type() == ScalarType::Double;
  const auto is = [](const Tensor& t, ScalarType wanted) { return t.scalar_type() == wanted; };
  check_numbers(image, "count", count, 1, is(count, ScalarType::Int));
  check_numbers(image, "values", values, losses.numel() + 1, is(values, ScalarType::Double));
  check_numbers(image, "losses", losses, losses.numel(), wide || is(losses, ScalarType::Float));
  check_numbers(image, "factors", factors, 2 * factors.size(0), is(factors, ScalarType::Double));
  check_numbers(image, "rate", rate, 1, is(rate, ScalarType::Double));
  check(values.dim() == 1 && (values.numel() == 1 || values.stride(0) == 1), op, ": expected values to be contiguous");
  const DeviceGuard guard(image.get_device_index());
  const Tensor by = laid_out(gradient, false), found = as_contiguous(losses);
  const Tensor table = as_contiguous(factors);
  const Tensor scratch = workspace(op, image, kernels::kMaxBlocks + 1, ScalarType::Int);
  with_cuda_type(image, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (sizeof(T) >= 4) {
      const kernels::AdamTensors<T> tensors{data<T>(image),  data<T>(good),     data<T>(mean),
                                            data<T>(square), data<const T>(by), image.numel()};
      const kernels::AdamLosses of{wide ? nullptr : data<const float>(found),
                                   wide ? data<const double>(found) : nullptr, data<double>(values),
                                   static_cast<int>(losses.numel())};
      const kernels::AdamSchedule schedule{data<int>(count), data<const double>(table), data<const double>(rate),
                                           static_cast<int>(factors.size(0)) - 1};
      const int blocks = kernels::launch_adam_check(tensors, of, schedule, data<int>(scratch), current_stream(image));
      kernels::launch_adam_update(tensors, of, schedule, {first, second, epsilon, unit, clamp}, data<int>(scratch),
                                  blocks, current_stream(image));
    }
  });
  check_launch(op);
}

}  // namespace
}  // namespace fastnst::cuda

STABLE_TORCH_LIBRARY_IMPL(fastnst, CUDA, m) { m.impl("adam_step_", TORCH_BOX(&fastnst::cuda::adam_step)); }
