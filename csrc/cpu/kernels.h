// The CPU kernels behind a table of functions, one table per instruction set, chosen once when the library is loaded.
#pragma once

#include <cstdint>
#include <string_view>

#include "../checks.h"

namespace fastnst::cpu {

// Work is cut into blocks whose size depends on the shape alone, so that the sums, and with them every bit of a
// result, are the same for any number of threads.
constexpr int64_t kGramBlock = 256;       // positions per packed block: 256 x 512 channels of float32 fill half an L2
constexpr int64_t kStrip = 64;            // positions per strip of the backward
constexpr int64_t kElementBlock = 16384;  // elements per partial sum of elementwise reductions

// Adds F[:, block] diag(w) F[:, block]^T for the blocks first_block, first_block + block_step, ... to the lower
// triangle of `gram`, rows row_begin..row_end; and, where `sum` is not null, the sum over positions to `sum`.
struct GramTask {
  Features x;
  const void* weight = nullptr;  // compute type, one per position of this batch entry
  int64_t b = 0, first_block = 0, block_step = 1, row_begin = 0, row_end = 0;
  double* gram = nullptr;  // [C, C]
  double* sum = nullptr;   // [C]
};

// out = mask(F > 0) * (above + M F diag(w) + shift + content (F - P)) on positions begin..end; every term is optional.
struct BackwardTask {
  Features x;
  const void* matrix = nullptr;  // compute type, symmetric, [C, padded_channels] zero padded
  const void* weight = nullptr;  // compute type, one per position of this batch entry
  const void* shift = nullptr;   // compute type, one per channel of this batch entry
  const void* target = nullptr;  // dtype and strides of x
  const void* above = nullptr;   // dtype and strides of x; may be `out`
  void* out = nullptr;           // dtype and strides of x
  double content = 0;
  bool relu = false;
  int64_t b = 0, begin = 0, end = 0;
};

enum class Variation { kAnisotropic, kIsotropic, kSquared };

// One plane of an image, H x W, of any strides.
struct PlaneTask {
  const void* x = nullptr;
  void* out = nullptr;  // gradient; null for the value alone
  int64_t row_stride = 0, column_stride = 0, out_row_stride = 0, out_column_stride = 0;
  ScalarType dtype = ScalarType::Float;
  Variation kind = Variation::kAnisotropic;
  int64_t height = 0, width = 0, row_begin = 0, row_end = 0;
  double factor = 1;
};

enum class Pool { kMax, kAverage, kL2 };

// 2 x 2 windows side by side, `count` of them with `inner` values each. One step of the inner values is `step` in the
// pool's input and 1 in its output; one window is `window` there and `inner` here; the window's other values lie
// `right` and `down`. `pooled` is y, or its gradient.
struct PoolTask {
  Pool kind = Pool::kMax;
  ScalarType dtype = ScalarType::Float;
  int64_t count = 0, inner = 0, step = 1, window = 0, right = 0, down = 0;
  const void* x = nullptr;
  const void* y = nullptr;  // the backward of kL2
  void* pooled = nullptr;
  uint8_t* places = nullptr;  // kMax
  void* out = nullptr;        // the gradient of x
  bool relu = false;
};

struct Kernels {
  const char* name;
  int64_t (*padded_channels)(ScalarType dtype, int64_t channels);
  void (*gram)(const GramTask&);
  void (*backward)(const BackwardTask&);
  double (*squared_difference)(ScalarType dtype, const void* x, const void* y, int64_t n);
  void (*scaled_difference)(ScalarType dtype, const void* x, const void* y, void* out, double factor, int64_t n);
  // grad = mask(x > 0) * (grad + content * (x - target)); target may be null
  void (*pointwise_backward)(ScalarType dtype, void* grad, const void* x, const void* target, double content, bool relu,
                             int64_t n);
  double (*variation)(const PlaneTask&);
  void (*variation_backward)(const PlaneTask&);
  void (*pool)(const PoolTask&);
  void (*pool_backward)(const PoolTask&);
};

const Kernels& portable_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#endif

// The best table this processor can run, or the one that the environment variable FASTNST_CPU names.
const Kernels& kernels();

}  // namespace fastnst::cpu
