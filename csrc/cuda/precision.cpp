#include "precision.h"

#include <torch/csrc/stable/library.h>

#include <atomic>
#include <string>

#include "../checks.h"

namespace fastnst::cuda {
namespace {

std::atomic<bool> plain{false};

void set_float32_precision(std::string precision) {
  check(precision == "ieee" || precision == "tf32", "cuda_float32_precision: expected ieee or tf32, got ", precision);
  plain = precision == "tf32";
}

}  // namespace

bool plain_tf32() { return plain; }

}  // namespace fastnst::cuda

STABLE_TORCH_LIBRARY_FRAGMENT(fastnst, m) { m.def("cuda_float32_precision(str precision) -> ()"); }
STABLE_TORCH_LIBRARY_IMPL(fastnst, CompositeExplicitAutograd, m) {
  m.impl("cuda_float32_precision", TORCH_BOX(&fastnst::cuda::set_float32_precision));
}
