// moments on the CPU: mean and Gram from one walk over the features.
#include "gram.h"

namespace fastnst::cpu {
namespace {

std::tuple<Tensor, Tensor> moments(const Tensor& x_, double scale) {
  features("moments", "x", x_);
  const Tensor x = walkable(x_);
  const int64_t batch = x.size(0), channels = x.size(1);
  const int64_t positions = features("moments", "x", x).positions;
  const GramSums sums = gram_sums(x, std::nullopt, true);
  Tensor mean = allocate(x, {batch, channels}, accumulate_type(x));
  Tensor gram = allocate(x, {batch, channels, channels}, accumulate_type(x));
  with_accumulate_type(x, [&](auto zero) {
    using T = decltype(zero);
    T* g = static_cast<T*>(gram.data_ptr());
    for_each_entry(sums, batch, channels, [&](int64_t b, int64_t i, int64_t j, double s) {
      T* of = g + b * channels * channels;
      of[i * channels + j] = of[j * channels + i] = static_cast<T>(scale * s);
    });
    const double* from = static_cast<const double*>(sums.sum.data_ptr());
    T* to = static_cast<T*>(mean.data_ptr());
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t c = 0; c < channels; ++c) {
        double s = 0;
        for (int64_t k = 0; k < sums.slices; ++k) s += from[(b * sums.slices + k) * channels + c];
        to[b * channels + c] = static_cast<T>(positions ? s / double(positions) : 0.0);
      }
  });
  return {mean, gram};
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) { m.impl("moments", TORCH_BOX(&fastnst::cpu::moments)); }
