// gram_backward and layer_backward_ on CUDA.
#include "../kernels/backward.cuh"

#include "../kernels/pointwise.cuh"
#include "feature_map.h"

namespace fastnst::cuda {
namespace {

struct Terms {
  std::optional<Tensor> weight, shift, above, target;
  double factor = 1, content = 0;
  bool symmetrize = false, relu = false;
};

// out = mask(F > 0) * (above + (factor M F + shift) diag(w) + content (F - P)); out, above and target have x's strides.
void matrix_backward(const char* op, const Tensor& x, const Tensor& matrix, const Terms& terms, Tensor& out) {
  if (x.numel() == 0) return;
  const std::optional<Tensor> weight = contiguous(terms.weight), shift = contiguous(terms.shift);
  const kernels::Card card = current_card();
  with_cuda_type(x, [&](auto zero) {
    using T = decltype(zero);
    using A = kernels::ComputeOf<T>;
    const kernels::FeatureMap<T> map = feature_map<T>(op, x);
    kernels::BackwardTask<T> task{};
    task.factor = static_cast<A>(terms.factor);
    task.content = static_cast<A>(terms.content);
    task.weight = data<const A>(weight);
    task.shift = data<const A>(shift);
    task.above = data<const T>(terms.above);
    task.target = data<const T>(terms.target);
    task.relu = terms.relu;
    task.out = data<T>(out);
    const kernels::BackwardPath path = kernels::backward_path(map, task, card);
    task.padded = kernels::padded_channels(path, map.channels);
    Tensor m = as_contiguous(matrix);
    if (terms.symmetrize || task.padded != map.channels || !kernels::aligned(m.data_ptr())) {
      Tensor packed = workspace(op, x, map.batch * task.padded * task.padded, accumulate_type(x));
      kernels::launch_symmetrize<A>(data<const A>(m), data<A>(packed), map.batch, static_cast<int>(map.channels),
                                    static_cast<int>(task.padded), terms.symmetrize, current_stream(x));
      m = packed;
    }
    task.matrix = data<const A>(m);
    kernels::launch_backward<T>(map, path, task, plain_tf32(), card, current_stream(x));
  });
  check_launch(op);
}

Tensor gram_backward(const Tensor& grad, const Tensor& x_, std::optional<Tensor> weight, double scale,
                     std::optional<Tensor> shift) {
  const char* op = "gram_backward";
  features(op, "x", x_);
  check_matrix(op, x_, "grad", grad);
  check_weight(op, x_, weight);
  check_shift(op, x_, shift);
  const DeviceGuard guard(x_.get_device_index());
  const Tensor like = dense(x_), x = with_position_stride(like);
  Tensor out = allocate_like(x);
  Terms terms;
  terms.weight = weight;
  terms.shift = shift;
  terms.factor = scale;
  terms.symmetrize = true;
  matrix_backward(op, x, grad, terms, out);
  return in_layout_of(out, like);
}

void layer_backward(Tensor grad, const Tensor& x, std::optional<Tensor> residual, std::optional<Tensor> weight,
                    double style, std::optional<Tensor> shift, std::optional<Tensor> target, double content,
                    bool relu) {
  const char* op = "layer_backward_";
  check_layer_backward(op, grad, x, residual, weight, shift, target);
  if (x.numel() == 0) return;
  const DeviceGuard guard(x.get_device_index());
  const std::optional<Tensor> wanted = target ? std::optional<Tensor>(in_layout_of(*target, x)) : std::nullopt;
  if (residual) {
    Terms terms;
    terms.weight = weight;
    terms.shift = shift;
    terms.above = grad;
    terms.target = wanted;
    terms.factor = style;
    terms.content = content;
    terms.relu = relu;
    matrix_backward(op, x, *residual, terms, grad);
    return;
  }
  with_cuda_type(x, [&](auto zero) {
    using T = decltype(zero);
    kernels::launch_pointwise_backward<T>(data<T>(grad), data<const T>(x), data<const T>(wanted), content, relu,
                                          x.numel(), current_stream(x));
  });
  check_launch(op);
}

}  // namespace
}  // namespace fastnst::cuda

STABLE_TORCH_LIBRARY_IMPL(fastnst, CUDA, m) {
  m.impl("gram_backward", TORCH_BOX(&fastnst::cuda::gram_backward));
  m.impl("layer_backward_", TORCH_BOX(&fastnst::cuda::layer_backward));
}
