// moments on the CPU: mean and Gram matrix in one pass over the features.
#include "gram.h"

namespace fastnst::cpu {
namespace {

std::tuple<Tensor, Tensor> moments(const Tensor& x_, std::optional<Tensor> weight, double scale) {
  features("moments", "x", x_);
  check_weight("moments", x_, weight);
  const Tensor x = with_position_stride(x_);
  const int64_t batch = x.size(0), channels = x.size(1);
  const double count = weight ? 1.0 : static_cast<double>(std::max<int64_t>(1, features("moments", "x", x).positions));
  Tensor mean = allocate(x, {batch, channels}, accumulate_type(x));
  Tensor gram = allocate(x, {batch, channels, channels}, accumulate_type(x));
  with_accumulate_type(x, [&](auto zero) {
    using T = decltype(zero);
    T* g = static_cast<T*>(gram.data_ptr());
    T* m = static_cast<T*>(mean.data_ptr());
    gram_rows(x, weight, true, [&](const GramRows& rows) {
      T* of = g + rows.b * channels * channels;
      rows.for_each([&](int64_t i, int64_t j, double sum) { of[i * channels + j] = static_cast<T>(scale * sum); });
      for (int64_t c = rows.begin; c < rows.end; ++c)
        m[rows.b * channels + c] = static_cast<T>(rows.sum[c - rows.begin] / count);
    });
  });
  return {mean, gram};
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) { m.impl("moments", TORCH_BOX(&fastnst::cpu::moments)); }
