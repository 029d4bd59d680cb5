// What gram, moments and style_loss share: the sums over positions, in double, and the backward.
#pragma once

#include <optional>

#include "kernels.h"

namespace fastnst::cpu {

// The lower triangles of F diag(w) F^T, unscaled, float64 [B, slices, C, C], and the sums over positions,
// float64 [B, slices, C] where asked for. The number of slices depends on the shape alone.
struct GramSums {
  Tensor gram, sum;
  int64_t slices = 1;
};

GramSums gram_sums(const Tensor& x, const std::optional<Tensor>& weight, bool with_sum);

// value(i, j, s) is called for i >= j with s the finished sum; it runs in parallel over rows and batch.
template <typename F>
void for_each_entry(const GramSums& sums, int64_t batch, int64_t channels, const F& value) {
  const double* g = sums.gram.const_data_ptr<double>();
  const int64_t square = channels * channels;
  torch::stable::parallel_for(0, batch * channels, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t b = r / channels, i = r % channels;
      for (int64_t j = 0; j <= i; ++j) {
        double s = 0;
        for (int64_t k = 0; k < sums.slices; ++k) s += g[(b * sums.slices + k) * square + i * channels + j];
        value(b, i, j, s);
      }
    }
  });
}

// F of type float or double, as `like` accumulates.
template <typename F>
void with_accumulate_type(const Tensor& like, const F& f) {
  if (accumulate_type(like) == ScalarType::Double) {
    f(double{});
  } else {
    f(float{});
  }
}

// out = mask(x > 0) * (above + factor * matrix x diag(w) + shift + content (x - target)), every term optional but the
// matrix; `symmetrise` takes matrix + matrix^T. x is walkable; out, above and target have the layout and dtype of x.
struct Backward {
  double factor = 1, content = 0;
  bool symmetrise = false, relu = false;
};
void matrix_backward(const Tensor& x, const Tensor& matrix, const std::optional<Tensor>& weight,
                     const std::optional<Tensor>& shift, const std::optional<Tensor>& target, bool add_to_out,
                     const Backward& options, Tensor& out);

}  // namespace fastnst::cpu
