// The scalar product of two vectors, with the same bits for any number of threads.
#include <vector>

#include "chunks.h"
#include "gram.h"

namespace fastnst::cpu {
namespace {

constexpr int64_t kBlock = 1 << 14, kLanes = 32, kShort = 32 * kLanes;

// Short sums in independent lanes, which vectorize, added up in double.
template <typename T>
double product(const T* x, const T* y, int64_t n) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kShort) {
    const int64_t count = std::min(kShort, n - begin), even = count - count % kLanes;
    T lanes[kLanes] = {};
    for (int64_t i = 0; i < even; i += kLanes)
      for (int64_t l = 0; l < kLanes; ++l) lanes[l] += x[begin + i + l] * y[begin + i + l];
    for (int64_t i = even; i < count; ++i) lanes[i - even] += x[begin + i] * y[begin + i];
    for (int64_t l = 0; l < kLanes; ++l) total += lanes[l];
  }
  return total;
}

Tensor dot(const Tensor& x_, const Tensor& y_) {
  check(x_.scalar_type() == ScalarType::Float || x_.scalar_type() == ScalarType::Double,
        "dot: expected x of dtype float32 or float64");
  check(x_.dim() == 1, "dot: expected x of one dimension, got ", x_.dim());
  check_pair("dot", x_, "y", y_);
  const Tensor x = dense(x_);
  const Tensor y = in_layout_of(y_, x);
  const int64_t n = x.numel(), blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> parts(static_cast<size_t>(blocks), 0.0);
  for_ranges(blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * kBlock, count = std::min(kBlock, n - first);
      with_accumulate_type(x, [&](auto zero) {
        using T = decltype(zero);
        const T *a = static_cast<const T*>(x.data_ptr()), *b = static_cast<const T*>(y.data_ptr());
        parts[static_cast<size_t>(i)] = product(a + first, b + first, count);
      });
    }
  });
  double total = 0;
  for (const double part : parts) total += part;
  Tensor out = allocate(x, {}, ScalarType::Double);
  *static_cast<double*>(out.data_ptr()) = total;
  return out;
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) { m.impl("dot", TORCH_BOX(&fastnst::cpu::dot)); }
