// The two-loop recursion of L-BFGS on the CPU: each pass adds one vector of the history and multiplies by the next, so
// that the direction is read half as often. The bits do not depend on the number of threads.
#include <vector>

#include "gram.h"
#include "pair_sums.h"

namespace fastnst::cpu {
namespace {

void check_history(const char* op, const Tensor& direction, const Tensor& pairs, const Tensor& slots,
                   const Tensor& curvatures) {
  const auto floating = [](const Tensor& x) {
    const ScalarType dtype = x.scalar_type();
    return dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::BFloat16 ||
           dtype == ScalarType::Half;
  };
  check(direction.dim() == 1 && is_dense(direction) &&
            (direction.scalar_type() == ScalarType::Float || direction.scalar_type() == ScalarType::Double),
        op, ": expected direction of one dimension, dense, of dtype float32 or float64");
  check(pairs.dim() == 3 && pairs.size(1) == 2 && pairs.size(2) == direction.size(0), op,
        ": expected pairs of shape (history, 2, ", direction.size(0), "), got ", shape_of(pairs));
  check(floating(pairs) && pairs.is_contiguous() && !pairs.is_cuda(), op,
        ": expected pairs contiguous, on the CPU, of a floating dtype");
  check(slots.dim() == 1 && slots.scalar_type() == ScalarType::Long && slots.is_contiguous() && !slots.is_cuda(), op,
        ": expected slots of one dimension, contiguous, on the CPU, of dtype int64");
  check(curvatures.dim() == 1 && curvatures.size(0) == slots.size(0) &&
            curvatures.scalar_type() == ScalarType::Double && curvatures.is_contiguous() && !curvatures.is_cuda(),
        op, ": expected curvatures of the shape of slots, contiguous, on the CPU, of dtype float64");
  const int64_t* slot = slots.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < slots.size(0); ++i)
    check(slot[i] >= 0 && slot[i] < pairs.size(0), op, ": expected slots of 0 to ", pairs.size(0) - 1, ", got ",
          slot[i]);
}

void lbfgs_direction(Tensor direction, const Tensor& pairs, const Tensor& slots, const Tensor& curvatures,
                     double scale) {
  check_history("lbfgs_direction_", direction, pairs, slots, curvatures);
  const int64_t used = slots.size(0), n = direction.size(0), blocks = (n + kElementBlock - 1) / kElementBlock;
  const auto vector = [&](int64_t i, int64_t which) {
    return at(pairs, (slots.const_data_ptr<int64_t>()[i] * 2 + which) * n);
  };
  const double* curvature = curvatures.const_data_ptr<double>();
  std::vector<double> parts(static_cast<size_t>(blocks)), alphas(static_cast<size_t>(used));
  // direction = keep direction + add y; the sum of direction z.
  const auto pass = [&](double keep, double add, const char* y, const char* z) {
    const int64_t wide = element_size(direction), narrow = element_size(pairs);
    for_ranges(blocks, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i * kElementBlock;
        parts[static_cast<size_t>(i)] = kernels().add_product(
            direction.scalar_type(), pairs.scalar_type(), static_cast<char*>(direction.data_ptr()) + first * wide,
            y + first * narrow, z + first * narrow, keep, add, std::min(kElementBlock, n - first));
      }
    });
    double total = 0;
    for (const double part : parts) total += part;
    return total;
  };
  if (used == 0) {
    with_accumulate_type(direction, [&](auto zero) {
      using T = decltype(zero);
      T* x = static_cast<T*>(direction.data_ptr());
      for_ranges(n, kElementBlock, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) x[i] *= static_cast<T>(scale);
      });
    });
    return;
  }
  double sum = pass(1, 0, vector(0, 0), vector(0, 0));
  for (int64_t i = 0; i < used; ++i) {
    alphas[i] = sum / curvature[i];
    sum = pass(1, -alphas[i], vector(i, 1), i + 1 < used ? vector(i + 1, 0) : vector(i, 1));
  }
  for (int64_t i = used - 1; i >= 0; --i) {
    const bool first = i == used - 1;
    const double beta = (first ? scale : 1) * sum / curvature[i];
    sum = pass(first ? scale : 1, alphas[i] - beta, vector(i, 0), i > 0 ? vector(i - 1, 1) : vector(i, 0));
  }
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) { m.impl("lbfgs_direction_", TORCH_BOX(&fastnst::cpu::lbfgs_direction)); }
