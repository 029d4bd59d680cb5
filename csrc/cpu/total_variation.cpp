// total_variation and its backward on the CPU, one pass each: the gradient is computed by gathering for each pixel.
#include <string>
#include <vector>

#include "chunks.h"
#include "gram.h"

namespace fastnst::cpu {
namespace {

constexpr int64_t kRowsPerPart = 16;

Variation variation_of(const std::string& kind) {
  if (kind == "anisotropic") return Variation::kAnisotropic;
  if (kind == "isotropic") return Variation::kIsotropic;
  check(kind == "squared", "total_variation: expected kind anisotropic, isotropic or squared, got ", kind);
  return Variation::kSquared;
}

void check_image(const Tensor& x) {
  check(x.dim() == 4, "total_variation: expected x of shape (B, C, H, W), got ", shape_of(x));
  check(is_floating(x), "total_variation: expected x of dtype float32, float64, bfloat16 or float16");
}

int64_t bands_of(const Tensor& x) { return (x.size(2) + kRowsPerPart - 1) / kRowsPerPart; }

// Calls f(band, task) for each band of rows of each plane; bands depend on the shape only.
template <typename F>
void for_each_band(const Tensor& x, Variation kind, const Tensor* out, double factor, const F& f) {
  const int64_t height = x.size(2), width = x.size(3), channels = x.size(1), planes = x.size(0) * channels;
  const int64_t bands = bands_of(x);
  const int64_t bytes = element_size(x);
  for_ranges(planes * bands, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / bands / channels, c = i / bands % channels, first = i % bands * kRowsPerPart;
      const auto plane_of = [&](const Tensor& t) {
        return static_cast<char*>(t.data_ptr()) + (b * t.stride(0) + c * t.stride(1)) * bytes;
      };
      PlaneTask task;
      task.x = plane_of(x);
      task.row_stride = x.stride(2);
      task.column_stride = x.stride(3);
      if (out) {
        task.out = plane_of(*out);
        task.out_row_stride = out->stride(2);
        task.out_column_stride = out->stride(3);
      }
      task.dtype = x.scalar_type();
      task.kind = kind;
      task.height = height;
      task.width = width;
      task.row_begin = first;
      task.row_end = std::min(height, first + kRowsPerPart);
      task.factor = factor;
      f(i, task);
    }
  });
}

Tensor total_variation(const Tensor& x, std::string kind) {
  check_image(x);
  const Variation variation = variation_of(kind);
  std::vector<double> parts(static_cast<size_t>(x.size(0) * x.size(1) * bands_of(x)), 0.0);
  for_each_band(x, variation, nullptr, 1.0,
                [&](int64_t i, const PlaneTask& task) { parts[static_cast<size_t>(i)] = kernels().variation(task); });
  double total = 0;
  for (const double part : parts) total += part;
  Tensor out = allocate(x, {}, accumulate_type(x));
  with_accumulate_type(x, [&](auto zero) { *static_cast<decltype(zero)*>(out.data_ptr()) = total; });
  return out;
}

Tensor total_variation_backward(const Tensor& grad, const Tensor& x, std::string kind) {
  check_image(x);
  check(grad.numel() == 1 && grad.scalar_type() == accumulate_type(x),
        "total_variation_backward: expected grad to be one value, float32, or float64 if x is float64");
  const Variation variation = variation_of(kind);
  Tensor out = allocate_like(x);
  double factor = 0;
  with_accumulate_type(x, [&](auto zero) { factor = *static_cast<const decltype(zero)*>(grad.data_ptr()); });
  for_each_band(x, variation, &out, factor,
                [&](int64_t, const PlaneTask& task) { kernels().variation_backward(task); });
  return out;
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) {
  m.impl("total_variation", TORCH_BOX(&fastnst::cpu::total_variation));
  m.impl("total_variation_backward", TORCH_BOX(&fastnst::cpu::total_variation_backward));
}
