// The schemas of all ops, and the entry point of the extension module fastnst._C.
// Definitions of the ops: fastnst/ops/reference. Kernels register themselves in csrc/cpu and csrc/cuda.
#include <Python.h>
#include <torch/csrc/stable/library.h>

#include <string>

namespace {
std::string build_info() { return FASTNST_BUILD; }
// The CUDA release that fastnst._C_cuda was built with, such as "13.0"; empty without that module.
std::string cuda_release() { return FASTNST_CUDA; }
}  // namespace

STABLE_TORCH_LIBRARY(fastnst, m) {
  m.def("gram(Tensor x, Tensor? weight, float scale) -> Tensor");
  // The backward of gram, moments and style_loss; `shift` is the gradient of the mean, divided by N without weights.
  m.def("gram_backward(Tensor grad, Tensor x, Tensor? weight, float scale, Tensor? shift) -> Tensor");
  m.def("moments(Tensor x, Tensor? weight, float scale) -> (Tensor, Tensor)");
  m.def("style_loss(Tensor x, Tensor target, Tensor? weight, float scale) -> (Tensor, Tensor)");
  m.def("content_loss(Tensor x, Tensor target) -> Tensor");
  m.def("content_loss_backward(Tensor grad, Tensor x, Tensor target) -> Tensor");
  m.def("total_variation(Tensor x, str kind) -> Tensor");
  m.def("total_variation_backward(Tensor grad, Tensor x, str kind) -> Tensor");
  m.def(
      "layer_backward_(Tensor(a!) grad, Tensor x, Tensor? residual, Tensor? weight, float style, "
      "Tensor? shift, Tensor? target, float content, bool relu) -> ()");
  m.def("bias_relu_(Tensor(a!) x, Tensor bias) -> ()");
  m.def("bias_relu_style_loss(Tensor x, Tensor bias, Tensor target, float scale) -> (Tensor, Tensor, Tensor)");
  m.def("pool(Tensor x, str kind) -> (Tensor, Tensor)");
  // bias_relu_ and pool of the result. Without `keep` the values of x are undefined afterwards.
  m.def("bias_relu_pool_(Tensor(a!) x, Tensor bias, str kind, bool keep) -> (Tensor, Tensor)");
  m.def(
      "pool_backward(Tensor grad, Tensor? x, Tensor? y, Tensor? argmax, str kind, int height, int width, bool relu) "
      "-> Tensor");
  // A step of Adam, unless a loss or the gradient is not finite: see fastnst/ops/adam_step.py.
  m.def(
      "adam_step_(Tensor(a!) image, Tensor(b!) good, Tensor(c!) mean, Tensor(d!) square, Tensor(e!) count, "
      "Tensor(f!) values, Tensor losses, Tensor gradient, Tensor factors, Tensor rate, float first, float second, "
      "float epsilon, float unit, bool clamp) -> ()");
  // In float64, of vectors: see fastnst/ops/dot.py.
  m.def("dot(Tensor x, Tensor y) -> Tensor");
  // The two-loop recursion of L-BFGS: see fastnst/ops/lbfgs_direction.py.
  m.def("lbfgs_direction_(Tensor(a!) direction, Tensor pairs, Tensor slots, Tensor curvatures, float scale) -> ()");
  // The distance of rows to quantiles, and its gradient: see fastnst/ops/quantile_residual.py.
  m.def("quantile_residual_(Tensor(a!) x, Tensor quantiles, Tensor? weight, float factor) -> Tensor");
  m.def("conv3x3(Tensor x, Tensor weight, Tensor? bias, bool relu, str padding) -> Tensor");
  // The `_out` forms write the rows from `first`, as many as `out` has, which may include rows of padding.
  m.def("conv3x3_out(Tensor x, Tensor weight, Tensor? bias, bool relu, str padding, int first, Tensor(a!) out) -> ()");
  m.def(
      "conv3x3_pool_out(Tensor x, Tensor weight, Tensor bias, str padding, int first, Tensor(a!) out, Tensor(b!) "
      "argmax) -> ()");
  m.def(
      "conv3x3_backward(Tensor grad, Tensor weight, Tensor? mask, Tensor? argmax, int height, int width, bool border) "
      "-> Tensor");
  m.def(
      "conv3x3_backward_out(Tensor grad, Tensor weight, Tensor? mask, Tensor? argmax, int height, int width, "
      "bool border, int first, Tensor(a!) out) -> ()");
  m.def("build_info() -> str");
  m.def("cuda_release() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(fastnst, CompositeExplicitAutograd, m) {
  m.impl("build_info", TORCH_BOX(&build_info));
  m.impl("cuda_release", TORCH_BOX(&cuda_release));
}

extern "C" {
// The module is empty; importing it loads the library and runs its registrations.
PyMODINIT_FUNC PyInit__C(void) {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
}
