// gram on the CPU: the sums over positions, and the backward shared by gram, moments and style_loss.
#include "gram.h"

#include <vector>

#include "chunks.h"

namespace fastnst::cpu {
namespace {

constexpr int64_t kMaxSlices = 8;
constexpr int64_t kBlocksPerSlice = 4;  // fewer do not justify a separate workspace
constexpr int64_t kStripsPerGroup = 8;  // fewer strips are also divided by channels
constexpr int64_t kStripsAtOnce = 4;    // per chunk

// Row groups of a triangle grow with their index; the last chunks should be short.
int64_t longest_first(int64_t i, int64_t n) { return n - 1 - i; }

const char* of_batch(const std::optional<Tensor>& values, int64_t b, int64_t count) {
  return values ? static_cast<const char*>(values->data_ptr()) + b * count * element_size(*values) : nullptr;
}

std::optional<Tensor> contiguous_or_none(const std::optional<Tensor>& x) {
  return x ? std::optional<Tensor>(as_contiguous(*x)) : std::nullopt;
}

}  // namespace

void gram_rows(const Tensor& x, const std::optional<Tensor>& weight, bool with_sum,
               const std::function<void(const GramRows&)>& finish) {
  const Features f = features("gram", "x", x);
  const int64_t block = gram_block(f.channels), blocks = (f.positions + block - 1) / block;
  const int64_t groups = (f.channels + kRowsPerTask - 1) / kRowsPerTask;
  const std::optional<Tensor> w = contiguous_or_none(weight);
  const auto task = [&](int64_t b, int64_t group, double* gram, int64_t stride, double* sum) {
    GramTask t;
    t.x = f;
    t.weight = of_batch(w, b, f.positions);
    t.b = b;
    t.row_begin = group * kRowsPerTask;
    t.row_end = std::min(f.channels, t.row_begin + kRowsPerTask);
    t.row_stride = stride;
    t.gram = gram;
    t.sum = with_sum ? sum : nullptr;
    return t;
  };
  const auto done = [](const GramTask& t) {
    return GramRows{t.b, t.row_begin, t.row_end, t.row_stride, t.gram, t.sum};
  };
  // Wide maps have enough groups for all threads; others are also divided into slices of positions. Their number
  // depends on the shape only, and is smaller if the workspace is large.
  const int64_t most = f.channels > kWide ? 1 : f.channels > kWide / 2 ? kMaxSlices / 2 : kMaxSlices;
  const int64_t slices = std::max<int64_t>(1, std::min(most, blocks / kBlocksPerSlice));
  if (slices == 1) {
    for_chunks(f.batch * groups, [&](int64_t i) {
      const int64_t group = longest_first(i % groups, groups);
      const int64_t stride = std::min(f.channels, (group + 1) * kRowsPerTask);
      std::vector<double> gram(static_cast<size_t>(kRowsPerTask * stride), 0.0), sum(kRowsPerTask, 0.0);
      const GramTask t = task(i / groups, group, gram.data(), stride, sum.data());
      kernels().gram(t);
      finish(done(t));
    });
    return;
  }
  const int64_t rows = groups * kRowsPerTask, stride = f.channels;
  Tensor grams = allocate_zeros(x, {f.batch, slices, rows, stride}, ScalarType::Double);
  Tensor sums = allocate_zeros(x, {f.batch, slices, with_sum ? rows : 0}, ScalarType::Double);
  const auto of = [&](int64_t b, int64_t slice, int64_t group) {
    const int64_t row = (b * slices + slice) * rows + group * kRowsPerTask;
    return task(b, group, grams.mutable_data_ptr<double>() + row * stride, stride,
                sums.mutable_data_ptr<double>() + (with_sum ? row : 0));
  };
  for_chunks(f.batch * slices * groups, [&](int64_t i) {
    GramTask t = of(i / groups / slices, i / groups % slices, longest_first(i % groups, groups));
    t.first_block = i / groups % slices;
    t.block_step = slices;
    kernels().gram(t);
  });
  for_chunks(f.batch * groups, [&](int64_t i) {
    const GramTask first = of(i / groups, 0, longest_first(i % groups, groups));
    for (int64_t slice = 1; slice < slices; ++slice) {
      const GramTask next = of(i / groups, slice, longest_first(i % groups, groups));
      for (int64_t k = 0; k < (first.row_end - first.row_begin) * stride; ++k) first.gram[k] += next.gram[k];
      for (int64_t k = 0; next.sum && k < first.row_end - first.row_begin; ++k) first.sum[k] += next.sum[k];
    }
    finish(done(first));
  });
}

void matrix_backward(const Tensor& x, const Tensor& matrix, const std::optional<Tensor>& weight,
                     const std::optional<Tensor>& shift, const std::optional<Tensor>& target, bool add_to_out,
                     const Backward& options, Tensor& out) {
  const Features f = features("gram_backward", "x", x);
  if (x.numel() == 0) return;
  const int64_t channels = f.channels, ld = kernels().padded_channels(f.dtype, channels);
  const int64_t rows = kernels().matrix_rows(f.dtype, channels);
  Tensor ready = as_contiguous(matrix);
  const bool as_it_is = !options.symmetrize && rows == channels && ld == channels &&
                        reinterpret_cast<uintptr_t>(ready.data_ptr()) % 64 == 0;
  if (!as_it_is) {
    const Tensor a = ready;
    ready = allocate(matrix, {f.batch, rows, ld}, accumulate_type(x));
    const std::optional<Tensor> from = a, to = ready;
    for_ranges(f.batch * rows, 32, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        MatrixTask t;
        t.dtype = f.dtype;
        t.a = of_batch(from, i / rows, channels * channels);
        t.out = const_cast<char*>(of_batch(to, i / rows, rows * ld));
        t.symmetrize = options.symmetrize;
        t.channels = channels;
        t.row_begin = i % rows;
        t.row_end = t.row_begin + 1;
        kernels().matrix(t);
      }
    });
  }
  const std::optional<Tensor> m = ready, w = contiguous_or_none(weight), s = contiguous_or_none(shift);
  const int64_t length = strip_length(channels), strips = (f.positions + length - 1) / length;
  const int64_t groups = strips >= kStripsPerGroup ? 1 : (channels + kRowsPerTask - 1) / kRowsPerTask;
  for_ranges(f.batch * groups * strips, kStripsAtOnce, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t part = begin / strips, stop = std::min(end, (part + 1) * strips);
      const int64_t b = part / groups, group = part % groups;
      BackwardTask task;
      task.x = f;
      task.b = b;
      task.begin = (begin - part * strips) * length;
      task.end = std::min(f.positions, (stop - part * strips) * length);
      task.channel_begin = group * kRowsPerTask;
      task.channel_end = groups == 1 ? channels : std::min(channels, task.channel_begin + kRowsPerTask);
      task.matrix = of_batch(m, b, rows * ld);
      task.weight = of_batch(w, b, f.positions);
      task.shift = of_batch(s, b, channels);
      if (target) task.target = target->data_ptr();
      task.out = out.data_ptr();
      if (add_to_out) task.above = task.out;
      task.factor = options.factor;
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
  const Tensor x = with_position_stride(x_);
  const int64_t channels = x.size(1);
  Tensor out = allocate(x, {x.size(0), channels, channels}, accumulate_type(x));
  with_accumulate_type(x, [&](auto zero) {
    using T = decltype(zero);
    T* g = static_cast<T*>(out.data_ptr());
    gram_rows(x, weight, false, [&](const GramRows& rows) {
      T* of = g + rows.b * channels * channels;
      rows.for_each([&](int64_t i, int64_t j, double sum) { of[i * channels + j] = static_cast<T>(scale * sum); });
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
  const Tensor like = dense(x_), x = with_position_stride(like);
  Tensor out = allocate_like(x);
  Backward options;
  options.factor = scale;
  options.symmetrize = true;
  matrix_backward(x, grad, weight, shift, std::nullopt, false, options, out);
  return in_layout_of(out, like);
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) {
  m.impl("gram", TORCH_BOX(&fastnst::cpu::gram));
  m.impl("gram_backward", TORCH_BOX(&fastnst::cpu::gram_backward));
}
