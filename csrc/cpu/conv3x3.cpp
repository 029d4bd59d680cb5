// conv3x3, conv3x3 with max pool, and the backward on the CPU, by Winograd's algorithm. Inputs that are not
// channels_last are copied once; results are channels_last.
#include <algorithm>
#include <cstring>
#include <string>

#include "../pool_checks.h"
#include "kernels.h"

namespace fastnst::cpu {
namespace {

// Panels in cache at once: few if the transformed weights of a layer are kept. If they are recomputed for every block,
// as many as fit into the last-level cache with the weights, to amortize the transform.
constexpr int64_t kFewPanels = 2, kMaxPanels = 11;

int64_t tiles_along(int64_t size) { return (size + ConvTask::kTile - 1) / ConvTask::kTile; }

void check_weights(const char* op, const Tensor& x, const char* name, const Tensor& weight, int64_t axis) {
  check(weight.dim() == 4 && weight.size(axis) == x.size(1) && weight.size(2) == 3 && weight.size(3) == 3, op,
        ": expected weight of shape ", axis == 1 ? "(K, " : "(", x.size(1), axis == 1 ? ", 3, 3)" : ", C, 3, 3)",
        " for the channels of ", name, ", got ", shape_of(weight));
  check(weight.scalar_type() == x.scalar_type(), op, ": expected weight of the dtype of ", name);
  check(!weight.is_cuda(), op, ": expected weight on the device of ", name);
}

template <typename T>
T* image(const Tensor& x, int64_t b) {
  return x.data_ptr() ? reinterpret_cast<T*>(static_cast<char*>(x.data_ptr()) +
                                             b * x.size(1) * x.size(2) * x.size(3) *
                                                 (x.scalar_type() == ScalarType::Byte ? 1 : element_size(x)))
                      : nullptr;
}

// The channels_last maps of a call.
struct Maps {
  Tensor in, out;
  std::optional<Tensor> mask, argmax, out_argmax;
};

// Distributes the tiles of all images over the threads, and the output channels as well if there are few tiles. The
// partition does not affect results.
void run(const ConvTask& task, const Maps& maps) {
  const int64_t tiles = tiles_along(task.out_height) * tiles_along(task.out_width), batch = maps.in.size(0);
  if (tiles == 0 || batch == 0 || task.outputs == 0) return;
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t panels = (tiles + ConvTask::kPanel - 1) / ConvTask::kPanel, all = panels * batch;
  const int64_t most = task.channels * task.outputs > ConvTask::kMaxKept ? kMaxPanels : kFewPanels;
  const int64_t shares = std::min(threads, all);
  const int64_t groups = (task.outputs + ConvTask::kColumns - 1) / ConvTask::kColumns;
  const int64_t parts = std::min(groups, std::max<int64_t>(1, threads / shares));
  torch::stable::parallel_for(0, shares * parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t share = i / parts, part = i % parts;
      int64_t panel = share * all / shares;
      const int64_t last = (share + 1) * all / shares;
      while (panel < last) {
        const int64_t b = panel / panels, first = panel % panels, count = std::min(last - panel, panels - first);
        const int64_t blocks = (count + most - 1) / most;
        ConvTask t = task;
        t.block = (count + blocks - 1) / blocks * ConvTask::kPanel;
        t.first_tile = first * ConvTask::kPanel;
        t.last_tile = std::min(tiles, (first + count) * ConvTask::kPanel);
        t.first_output = part * groups / parts * ConvTask::kColumns;
        t.last_output = std::min(task.outputs, (part + 1) * groups / parts * ConvTask::kColumns);
        t.x = image<const void>(maps.in, b);
        t.out = image<void>(maps.out, b);
        if (maps.mask) t.mask = image<const void>(*maps.mask, b);
        if (maps.argmax) t.argmax = image<const uint8_t>(*maps.argmax, b);
        if (maps.out_argmax) t.out_argmax = image<uint8_t>(*maps.out_argmax, b);
        kernels().winograd(t);
        panel += count;
      }
    }
  });
}

ConvTask forward_task(const char* op, const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                      bool relu, const std::string& padding) {
  check_map(op, "x", x);
  check_weights(op, x, "x", weight, 1);
  check(padding == "zeros" || padding == "replicate", op, ": expected padding zeros or replicate, got ", padding);
  ConvTask t;
  t.dtype = x.scalar_type();
  t.relu = relu;
  t.replicate = padding == "replicate";
  t.pad = 1;
  t.weight = weight.data_ptr();
  t.weight_output = weight.stride(0);
  t.weight_channel = weight.stride(1);
  t.weight_row = weight.stride(2);
  t.weight_column = weight.stride(3);
  if (bias) {
    check(bias->dim() == 1 && bias->size(0) == weight.size(0), op, ": expected bias of shape (", weight.size(0),
          ",), got ", shape_of(*bias));
    check(bias->scalar_type() == x.scalar_type() && !bias->is_cuda(), op,
          ": expected bias of the dtype and device of x");
    check(bias->stride(0) == 1 || bias->size(0) <= 1, op, ": expected bias contiguous");
    t.bias = bias->data_ptr();
  }
  t.channels = x.size(1);
  t.outputs = weight.size(0);
  t.height = t.out_height = x.size(2);
  t.width = t.out_width = x.size(3);
  return t;
}

// Checks an output: a channels_last map of the given size.
void check_out(const char* op, const char* name, const Tensor& out, const Tensor& like, int64_t outputs, int64_t height,
               int64_t width, ScalarType dtype) {
  check(out.dim() == 4 && out.size(0) == like.size(0) && out.size(1) == outputs && out.size(2) == height &&
            out.size(3) == width,
        op, ": expected ", name, " of shape (", like.size(0), ", ", outputs, ", ", height, ", ", width, "), got ",
        shape_of(out));
  check(out.scalar_type() == dtype && !out.is_cuda() && (out.numel() == 0 || is_channels_last(out)), op, ": expected ",
        name, " channels_last, on the CPU, of dtype ", dtype == ScalarType::Byte ? "uint8" : "that of the input");
}

// Restricts a task to `rows` rows of its output from row `first`, which must be between `low` and `high`.
void write_rows(const char* op, ConvTask& task, int64_t first, int64_t rows, int64_t low, int64_t high) {
  check(rows == 0 || (low <= first && first + rows <= high), op, ": expected rows from ", low, " to ", high, ", got ",
        first, " to ", first + rows);
  task.first_row = first;
  task.out_height = rows;
}

int64_t rows_of(const Tensor& out) { return out.dim() == 4 ? out.size(2) : 0; }

void conv3x3_out(const Tensor& x, const Tensor& weight, std::optional<Tensor> bias, bool relu, std::string padding,
                 int64_t first, const Tensor& out) {
  ConvTask task = forward_task("conv3x3", x, weight, bias, relu, padding);
  write_rows("conv3x3", task, first, rows_of(out), 0, task.height);
  check_out("conv3x3", "out", out, x, task.outputs, task.out_height, task.width, task.dtype);
  run(task, {laid_out(x, true), out, {}, {}, {}});
}

Tensor conv3x3(const Tensor& x, const Tensor& weight, std::optional<Tensor> bias, bool relu, std::string padding) {
  const ConvTask task = forward_task("conv3x3", x, weight, bias, relu, padding);
  const Tensor out = new_channels_last(x, task.outputs, task.height, task.width, task.dtype);
  run(task, {laid_out(x, true), out, {}, {}, {}});
  return out;
}

void conv3x3_pool_out(const Tensor& x, const Tensor& weight, const Tensor& bias, std::string padding, int64_t first,
                      const Tensor& out, const Tensor& argmax) {
  const char* op = "conv3x3_pool_out";
  ConvTask task = forward_task(op, x, weight, bias, true, padding);
  write_rows(op, task, first, 2 * rows_of(out), 0, task.height);
  task.out_width = task.width / 2 * 2;  // an odd last column is in no window
  check_out(op, "out", out, x, task.outputs, task.out_height / 2, task.width / 2, task.dtype);
  check_out(op, "argmax", argmax, x, task.outputs, task.out_height / 2, task.width / 2, ScalarType::Byte);
  run(task, {laid_out(x, true), out, {}, {}, argmax});
}

ConvTask backward_task(const Tensor& grad, const Tensor& weight, bool pooled, int64_t height, int64_t width,
                       bool border) {
  const char* op = "conv3x3_backward";
  check_map(op, "grad", grad);
  check_weights(op, grad, "grad", weight, 0);
  const int64_t rows = pooled ? height / 2 : height, columns = pooled ? width / 2 : width;
  check(height >= 0 && width >= 0 && grad.size(2) == rows && grad.size(3) == columns, op,
        ": expected grad of shape (B, K, ", rows, ", ", columns, "), got ", shape_of(grad));
  ConvTask task;
  task.dtype = grad.scalar_type();
  task.pad = border ? 2 : 1;
  // The transposed convolution: channels are exchanged, and the kernel is rotated by 180 degrees.
  task.weight_output = weight.stride(1);
  task.weight_channel = weight.stride(0);
  task.weight_row = -weight.stride(2);
  task.weight_column = -weight.stride(3);
  if (weight.numel())
    task.weight =
        static_cast<char*>(weight.data_ptr()) + 2 * (weight.stride(2) + weight.stride(3)) * element_size(grad);
  task.channels = grad.size(1);
  task.outputs = weight.size(1);
  task.height = height;
  task.width = width;
  task.out_height = border ? height + 2 : height;
  task.out_width = border ? width + 2 : width;
  return task;
}

void run_backward(const ConvTask& task, const Tensor& grad, const std::optional<Tensor>& mask,
                  const std::optional<Tensor>& argmax, const Tensor& out) {
  const char* op = "conv3x3_backward";
  Maps maps{laid_out(grad, true), out, {}, {}, {}};
  if (argmax) {
    check(same_sizes(*argmax, grad) && argmax->scalar_type() == ScalarType::Byte, op, ": expected argmax of shape ",
          shape_of(grad), " like grad and dtype uint8, got ", shape_of(*argmax));
    maps.argmax = laid_out(*argmax, true);
  }
  if (mask) {
    check(same_sizes(*mask, out) && mask->scalar_type() == task.dtype, op, ": expected mask of shape ", shape_of(out),
          " and the dtype of grad, got ", shape_of(*mask));
    maps.mask = laid_out(*mask, true);
  }
  if (grad.numel() == 0) {
    if (out.numel()) std::memset(out.data_ptr(), 0, static_cast<size_t>(out.numel() * element_size(out)));
    return;
  }
  run(task, maps);
}

void conv3x3_backward_out(const Tensor& grad, const Tensor& weight, std::optional<Tensor> mask,
                          std::optional<Tensor> argmax, int64_t height, int64_t width, bool border, int64_t first,
                          const Tensor& out) {
  ConvTask task = backward_task(grad, weight, argmax.has_value(), height, width, border);
  // The padding rows above and below the map also have gradients; with `border` they are rows of the output.
  write_rows("conv3x3_backward", task, first, rows_of(out), border ? 0 : -1, border ? height + 2 : height + 1);
  check_out("conv3x3_backward", "out", out, grad, task.outputs, task.out_height, task.out_width, task.dtype);
  run_backward(task, grad, mask, argmax, out);
}

Tensor conv3x3_backward(const Tensor& grad, const Tensor& weight, std::optional<Tensor> mask,
                        std::optional<Tensor> argmax, int64_t height, int64_t width, bool border) {
  const ConvTask task = backward_task(grad, weight, argmax.has_value(), height, width, border);
  const Tensor out = new_channels_last(grad, task.outputs, task.out_height, task.out_width, task.dtype);
  run_backward(task, grad, mask, argmax, out);
  return out;
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) {
  m.impl("conv3x3", TORCH_BOX(&fastnst::cpu::conv3x3));
  m.impl("conv3x3_out", TORCH_BOX(&fastnst::cpu::conv3x3_out));
  m.impl("conv3x3_pool_out", TORCH_BOX(&fastnst::cpu::conv3x3_pool_out));
  m.impl("conv3x3_backward", TORCH_BOX(&fastnst::cpu::conv3x3_backward));
  m.impl("conv3x3_backward_out", TORCH_BOX(&fastnst::cpu::conv3x3_backward_out));
}
