// content_loss, total_variation and the pointwise backward, as csrc/cuda launches them.
#include "bind.h"
#include "content_loss.cuh"
#include "pointwise.cuh"
#include "total_variation.cuh"

namespace emulator {
namespace {

using namespace fastnst::kernels;

// Number of blocks whose sums `partial` must hold.
constexpr int kPartials = kMaxBlocks;

void run_content_loss(const Buffer& x, const Buffer& y, const Buffer& partial, const Buffer& counter,
                      const Buffer& out) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    launch_squared_difference<T>(x.data<T>(), y.data<T>(), x.count(), partial.data<double>(), counter.data<unsigned>(),
                                 out.data<ComputeOf<T>>(), nullptr);
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

void run_total_variation(const Buffer& x, const std::string& kind, const Buffer& partial, const Buffer& counter,
                         const Buffer& out) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    launch_total_variation<T>(variation_of(kind), x.data<T>(), shape_of(x), strides_of(x), partial.data<double>(),
                              counter.data<unsigned>(), out.data<ComputeOf<T>>(), nullptr);
  });
}

void run_total_variation_backward(const Buffer& grad, const Buffer& x, const std::string& kind, const Buffer& out) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    launch_total_variation_backward<T>(variation_of(kind), grad.data<ComputeOf<T>>(), x.data<T>(), out.data<T>(),
                                       shape_of(x), strides_of(x), strides_of(out), nullptr);
  });
}

}  // namespace
}  // namespace emulator

void bind_elementwise(py::module_& m) {
  using namespace emulator;
  m.attr("max_blocks") = kPartials;
  m.def("content_loss", &run_content_loss, py::arg("x"), py::arg("target"), py::arg("partial"), py::arg("counter"),
        py::arg("out"));
  m.def("content_loss_backward", &run_content_loss_backward, py::arg("grad"), py::arg("x"), py::arg("target"),
        py::arg("out"));
  m.def("pointwise_backward", &run_pointwise_backward, py::arg("grad"), py::arg("x"), py::arg("target").none(true),
        py::arg("content"), py::arg("relu"));
  m.def("total_variation", &run_total_variation, py::arg("x"), py::arg("kind"), py::arg("partial"), py::arg("counter"),
        py::arg("out"));
  m.def("total_variation_backward", &run_total_variation_backward, py::arg("grad"), py::arg("x"), py::arg("kind"),
        py::arg("out"));
}
