// bias_relu_ on CUDA: checks and launch. The arithmetic is in csrc/kernels/bias_relu.cuh.
#include "../kernels/bias_relu.cuh"

#include "bias_relu.h"

namespace fastnst::cuda {
namespace {

bool channels_last(const Features& x) {
  return x.stride_c == 1 && (x.positions == 1 || x.stride_n == x.channels) &&
         (x.batch == 1 || x.stride_b == x.positions * x.channels);
}

}  // namespace

void bias_relu(Tensor x, const Tensor& bias_) {
  const char* op = "bias_relu_";
  const Features f = features(op, "x", x);
  check_bias(op, x, bias_);
  if (x.numel() == 0) return;
  const DeviceGuard guard(x.get_device_index());
  const bool pixels = channels_last(f), rows = f.stride_n == 1 || f.positions == 1;
  if (!pixels && !rows) {
    Tensor copy = as_contiguous(x);
    bias_relu(copy, bias_);
    torch::stable::copy_(x, copy);
    return;
  }
  const Tensor bias = as_contiguous(bias_);
  const int channels = static_cast<int>(f.channels);
  with_cuda_type(x, [&](auto zero) {
    using T = decltype(zero);
    // Both layouts apply with one position, where a block per row would be slow, and with one channel, where rows are
    // packed.
    if (pixels && (!rows || f.positions == 1))
      kernels::launch_bias_relu_channels<T>(data<T>(x), data<T>(bias), f.batch * f.positions, channels,
                                            current_stream(x));
    else
      kernels::launch_bias_relu_rows<T>(data<T>(x), data<T>(bias), f.batch, channels, f.positions, f.stride_b,
                                        f.stride_c, current_stream(x));
  });
  check_launch(op);
}

}  // namespace fastnst::cuda

STABLE_TORCH_LIBRARY_IMPL(fastnst, CUDA, m) { m.impl("bias_relu_", TORCH_BOX(&fastnst::cuda::bias_relu)); }
