// pool, bias_relu_pool_ and pool_backward on CUDA: checks, layouts, allocation, launch. The arithmetic is in
// csrc/kernels/pooling.cuh and bias_relu_pool.cuh.
#include "../kernels/bias_relu_pool.cuh"

#include <limits>
#include <tuple>

#include "../pool_checks.h"
#include "binding.h"

namespace fastnst::cuda {
namespace {

using kernels::Pool;
using kernels::PoolShape;

template <typename F>
void with_pool(const char* op, const std::string& kind, const F& f) {
  if (kind == "max") return f(std::integral_constant<Pool, Pool::kMax>{});
  if (kind == "average") return f(std::integral_constant<Pool, Pool::kAverage>{});
  check(kind == "l2", op, ": expected kind max, average or l2, got ", kind);
  f(std::integral_constant<Pool, Pool::kL2>{});
}

// The kernels use 32-bit offsets within one image.
PoolShape shape_for(const char* op, int64_t batch, int64_t channels, int64_t height, int64_t width) {
  const int64_t most = std::numeric_limits<int>::max();
  check(height * width <= most && width * channels <= most, op, ": expected maps of fewer than 2^31 pixels, got ",
        height, " x ", width, " with ", channels, " channels");
  return {batch, static_cast<int>(channels), static_cast<int>(height), static_cast<int>(width)};
}

std::tuple<Tensor, Tensor> pool(const Tensor& x_, std::string kind) {
  const char* op = "pool";
  check_map(op, "x", x_);
  const DeviceGuard guard(x_.get_device_index());
  const bool last = output_is_channels_last(x_);
  const Tensor x = laid_out(x_, last);
  const PoolShape shape = shape_for(op, x.size(0), x.size(1), x.size(2), x.size(3));
  Tensor y = new_map(x, x.size(2) / 2, x.size(3) / 2, x.scalar_type(), last);
  Tensor argmax = new_argmax(x, kind, last);
  with_pool(op, kind, [&](auto chosen) {
    with_cuda_type(x, [&](auto zero) {
      using T = decltype(zero);
      kernels::launch_pool<decltype(chosen)::value, T>(data<T>(x), data<T>(y), data<uint8_t>(argmax), shape, last,
                                                       current_stream(x));
    });
  });
  check_launch(op);
  return {y, argmax};
}

std::tuple<Tensor, Tensor> bias_relu_pool(Tensor x_, const Tensor& bias_, std::string kind, bool keep) {
  const char* op = "bias_relu_pool_";
  check_map(op, "x", x_);
  check_bias(op, x_, bias_);
  const DeviceGuard guard(x_.get_device_index());
  const bool last = output_is_channels_last(x_);
  const Tensor x = laid_out(x_, last), bias = as_contiguous(bias_);
  const PoolShape shape = shape_for(op, x.size(0), x.size(1), x.size(2), x.size(3));
  Tensor y = new_map(x, x.size(2) / 2, x.size(3) / 2, x.scalar_type(), last);
  Tensor argmax = new_argmax(x, kind, last);
  with_pool(op, kind, [&](auto chosen) {
    with_cuda_type(x, [&](auto zero) {
      using T = decltype(zero);
      kernels::launch_bias_relu_pool<decltype(chosen)::value, T>(
          data<T>(x), data<T>(bias), data<T>(y), data<uint8_t>(argmax), shape, keep, last, current_stream(x));
    });
  });
  check_launch(op);
  if (keep && x.data_ptr() != x_.data_ptr()) torch::stable::copy_(x_, x);
  return {y, argmax};
}

Tensor pool_backward(const Tensor& grad_, std::optional<Tensor> x, std::optional<Tensor> y,
                     std::optional<Tensor> argmax, std::string kind, int64_t height, int64_t width, bool relu) {
  const char* op = "pool_backward";
  check_pooled(grad_, kind, height, width, relu);
  const DeviceGuard guard(grad_.get_device_index());
  const bool last = output_is_channels_last(grad_);
  const Tensor grad = laid_out(grad_, last);
  const ScalarType dtype = grad.scalar_type();
  const PoolShape shape = shape_for(op, grad.size(0), grad.size(1), height, width);
  std::optional<Tensor> input, output, where;
  if (kind == "max") where = needed("argmax", grad, argmax, height / 2, width / 2, ScalarType::Byte, last);
  if (kind == "l2") input = needed("x", grad, x, height, width, dtype, last);
  if (kind == "l2") output = needed("y", grad, y, height / 2, width / 2, dtype, last);
  Tensor out = new_map(grad, height, width, dtype, last);
  with_pool(op, kind, [&](auto chosen) {
    with_cuda_type(grad, [&](auto zero) {
      using T = decltype(zero);
      kernels::launch_pool_backward<decltype(chosen)::value, T>(data<T>(grad), data<T>(input), data<T>(output),
                                                                data<uint8_t>(where), data<T>(out), shape, relu, last,
                                                                current_stream(grad));
    });
  });
  check_launch(op);
  return out;
}

}  // namespace
}  // namespace fastnst::cuda

STABLE_TORCH_LIBRARY_IMPL(fastnst, CUDA, m) {
  m.impl("pool", TORCH_BOX(&fastnst::cuda::pool));
  m.impl("bias_relu_pool_", TORCH_BOX(&fastnst::cuda::bias_relu_pool));
  m.impl("pool_backward", TORCH_BOX(&fastnst::cuda::pool_backward));
}
