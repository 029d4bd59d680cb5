// style_loss on the CPU: the residual R = G - A and its squared norm, in the same pass as the Gram matrix.
#include <vector>

#include "chunks.h"
#include "gram.h"

namespace fastnst::cpu {
namespace {

template <typename T>
double sum_of_squares(const T* x, int64_t n) {
  constexpr int64_t kLanes = 8;
  double lanes[kLanes] = {}, total = 0;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] += double(x[i + l]) * double(x[i + l]);
  for (; i < n; ++i) total += double(x[i]) * double(x[i]);
  for (const double lane : lanes) total += lane;
  return total;
}

std::tuple<Tensor, Tensor> style_loss(const Tensor& x_, const Tensor& target, std::optional<Tensor> weight,
                                      double scale) {
  features("style_loss", "x", x_);
  check_matrix("style_loss", x_, "target", target);
  check_weight("style_loss", x_, weight);
  const Tensor x = with_position_stride(x_);
  const Tensor wanted = as_contiguous(target);
  const int64_t batch = x.size(0), channels = x.size(1);
  Tensor loss = allocate(x, {}, accumulate_type(x));
  Tensor residual = allocate(x, {batch, channels, channels}, accumulate_type(x));
  with_accumulate_type(x, [&](auto zero) {
    using T = decltype(zero);
    const T* a = static_cast<const T*>(wanted.data_ptr());
    T* r = static_cast<T*>(residual.data_ptr());
    gram_rows(x, weight, false, [&](const GramRows& rows) {
      const int64_t first = rows.b * channels * channels;
      rows.for_each([&](int64_t i, int64_t j, double sum) {
        const int64_t at = first + i * channels + j;
        r[at] = static_cast<T>(scale * sum - double(a[at]));
      });
    });
    std::vector<double> rows(static_cast<size_t>(batch * channels), 0.0);
    for_ranges(batch * channels, 32, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) rows[static_cast<size_t>(i)] = sum_of_squares(r + i * channels, channels);
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
