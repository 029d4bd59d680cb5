// The backward of a layer with losses on the CPU, in place and in one pass:
// grad = mask(x > 0) * (grad + (style R x + shift) diag(w) + content (x - target)).
#include "chunks.h"
#include "gram.h"

namespace fastnst::cpu {
namespace {

void layer_backward(Tensor grad, const Tensor& x, std::optional<Tensor> residual, std::optional<Tensor> weight,
                    double style, std::optional<Tensor> shift, std::optional<Tensor> target, double content,
                    bool relu) {
  const char* op = "layer_backward_";
  check_layer_backward(op, grad, x, residual, weight, shift, target);
  if (x.numel() == 0) return;
  std::optional<Tensor> wanted = target ? std::optional<Tensor>(in_layout_of(*target, x)) : std::nullopt;
  if (residual) {
    Backward options;
    options.factor = style;
    options.content = content;
    options.relu = relu;
    matrix_backward(x, *residual, weight, shift, wanted, true, options, grad);
    return;
  }
  const int64_t bytes = element_size(x);
  for_ranges(x.numel(), kElementBlock, [&](int64_t begin, int64_t end) {
    const auto at = [&](const Tensor& t) { return static_cast<char*>(t.data_ptr()) + begin * bytes; };
    kernels().pointwise_backward(x.scalar_type(), at(grad), at(x), wanted ? at(*wanted) : nullptr, content, relu,
                                 end - begin);
  });
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) { m.impl("layer_backward_", TORCH_BOX(&fastnst::cpu::layer_backward)); }
