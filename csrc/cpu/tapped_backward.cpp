// The backward of a tapped layer on the CPU, in place and in one pass:
// grad = mask(x > 0) * (grad + style R x diag(w) + content (x - target)).
#include "gram.h"

namespace fastnst::cpu {
namespace {

void tapped_backward(Tensor grad, const Tensor& x, std::optional<Tensor> residual, std::optional<Tensor> weight,
                     double style, std::optional<Tensor> target, double content, bool relu) {
  const char* op = "tapped_backward_";
  features(op, "x", x);
  check_pair(op, x, "grad", grad);
  check(is_dense(x) && same_strides(x, grad), op, ": expected grad and x without holes and with the same strides");
  if (residual) check_matrix(op, x, "residual", *residual);
  if (target) check_pair(op, x, "target", *target);
  check_weight(op, x, weight);
  if (x.numel() == 0) return;
  std::optional<Tensor> wanted = target ? std::optional<Tensor>(in_layout_of(*target, x)) : std::nullopt;
  if (residual && position_stride(x) > 0) {
    Backward options;
    options.factor = style;
    options.content = content;
    options.relu = relu;
    matrix_backward(x, *residual, weight, std::nullopt, wanted, true, options, grad);
    return;
  }
  check(!residual, op, ": expected x contiguous or channels_last");
  const int64_t bytes = element_size(x);
  torch::stable::parallel_for(0, x.numel(), kElementBlock, [&](int64_t begin, int64_t end) {
    const auto at = [&](const Tensor& t) { return static_cast<char*>(t.data_ptr()) + begin * bytes; };
    kernels().pointwise_backward(x.scalar_type(), at(grad), at(x), wanted ? at(*wanted) : nullptr, content, relu,
                                 end - begin);
  });
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) { m.impl("tapped_backward_", TORCH_BOX(&fastnst::cpu::tapped_backward)); }
