// The CPU kernels as tables of functions, one per instruction set; the table is selected when the library is loaded.
#pragma once

#include <cstdint>
#include <string_view>

#include "../checks.h"

namespace fastnst::cpu {

// Work is divided into blocks whose size depends on the shape only, so that results have the same bits for any number
// of threads.
constexpr int64_t kLongBlock = 256;       // positions per packed block of the Gram product: 256 KB of float32 at most
constexpr int64_t kShortBlock = 64;       // the same for wide maps
constexpr int64_t kWide = 256;            // channels above which a map is wide
constexpr int64_t kRowsPerTask = 64;      // channels per task; a multiple of every tile
constexpr int64_t kElementBlock = 16384;  // elements per partial sum of elementwise reductions

// Positions per strip of the backward, at most 128 KB of float32: more for fewer channels. Multiples of every tile.
inline int64_t strip_length(int64_t channels) { return channels > kWide ? 60 : channels > 128 ? 120 : 252; }
inline int64_t gram_block(int64_t channels) { return channels > kWide ? kShortBlock : kLongBlock; }

// Adds F[:, block] diag(w) F[:, block]^T for the blocks first_block, first_block + block_step, ... to the lower
// triangle of rows row_begin..row_end, stored from `gram`; and, if `sum` is not null, F[:, block] w[block] of these
// channels to `sum`. Without weights w is 1. row_begin is a multiple of kRowsPerTask.
struct GramTask {
  Features x;
  const void* weight = nullptr;  // compute type, one per position of this batch entry
  int64_t b = 0, first_block = 0, block_step = 1, row_begin = 0, row_end = 0, row_stride = 0;
  double* gram = nullptr;  // rows of padded_channels(row_end) values, or longer
  double* sum = nullptr;
};

// Writes rows row_begin..row_end of the matrix for `backward`: a + a^T, or a alone if it is symmetric.
struct MatrixTask {
  ScalarType dtype = ScalarType::Float;  // of the features
  const void* a = nullptr;               // compute type, [C, C]
  void* out = nullptr;                   // [matrix_rows, padded_channels]
  bool symmetrize = false;
  int64_t channels = 0, row_begin = 0, row_end = 0;
};

// out = mask(F > 0) * (above + (factor M F + shift) diag(w) + content (F - P)) on positions begin..end of the channels
// channel_begin..channel_end; every term is optional. channel_begin is a multiple of kRowsPerTask.
struct BackwardTask {
  Features x;
  const void* matrix = nullptr;  // symmetric, as MatrixTask writes it
  const void* weight = nullptr;  // compute type, one per position of this batch entry
  const void* shift = nullptr;   // compute type, one per channel of this batch entry
  const void* target = nullptr;  // dtype and strides of x
  const void* above = nullptr;   // dtype and strides of x; may be `out`
  void* out = nullptr;           // dtype and strides of x
  double factor = 1, content = 0;
  bool relu = false;
  int64_t b = 0, begin = 0, end = 0, channel_begin = 0, channel_end = 0;
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

// `count` groups of `inner` 2 x 2 windows: the pixels of a row of windows if channels_last, else rows of windows. The
// stride of windows is `step` in the pool's input and 1 in its output, that of groups `window` in the input and `inner`
// in the output; `right` and `down` are the offsets of a window's other pixels. `pooled` is y, or its gradient.
struct PoolTask {
  Pool kind = Pool::kMax;
  ScalarType dtype = ScalarType::Float;
  int64_t count = 0, inner = 0, step = 1, window = 0, right = 0, down = 0;
  const void* x = nullptr;
  const void* y = nullptr;  // the backward of kL2
  void* pooled = nullptr;
  uint8_t* argmax = nullptr;  // kMax
  void* out = nullptr;        // the gradient of x
  bool relu = false;
};

// What stands for the pixels around an image: zeros, the nearest pixel, those of the opposite side, or those of the
// image mirrored at its outermost pixels.
enum class Border { kZeros, kReplicate, kCircular, kReflect };

// A 3x3 convolution of channels_last images: out = mask(F > 0) * relu(x * w + bias), where mask, relu and bias are
// optional. Tiles of tile x tile outputs are numbered row by row, image after image; a block is kColumns outputs, and a
// run is kRun channels, which are summed before they are added to others: their weights stay in the cache, and rounding
// errors grow more slowly.
struct ConvTask {
  // Tiles are multiplied in panels, at best whole ones.
  static constexpr int64_t kPanel = 12, kColumns = 32, kRun = 64;

  ScalarType dtype = ScalarType::Float;  // of everything except the argmax
  const void* x = nullptr;          // [height, width, channels]; or, with `argmax`, [height / 2, width / 2, channels]
  const uint8_t* argmax = nullptr;  // if given, x is the gradient of a max pool's output
  const void* weight = nullptr;     // any strides; fastest if outputs are contiguous
  int64_t weight_output = 1, weight_channel = 0, weight_row = 0, weight_column = 0;
  const void* bias = nullptr;     // [outputs]
  const void* mask = nullptr;     // F, like out
  const void* zeros = nullptr;    // at least `channels` and the lanes of a register
  void* out = nullptr;            // [out_height, out_width, outputs]; or, with `out_argmax`, its 2 x 2 maxima
  uint8_t* out_argmax = nullptr;  // of the maxima
  int64_t batch = 1, channels = 0, outputs = 0, height = 0, width = 0, out_height = 0, out_width = 0, pad = 0;
  int64_t first_row = 0;  // of the output, as a row of the input
  bool relu = false;
  Border rows = Border::kZeros, columns = Border::kZeros;  // what surrounds the input
  int64_t tile = 4;                                        // or 6

  int64_t runs() const { return channels == 0 ? 1 : (channels + kRun - 1) / kRun; }

  // Buffers of the sizes that conv_sizes returns, aligned to a cache line.
  void* v = nullptr;  // transformed tiles v_first..v_first + v_rows
  int64_t v_first = 0, v_rows = 0;
  void* u = nullptr;  // the transformed weights of one block and run
  void* m = nullptr;  // products of at most m_rows tiles, a multiple of kPanel
  int64_t m_rows = 0;
};

struct ConvSizes {
  int64_t v = 0, u = 0, m = 0;  // bytes
};

struct Kernels {
  const char* name;
  int64_t (*padded_channels)(ScalarType dtype, int64_t channels);
  int64_t (*matrix_rows)(ScalarType dtype, int64_t channels);
  void (*matrix)(const MatrixTask&);
  void (*gram)(const GramTask&);
  void (*backward)(const BackwardTask&);
  double (*squared_difference)(ScalarType dtype, const void* x, const void* y, int64_t n);
  double (*product)(ScalarType dtype, const void* x, const void* y, int64_t n);  // x y, summed
  void (*scaled_difference)(ScalarType dtype, const void* x, const void* y, void* out, double factor, int64_t n);
  // x = keep x + add y, for x of float or double and y of `dtype`; returns the new x times z, summed.
  double (*add_product)(ScalarType x_dtype, ScalarType dtype, void* x, const void* y, const void* z, double keep,
                        double add, int64_t n);
  // grad = mask(x > 0) * (grad + content * (x - target)); target may be null
  void (*pointwise_backward)(ScalarType dtype, void* grad, const void* x, const void* target, double content, bool relu,
                             int64_t n);
  double (*variation)(const PlaneTask&);
  void (*variation_backward)(const PlaneTask&);
  void (*pool)(const PoolTask&);
  void (*pool_backward)(const PoolTask&);
  ConvSizes (*conv_sizes)(const ConvTask&);
  // Tiles first..last to v; those beyond the last image are zero.
  void (*conv_input)(const ConvTask&, int64_t first, int64_t last);
  // The weights of a block and run to u.
  void (*conv_weights)(const ConvTask&, int64_t block, int64_t run);
  // The products of u with tiles first..last, added to m unless it is the first run. first - v_first is a multiple of
  // kPanel.
  void (*conv_products)(const ConvTask&, int64_t block, int64_t run, int64_t first, int64_t last);
  // A block of outputs of tiles first..last from m.
  void (*conv_outputs)(const ConvTask&, int64_t block, int64_t first, int64_t last);
};

const Kernels& portable_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512_bf16_kernels();
#elif defined(__aarch64__)
const Kernels& neon_kernels();
#endif

// The best table for this processor, or the one that the environment variable FASTNST_CPU names.
const Kernels& kernels();

}  // namespace fastnst::cpu
