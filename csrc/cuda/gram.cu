// gram, moments, style_loss and bias_relu_style_loss on CUDA, in one pass over the features and one over partial sums.
#include "../kernels/gram.cuh"

#include "bias_relu.h"
#include "feature_map.h"

namespace fastnst::cuda {
namespace {

struct Wanted {
  std::optional<Tensor> weight, target, mean, loss, bias, activated;
};

// Fills `out` [B, C, C] with G, or with R = G - target; the positions of x have one stride.
void sums(const char* op, const Tensor& x, double scale, Tensor& out, const Wanted& wanted) {
  const std::optional<Tensor> weight = contiguous(wanted.weight), target = contiguous(wanted.target);
  const kernels::Card card = current_card();
  with_cuda_type(x, [&](auto zero) {
    using T = decltype(zero);
    using A = kernels::ComputeOf<T>;
    const kernels::FeatureMap<T> map = feature_map<T>(op, x);
    const kernels::GramPath path = kernels::gram_path(map, weight.has_value(), card);
    const kernels::GramPlan plan = kernels::gram_plan(map, path, card);
    const Tensor partial = workspace(op, x, plan.partial_values(), accumulate_type(x));
    const Tensor losses = workspace(op, x, plan.losses(), ScalarType::Double);
    const Tensor counter = workspace(op, x, 1, ScalarType::Int);
    kernels::GramTask<A> task{};
    task.scale = static_cast<A>(scale);
    task.weight = data<const A>(weight);
    task.target = data<const A>(target);
    task.out = data<A>(out);
    task.mean = data<A>(wanted.mean);
    task.loss = data<A>(wanted.loss);
    task.partial = data<A>(partial);
    task.losses = data<double>(losses);
    task.counter = data<unsigned>(counter);
    kernels::launch_gram<T>(map, path, plan, task, plain_tf32(), current_stream(x), data<const T>(wanted.bias),
                            data<T>(wanted.activated));
  });
  check_launch(op);
}

Tensor new_matrix(const Tensor& x) { return allocate(x, {x.size(0), x.size(1), x.size(1)}, accumulate_type(x)); }

Tensor new_loss(const Tensor& x) {
  if (x.size(0) == 0 || x.size(1) == 0) return allocate_zeros(x, {}, accumulate_type(x));
  return allocate(x, {}, accumulate_type(x));
}

Tensor gram(const Tensor& x_, std::optional<Tensor> weight, double scale) {
  features("gram", "x", x_);
  check_weight("gram", x_, weight);
  const DeviceGuard guard(x_.get_device_index());
  const Tensor x = with_position_stride(x_);
  Tensor out = new_matrix(x);
  Wanted wanted;
  wanted.weight = weight;
  if (out.numel() > 0) sums("gram", x, scale, out, wanted);
  return out;
}

std::tuple<Tensor, Tensor> moments(const Tensor& x_, std::optional<Tensor> weight, double scale) {
  features("moments", "x", x_);
  check_weight("moments", x_, weight);
  const DeviceGuard guard(x_.get_device_index());
  const Tensor x = with_position_stride(x_);
  Tensor out = new_matrix(x);
  Wanted wanted;
  wanted.weight = weight;
  wanted.mean = allocate(x, {x.size(0), x.size(1)}, accumulate_type(x));
  if (out.numel() > 0) sums("moments", x, scale, out, wanted);
  return {*wanted.mean, out};
}

std::tuple<Tensor, Tensor> style_loss(const Tensor& x_, const Tensor& target, std::optional<Tensor> weight,
                                      double scale) {
  features("style_loss", "x", x_);
  check_matrix("style_loss", x_, "target", target);
  check_weight("style_loss", x_, weight);
  const DeviceGuard guard(x_.get_device_index());
  const Tensor x = with_position_stride(x_);
  Tensor out = new_matrix(x);
  Wanted wanted;
  wanted.weight = weight;
  wanted.target = target;
  wanted.loss = new_loss(x);
  if (out.numel() > 0) sums("style_loss", x, scale, out, wanted);
  return {*wanted.loss, out};
}

std::tuple<Tensor, Tensor, Tensor> bias_relu_style_loss(const Tensor& x_, const Tensor& bias_, const Tensor& target,
                                                        double scale) {
  const char* op = "bias_relu_style_loss";
  features(op, "x", x_);
  check_matrix(op, x_, "target", target);
  check_bias(op, x_, bias_);
  const DeviceGuard guard(x_.get_device_index());
  const Tensor like = dense(x_), x = with_position_stride(like), bias = as_contiguous(bias_);
  Tensor y = allocate_like(x), out = new_matrix(x);
  Wanted wanted;
  wanted.target = target;
  wanted.loss = new_loss(x);
  if (out.numel() == 0) return {in_layout_of(y, like), *wanted.loss, out};
  bool fused = false;
  with_cuda_type(x, [&](auto zero) {
    using T = decltype(zero);
    const auto map = feature_map<T>(op, x);
    const kernels::GramPath path = kernels::gram_path(map, false, current_card());
    fused = kernels::fuses_bias(path, map.channels) && kernels::aligned(y.data_ptr());
  });
  if (fused) {
    wanted.bias = bias;
    wanted.activated = y;
    sums(op, x, scale, out, wanted);
  } else {
    y = torch::stable::copy_(y, x);
    bias_relu(y, bias);
    sums(op, y, scale, out, wanted);
  }
  return {in_layout_of(y, like), *wanted.loss, out};
}

}  // namespace
}  // namespace fastnst::cuda

STABLE_TORCH_LIBRARY_IMPL(fastnst, CUDA, m) {
  m.impl("gram", TORCH_BOX(&fastnst::cuda::gram));
  m.impl("moments", TORCH_BOX(&fastnst::cuda::moments));
  m.impl("style_loss", TORCH_BOX(&fastnst::cuda::style_loss));
  m.impl("bias_relu_style_loss", TORCH_BOX(&fastnst::cuda::bias_relu_style_loss));
}
