// Sums over the elements of two tensors, divided into blocks by their number alone.
#pragma once

#include <algorithm>
#include <vector>

#include "chunks.h"
#include "kernels.h"

namespace fastnst::cpu {

inline const char* at(const Tensor& x, int64_t element) {
  return static_cast<const char*>(x.data_ptr()) + element * element_size(x);
}

// The sum of kernel(dtype, x, y, count) over blocks of x and y, which have one dtype and layout.
inline double sum_of_pairs(const Tensor& x, const Tensor& y,
                           double (*kernel)(ScalarType, const void*, const void*, int64_t)) {
  const int64_t n = x.numel(), blocks = (n + kElementBlock - 1) / kElementBlock;
  std::vector<double> parts(static_cast<size_t>(blocks), 0.0);
  for_ranges(blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * kElementBlock, count = std::min(kElementBlock, n - first);
      parts[static_cast<size_t>(i)] = kernel(x.scalar_type(), at(x, first), at(y, first), count);
    }
  });
  double total = 0;
  for (const double part : parts) total += part;
  return total;
}

}  // namespace fastnst::cpu
