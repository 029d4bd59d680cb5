// gram on the CPU: the sums over positions, and the backward that gram, moments and style_loss share.
#include "gram.h"

namespace fastnst::cpu {
namespace {

constexpr int64_t kMaxSlices = 8;
constexpr int64_t kBlocksPerSlice = 4;  // fewer are not worth a workspace of their own
constexpr int64_t kRowsPerTask = 128;

// Row groups of a triangle grow with their index; taken from both ends in turn, any run of them is about as much work.
int64_t balanced(int64_t i, int64_t n) { return i % 2 ? n - 1 - i / 2 : i / 2; }

}  // namespace

GramSums gram_sums(const Tensor& x, const std::optional<Tensor>& weight, bool with_sum) {
  const Features f = features("gram", "x", x);
  const int64_t blocks = (f.positions + kGramBlock - 1) / kGramBlock;
  // Wide maps have few positions for their channels: fewer slices keep the workspace smaller than the map.
  const int64_t most = f.channels > 256 ? kMaxSlices / 2 : kMaxSlices;
  GramSums sums;
  sums.slices = std::max<int64_t>(1, std::min(most, blocks / kBlocksPerSlice));
  sums.gram = allocate_zeros(x, {f.batch, sums.slices, f.channels, f.channels}, ScalarType::Double);
  sums.sum = allocate_zeros(x, {f.batch, sums.slices, with_sum ? f.channels : 0}, ScalarType::Double);
  if (f.positions == 0 || f.batch == 0 || f.channels == 0) return sums;

  std::optional<Tensor> w = weight ? std::optional<Tensor>(as_contiguous(*weight)) : std::nullopt;
  const int64_t weight_bytes = f.dtype == ScalarType::Double ? 8 : 4;
  const int64_t groups = (f.channels + kRowsPerTask - 1) / kRowsPerTask;
  double* gram = sums.gram.mutable_data_ptr<double>();
  double* sum = with_sum ? sums.sum.mutable_data_ptr<double>() : nullptr;
  torch::stable::parallel_for(0, f.batch * sums.slices * groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = balanced(i % groups, groups), slice = i / groups % sums.slices,
                    b = i / groups / sums.slices;
      GramTask task;
      task.x = f;
      task.b = b;
      task.first_block = slice;
      task.block_step = sums.slices;
      task.row_begin = group * kRowsPerTask;
      task.row_end = std::min(f.channels, task.row_begin + kRowsPerTask);
      task.gram = gram + (b * sums.slices + slice) * f.channels * f.channels;
      if (sum && group == 0) task.sum = sum + (b * sums.slices + slice) * f.channels;
      if (w) task.weight = static_cast<const char*>(w->data_ptr()) + b * f.positions * weight_bytes;
      kernels().gram(task);
    }
  });
  return sums;
}

void matrix_backward(const Tensor& x, const Tensor& matrix, const std::optional<Tensor>& weight,
                     const std::optional<Tensor>& shift, const std::optional<Tensor>& target, bool add_to_out,
                     const Backward& options, Tensor& out) {
  const Features f = features("gram_backward", "x", x);
  if (x.numel() == 0) return;
  const int64_t channels = f.channels, ld = kernels().padded_channels(f.dtype, channels);
  // Rows beyond the last channel are read by the last tile of rows and their products dropped.
  const int64_t rows = channels + 8;
  Tensor padded = allocate_zeros(matrix, {f.batch, rows, ld}, accumulate_type(x));
  const Tensor dense = as_contiguous(matrix);
  const int64_t bytes = f.dtype == ScalarType::Double ? 8 : 4;
  with_accumulate_type(x, [&](auto zero) {
    using T = decltype(zero);
    const T* from = static_cast<const T*>(dense.data_ptr());
    T* to = static_cast<T*>(padded.data_ptr());
    for (int64_t b = 0; b < f.batch; ++b)
      for (int64_t i = 0; i < channels; ++i)
        for (int64_t j = 0; j < channels; ++j) {
          const T* m = from + b * channels * channels;
          const double value = double(m[i * channels + j]) + (options.symmetrise ? double(m[j * channels + i]) : 0.0);
          to[(b * rows + i) * ld + j] = static_cast<T>(options.factor * value);
        }
  });
  std::optional<Tensor> w = weight ? std::optional<Tensor>(as_contiguous(*weight)) : std::nullopt;
  std::optional<Tensor> s = shift ? std::optional<Tensor>(as_contiguous(*shift)) : std::nullopt;
  const int64_t strips = (f.positions + kStrip - 1) / kStrip;
  torch::stable::parallel_for(0, f.batch * strips, 1, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t b = begin / strips, stop = std::min(end, (b + 1) * strips);
      BackwardTask task;
      task.x = f;
      task.b = b;
      task.begin = (begin - b * strips) * kStrip;
      task.end = std::min(f.positions, (stop - b * strips) * kStrip);
      task.matrix = static_cast<const char*>(padded.data_ptr()) + b * rows * ld * bytes;
      if (w) task.weight = static_cast<const char*>(w->data_ptr()) + b * f.positions * bytes;
      if (s) task.shift = static_cast<const char*>(s->data_ptr()) + b * channels * bytes;
      if (target) task.target = target->data_ptr();
      task.out = out.data_ptr();
      if (add_to_out) task.above = task.out;
      task.content = options.content;
      task.relu = options.relu;
      kernels().backward(task);
      begin = stop;
    }
  });
}

namespace {

Tensor gram(const Tensor& x_, std::optional<Tensor> weight, double scale) {
  features("gram", "x", x_);
  check_weight("gram", x_, weight);
  const Tensor x = walkable(x_);
  const int64_t channels = x.size(1);
  const GramSums sums = gram_sums(x, weight, false);
  Tensor out = allocate(x, {x.size(0), channels, channels}, accumulate_type(x));
  with_accumulate_type(x, [&](auto zero) {
    using T = decltype(zero);
    T* g = static_cast<T*>(out.data_ptr());
    for_each_entry(sums, x.size(0), channels, [&](int64_t b, int64_t i, int64_t j, double s) {
      T* of = g + b * channels * channels;
      of[i * channels + j] = of[j * channels + i] = static_cast<T>(scale * s);
    });
  });
  return out;
}

Tensor gram_backward(const Tensor& grad, const Tensor& x_, std::optional<Tensor> weight, double scale,
                     std::optional<Tensor> shift) {
  features("gram_backward", "x", x_);
  check_matrix("gram_backward", x_, "grad", grad);
  check_weight("gram_backward", x_, weight);
  check_shift("gram_backward", x_, shift);
  const Tensor like = dense(x_), x = walkable(like);
  Tensor out = allocate_like(x);
  Backward options;
  options.factor = scale;
  options.symmetrise = true;
  matrix_backward(x, grad, weight, shift, std::nullopt, false, options, out);
  return in_layout_of(out, like);
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) {
  m.impl("gram", TORCH_BOX(&fastnst::cpu::gram));
  m.impl("gram_backward", TORCH_BOX(&fastnst::cpu::gram_backward));
}
