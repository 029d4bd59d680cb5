// style_loss on the CPU: residual R = G - A and its squared norm, from the same walk as the Gram matrix.
#include <vector>

#include "gram.h"

namespace fastnst::cpu {
namespace {

std::tuple<Tensor, Tensor> style_loss(const Tensor& x_, const Tensor& target, std::optional<Tensor> weight,
                                      double scale) {
  features("style_loss", "x", x_);
  check_matrix("style_loss", x_, "target", target);
  check_weight("style_loss", x_, weight);
  const Tensor x = walkable(x_);
  const Tensor wanted = as_contiguous(target);
  const int64_t batch = x.size(0), channels = x.size(1);
  const GramSums sums = gram_sums(x, weight, false);
  Tensor loss = allocate(x, {}, accumulate_type(x));
  Tensor residual = allocate(x, {batch, channels, channels}, accumulate_type(x));
  with_accumulate_type(x, [&](auto zero) {
    using T = decltype(zero);
    const T* a = static_cast<const T*>(wanted.data_ptr());
    T* r = static_cast<T*>(residual.data_ptr());
    for_each_entry(sums, batch, channels, [&](int64_t b, int64_t i, int64_t j, double s) {
      const int64_t lower = (b * channels + i) * channels + j, upper = (b * channels + j) * channels + i;
      r[lower] = static_cast<T>(scale * s - double(a[lower]));
      r[upper] = static_cast<T>(scale * s - double(a[upper]));
    });
    std::vector<double> rows(static_cast<size_t>(batch * channels), 0.0);
    torch::stable::parallel_for(0, batch * channels, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        for (int64_t j = 0; j < channels; ++j) {
          const double d = r[i * channels + j];
          rows[static_cast<size_t>(i)] += d * d;
        }
    });
    double total = 0;
    for (const double row : rows) total += row;
    *static_cast<T*>(loss.data_ptr()) = static_cast<T>(total);
  });
  return {loss, residual};
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) { m.impl("style_loss", TORCH_BOX(&fastnst::cpu::style_loss)); }
