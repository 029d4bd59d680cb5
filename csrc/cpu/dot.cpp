// The scalar product of two vectors, with the same bits for any number of threads.
#include "gram.h"
#include "pair_sums.h"

namespace fastnst::cpu {
namespace {

Tensor dot(const Tensor& x_, const Tensor& y_) {
  check(x_.scalar_type() == ScalarType::Float || x_.scalar_type() == ScalarType::Double,
        "dot: expected x of dtype float32 or float64");
  check(x_.dim() == 1, "dot: expected x of one dimension, got ", x_.dim());
  check_pair("dot", x_, "y", y_);
  const Tensor x = dense(x_);
  Tensor out = allocate(x, {}, ScalarType::Double);
  *static_cast<double*>(out.data_ptr()) = sum_of_pairs(x, in_layout_of(y_, x), kernels().product);
  return out;
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) { m.impl("dot", TORCH_BOX(&fastnst::cpu::dot)); }
