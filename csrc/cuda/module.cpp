// The entry point of fastnst._C_cuda, a separate module because one linked to CUDA does not load with a CPU build of
// torch.
#include <Python.h>
#include <torch/csrc/stable/library.h>

#include <string>

namespace {
std::string cuda_architectures() { return FASTNST_ARCHITECTURES; }
}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(fastnst, m) { m.def("cuda_architectures() -> str"); }
STABLE_TORCH_LIBRARY_IMPL(fastnst, CompositeExplicitAutograd, m) {
  m.impl("cuda_architectures", TORCH_BOX(&cuda_architectures));
}

extern "C" {
PyMODINIT_FUNC PyInit__C_cuda(void) {
  static PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_C_cuda", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
}
