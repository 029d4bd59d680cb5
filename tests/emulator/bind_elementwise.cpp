// content_loss, total_variation and the pointwise backward, as csrc/cuda launches them.
#include "adam.cuh"
#include "bind.h"
#include "content_loss.cuh"
#include "pointwise.cuh"
#include "total_variation.cuh"

namespace emulator {
namespace {

using namespace fastnst::kernels;

// Number of blocks whose sums `partial` must hold.
constexpr int kPartials = kMaxBlocks;

// Only the first of two launches if there is no `out`.
template <typename T>
void run_sum(const Buffer& partial, int blocks, const Buffer* out) {
  if (out) launch_sum_of_blocks(partial.data<double>(), blocks, out->data<ComputeOf<T>>(), nullptr);
}

void run_content_loss(const Buffer& x, const Buffer& y, const Buffer& partial, const Buffer* out) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    run_sum<T>(partial,
               launch_squared_difference<T>(x.data<T>(), y.data<T>(), x.count(), partial.data<double>(), nullptr), out);
  });
}

void run_content_loss_backward(const Buffer& grad, const Buffer& x, const Buffer& y, const Buffer& out) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    launch_scaled_difference<T>(grad.data<ComputeOf<T>>(), x.data<T>(), y.data<T>(), out.data<T>(), x.count(), nullptr);
  });
}

void run_pointwise_backward(const Buffer& grad, const Buffer& x, const Buffer* target, double content, bool relu) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    launch_pointwise_backward<T>(grad.data<T>(), x.data<T>(), data<T>(target), content, relu, x.count(), nullptr);
  });
}

Variation variation_of(const std::string& kind) {
  if (kind == "anisotropic") return Variation::kAnisotropic;
  return kind == "isotropic" ? Variation::kIsotropic : Variation::kSquared;
}

ImageStrides strides_of(const Buffer& x) {
  const auto& s = x.strides();
  return {s.at(0), s.at(1), s.at(2), s.at(3)};
}

ImageShape shape_of(const Buffer& x) {
  const auto& s = x.shape();
  return {s.at(0), s.at(1), s.at(2), s.at(3)};
}

void run_total_variation(const Buffer& x, const std::string& kind, const Buffer& partial, const Buffer* out) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    run_sum<T>(partial,
               launch_total_variation<T>(variation_of(kind), x.data<T>(), shape_of(x), strides_of(x),
                                         partial.data<double>(), nullptr),
               out);
  });
}

void run_total_variation_backward(const Buffer& grad, const Buffer& x, const std::string& kind, const Buffer& out) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    launch_total_variation_backward<T>(variation_of(kind), grad.data<ComputeOf<T>>(), x.data<T>(), out.data<T>(),
                                       shape_of(x), strides_of(x), strides_of(out), nullptr);
  });
}

// `losses` is float32 or float64. Only the first of two launches if `check`.
void run_adam(const Buffer& image, const Buffer& good, const Buffer& mean, const Buffer& square, const Buffer& count,
              const Buffer& values, const Buffer& losses, const Buffer& gradient, const Buffer& factors,
              const Buffer& rate, const Buffer& scratch, std::vector<double> constants, bool clamp, bool check) {
  with_type(image, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (sizeof(T) >= 4) {
      const AdamTensors<T> tensors{image.data<T>(),  good.data<T>(),     mean.data<T>(),
                                   square.data<T>(), gradient.data<T>(), image.count()};
      const bool wide = losses.dtype() == Dtype::kFloat64;
      const AdamLosses of{wide ? nullptr : losses.data<float>(), wide ? losses.data<double>() : nullptr,
                          values.data<double>(), static_cast<int>(losses.count())};
      const AdamSchedule schedule{count.data<int>(), factors.data<double>(), rate.data<double>(),
                                  static_cast<int>(factors.shape().at(0)) - 1};
      const AdamConstants given{constants.at(0), constants.at(1), constants.at(2), constants.at(3), clamp};
      const int blocks = launch_adam_check(tensors, of, schedule, scratch.data<int>(), nullptr);
      if (!check) launch_adam_update(tensors, of, schedule, given, scratch.data<int>(), blocks, nullptr);
    }
  });
}

}  // namespace
}  // namespace emulator

void bind_elementwise(py::module_& m) {
  using namespace emulator;
  m.attr("max_blocks") = kPartials;
  m.def("content_loss", &run_content_loss, py::arg("x"), py::arg("target"), py::arg("partial"),
        py::arg("out").none(true));
  m.def("adam_step", &run_adam, py::arg("image"), py::arg("good"), py::arg("mean"), py::arg("square"), py::arg("count"),
        py::arg("values"), py::arg("losses"), py::arg("gradient"), py::arg("factors"), py::arg("rate"),
        py::arg("scratch"), py::arg("constants"), py::arg("clamp"), py::arg("check") = false);
  m.def("content_loss_backward", &run_content_loss_backward, py::arg("grad"), py::arg("x"), py::arg("target"),
        py::arg("out"));
  m.def("pointwise_backward", &run_pointwise_backward, py::arg("grad"), py::arg("x"), py::arg("target").none(true),
        py::arg("content"), py::arg("relu"));
  m.def("total_variation", &run_total_variation, py::arg("x"), py::arg("kind"), py::arg("partial"),
        py::arg("out").none(true));
  m.def("total_variation_backward", &run_total_variation_backward, py::arg("grad"), py::arg("x"), py::arg("kind"),
        py::arg("out"));
}
