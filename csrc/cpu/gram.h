// Shared by gram, moments and style_loss: the sums over positions, in double, and the backward.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>

#include "kernels.h"

namespace fastnst::cpu {

// Rows begin..end of F diag(w) F^T for batch entry b, unscaled, up to the diagonal, in double; and F w of these
// channels if requested. Without weights w is 1.
struct GramRows {
  int64_t b = 0, begin = 0, end = 0, stride = 0;
  const double* gram = nullptr;
  const double* sum = nullptr;

  // Calls f(i, j, value) for these rows up to the diagonal, and for the mirrored elements above it. In square blocks,
  // so that both are accessed along rows.
  template <typename F>
  void for_each(const F& f) const {
    constexpr int64_t kSquare = 16;
    double square[kSquare][kSquare];
    for (int64_t j0 = 0; j0 < end; j0 += kSquare) {
      for (int64_t i0 = std::max(begin, j0); i0 < end; i0 += kSquare) {
        const int64_t i1 = std::min(end, i0 + kSquare), j1 = std::min(end, j0 + kSquare);
        for (int64_t i = i0; i < i1; ++i)
          for (int64_t j = j0; j < std::min(j1, i + 1); ++j)
            f(i, j, square[j - j0][i - i0] = gram[(i - begin) * stride + j]);
        for (int64_t j = j0; j < j1; ++j)
          for (int64_t i = std::max(i0, j + 1); i < i1; ++i) f(j, i, square[j - j0][i - i0]);
      }
    }
  }
};

// Calls finish in parallel for groups of kRowsPerTask rows that cover all rows of all batch entries.
void gram_rows(const Tensor& x, const std::optional<Tensor>& weight, bool with_sum,
               const std::function<void(const GramRows&)>& finish);

// Calls f with a zero of float or double, the accumulate type of `like`.
template <typename F>
void with_accumulate_type(const Tensor& like, const F& f) {
  if (accumulate_type(like) == ScalarType::Double) {
    f(double{});
  } else {
    f(float{});
  }
}

// out = mask(x > 0) * (above + (factor * matrix x + shift) diag(w) + content (x - target)), every term except that of
// the matrix is optional. `symmetrize` replaces the matrix by matrix + matrix^T; without it the matrix must be
// symmetric. The positions of x have one stride; out, above and target have the layout and dtype of x.
struct Backward {
  double factor = 1, content = 0;
  bool symmetrize = false, relu = false;
};
void matrix_backward(const Tensor& x, const Tensor& matrix, const std::optional<Tensor>& weight,
                     const std::optional<Tensor>& shift, const std::optional<Tensor>& target, bool add_to_out,
                     const Backward& options, Tensor& out);

}  // namespace fastnst::cpu
