// The backward kernels: out = mask(F > 0) * (above + factor M F diag(w) + shift + content (F - P)).
#include "backward.cuh"
#include "bind.h"
#include "feature_map.h"

namespace emulator {
namespace {

using namespace fastnst::kernels;

template <typename T>
BackwardTask<T> task_of(double factor, double content, bool relu, const Buffer* weight, const Buffer* shift,
                        const Buffer* above, const Buffer* target, const Buffer& out) {
  using A = ComputeOf<T>;
  BackwardTask<T> task{};
  task.factor = static_cast<A>(factor);
  task.content = static_cast<A>(content);
  task.relu = relu;
  task.weight = data<A>(weight);
  task.shift = data<A>(shift);
  task.above = data<T>(above);
  task.target = data<T>(target);
  task.out = out.data<T>();
  return task;
}

py::dict plan_of(const Buffer& x, const Buffer& out, bool tf32, bool simt) {
  using py::operator""_a;
  py::dict result;
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const auto map = feature_map<T>(x);
    const auto task = task_of<T>(1, 0, false, nullptr, nullptr, nullptr, nullptr, out);
    const BackwardPath path = simt ? BackwardPath::kSimt : backward_path(map, task, Card{tf32, 132});
    result = py::dict("path"_a = path == BackwardPath::kRows       ? "rows"
                                 : path == BackwardPath::kChannels ? "channels"
                                                                   : "simt",
                      "padded"_a = padded_channels(path, map.channels));
  });
  return result;
}

// `above` may be `out` itself, for an update in place.
void run_backward(const Buffer& x, const Buffer& matrix, const Buffer& out, double factor, double content, bool relu,
                  const Buffer* weight, const Buffer* shift, const Buffer* above, const Buffer* target, bool tf32,
                  bool simt, bool plain, int multiprocessors) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const auto map = feature_map<T>(x);
    auto task = task_of<T>(factor, content, relu, weight, shift, above, target, out);
    const Card card{tf32, multiprocessors};
    const BackwardPath path = simt ? BackwardPath::kSimt : backward_path(map, task, card);
    task.matrix = matrix.data<ComputeOf<T>>();
    task.padded = padded_channels(path, map.channels);
    launch_backward<T>(map, path, task, plain, card, nullptr);
  });
}

void run_symmetrize(const Buffer& d, const Buffer& m, int channels, int padded, bool both) {
  const int64_t batch = d.shape().at(0);
  if (d.dtype() == Dtype::kFloat64) {
    launch_symmetrize(d.data<double>(), m.data<double>(), batch, channels, padded, both, nullptr);
  } else {
    launch_symmetrize(d.data<float>(), m.data<float>(), batch, channels, padded, both, nullptr);
  }
}

}  // namespace
}  // namespace emulator

void bind_backward(py::module_& m) {
  using namespace emulator;
  m.def("backward_plan", &plan_of, py::arg("x"), py::arg("out"), py::arg("tf32") = true, py::arg("simt") = false);
  m.def("backward", &run_backward, py::arg("x"), py::arg("matrix"), py::arg("out"), py::arg("factor") = 1.0,
        py::arg("content") = 0.0, py::arg("relu") = false, py::arg("weight") = nullptr, py::arg("shift") = nullptr,
        py::arg("above") = nullptr, py::arg("target") = nullptr, py::arg("tf32") = true, py::arg("simt") = false,
        py::arg("plain") = false, py::arg("multiprocessors") = 132);
  m.def("symmetrize", &run_symmetrize);
}
