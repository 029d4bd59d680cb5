// The kernels between convolutions: bias and ReLU, pooling and its backward.
#include "bias_relu.cuh"
#include "bias_relu_pool.cuh"
#include "bind.h"

namespace emulator {
namespace {

using namespace fastnst::kernels;

void run_bias_relu_channels(const Buffer& x, const Buffer& bias, int64_t pixels, int channels) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    launch_bias_relu_channels<T>(x.data<T>(), bias.data<T>(), pixels, channels, nullptr);
  });
}

// x of shape [B, C, N].
void run_bias_relu_rows(const Buffer& x, const Buffer& bias) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    launch_bias_relu_rows<T>(x.data<T>(), bias.data<T>(), x.shape().at(0), static_cast<int>(x.shape().at(1)),
                             x.shape().at(2), x.strides().at(0), x.strides().at(1), nullptr);
  });
}

PoolShape pool_shape(const Buffer& x) {
  const auto& shape = x.shape();
  return {shape.at(0), static_cast<int>(shape.at(1)), static_cast<int>(shape.at(2)), static_cast<int>(shape.at(3))};
}

template <typename F>
void with_pool(const std::string& kind, const F& f) {
  if (kind == "max") return f(std::integral_constant<Pool, Pool::kMax>{});
  if (kind == "average") return f(std::integral_constant<Pool, Pool::kAverage>{});
  f(std::integral_constant<Pool, Pool::kL2>{});
}

// Dense buffers of shape [B, C, H, W], all contiguous or all channels_last.
void run_pool(const std::string& kind, const Buffer& x, const Buffer& y, const Buffer* argmax, bool channels_last) {
  with_pool(kind, [&](auto chosen) {
    with_type(x, [&](auto zero) {
      using T = decltype(zero);
      launch_pool<decltype(chosen)::value, T>(x.data<T>(), y.data<T>(), data<uint8_t>(argmax), pool_shape(x),
                                              channels_last, nullptr);
    });
  });
}

void run_bias_relu_pool(const std::string& kind, const Buffer& x, const Buffer& bias, const Buffer& y,
                        const Buffer* argmax, bool keep, bool channels_last) {
  with_pool(kind, [&](auto chosen) {
    with_type(x, [&](auto zero) {
      using T = decltype(zero);
      launch_bias_relu_pool<decltype(chosen)::value, T>(x.data<T>(), bias.data<T>(), y.data<T>(), data<uint8_t>(argmax),
                                                        pool_shape(x), keep, channels_last, nullptr);
    });
  });
}

void run_pool_backward(const std::string& kind, const Buffer& grad, const Buffer* x, const Buffer* y,
                       const Buffer* argmax, const Buffer& out, bool relu, bool channels_last) {
  with_pool(kind, [&](auto chosen) {
    with_type(grad, [&](auto zero) {
      using T = decltype(zero);
      launch_pool_backward<decltype(chosen)::value, T>(grad.data<T>(), data<T>(x), data<T>(y), data<uint8_t>(argmax),
                                                       out.data<T>(), pool_shape(out), relu, channels_last, nullptr);
    });
  });
}

}  // namespace
}  // namespace emulator

void bind_between(py::module_& m) {
  using namespace emulator;
  m.def("bias_relu_channels", &run_bias_relu_channels);
  m.def("bias_relu_rows", &run_bias_relu_rows);
  m.def("pool", &run_pool, py::arg("kind"), py::arg("x"), py::arg("y"), py::arg("argmax"), py::arg("channels_last"));
  m.def("bias_relu_pool", &run_bias_relu_pool, py::arg("kind"), py::arg("x"), py::arg("bias"), py::arg("y"),
        py::arg("argmax"), py::arg("keep"), py::arg("channels_last"));
  m.def("pool_backward", &run_pool_backward, py::arg("kind"), py::arg("grad"), py::arg("x"), py::arg("y"),
        py::arg("argmax"), py::arg("out"), py::arg("relu"), py::arg("channels_last"));
}
