// conv3x3, conv3x3 with max pool, and the backward on the CPU, by Winograd's algorithm. Inputs that are not
// channels_last are copied once; results are channels_last.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "../pool_checks.h"
#include "chunks.h"
#include "kernels.h"
#include "workspace.h"

namespace fastnst::cpu {
namespace {

// Transformed tiles that are shared by all threads, in bytes: half of the last-level cache of most processors. Shared
// weights are read again for every few tiles and should be a smaller part of it.
constexpr int64_t kShared = 16 << 20, kSharedWeights = 6 << 20;
// Tiles that a thread transforms at once if the weights are shared: fewer would read the weights too often.
constexpr int64_t kTilesAtOnce = 3 * ConvTask::kPanel;
// Chunks per thread, so that none waits long for the last.
constexpr int64_t kChunksPerThread = 3;
// Input channels from which tiles of six are exact enough (docs/experiments/winograd.md).
constexpr int64_t kManyChannels = 256;

int64_t ceil_div(int64_t n, int64_t d) { return (n + d - 1) / d; }

// The side of a tile, by the number of products for a square of this width. It does not depend on the height, so that a
// part of the rows has the bits of the whole.
int64_t tile_of(int64_t channels, int64_t width) {
  const int64_t four = ceil_div(width, 4), six = ceil_div(width, 6);
  return channels >= kManyChannels && six * six * 64 < four * four * 36 ? 6 : 4;
}

void check_weights(const char* op, const Tensor& x, const char* name, const Tensor& weight, int64_t axis) {
  check(weight.dim() == 4 && weight.size(axis) == x.size(1) && weight.size(2) == 3 && weight.size(3) == 3, op,
        ": expected weight of shape ", axis == 1 ? "(K, " : "(", x.size(1), axis == 1 ? ", 3, 3)" : ", C, 3, 3)",
        " for the channels of ", name, ", got ", shape_of(weight));
  check(weight.scalar_type() == x.scalar_type(), op, ": expected weight of the dtype of ", name);
  check(!weight.is_cuda(), op, ": expected weight on the device of ", name);
}

// The channels_last maps of a call.
struct Maps {
  Tensor in, out;
  std::optional<Tensor> mask, argmax, out_argmax;
};

// The buffers of a thread.
struct Buffers {
  Buffers(ConvTask& t, int64_t v_bytes, int64_t u_bytes, int64_t m_bytes) : v(v_bytes), u(u_bytes), m(m_bytes) {
    if (v_bytes) t.v = v.data();
    if (u_bytes) t.u = u.data();
    if (m_bytes) t.m = m.data();
  }
  Workspace v, u, m;
};

// Transforms all weights once; then every chunk transforms and multiplies some tiles.
void share_weights(const ConvTask& task, int64_t tiles, int64_t blocks) {
  const int64_t runs = task.runs(), size = kernels().conv_sizes(task).u;
  const Workspace shared(blocks * runs * size);
  const auto weights = [&](int64_t block, int64_t run) {
    return static_cast<char*>(shared.data()) + (block * runs + run) * size;
  };
  for_chunks(blocks * runs, [&](int64_t i) {
    ConvTask t = task;
    t.u = weights(i / runs, i % runs);
    kernels().conv_weights(t, i / runs, i % runs);
  });
  const int64_t threads = torch::stable::get_num_threads(), panels = ceil_div(tiles, ConvTask::kPanel);
  const int64_t chunks = std::max(ceil_div(tiles, kTilesAtOnce), std::min(panels, kChunksPerThread * threads));
  for_chunks_with(chunks, [&] {
    ConvTask t = task;
    t.v_rows = t.m_rows = ceil_div(panels, chunks) * ConvTask::kPanel;
    const ConvSizes sizes = kernels().conv_sizes(t);
    Buffers buffers(t, sizes.v, 0, sizes.m);
    return [&, t, buffers = std::move(buffers)](int64_t i) mutable {
      const int64_t first = i * panels / chunks * ConvTask::kPanel, end = (i + 1) * panels / chunks * ConvTask::kPanel;
      t.v_first = first;
      kernels().conv_input(t, first, end);
      for (int64_t block = 0; block < blocks; ++block) {
        for (int64_t run = 0; run < runs; ++run) {
          t.u = weights(block, run);
          kernels().conv_products(t, block, run, first, std::min(tiles, end));
        }
        kernels().conv_outputs(t, block, first, std::min(tiles, end));
      }
    };
  });
}

// Transforms many tiles; then every chunk transforms one block of weights and multiplies it with all or some of them.
void share_tiles(const ConvTask& task, int64_t tiles, int64_t blocks) {
  const int64_t threads = torch::stable::get_num_threads(), panels = ceil_div(tiles, ConvTask::kPanel);
  const int64_t rounds = ceil_div(panels, std::max<int64_t>(1, kShared / kernels().conv_sizes(task).v));
  ConvTask all = task;
  all.v_rows = ceil_div(panels, rounds) * ConvTask::kPanel;
  const Workspace shared(kernels().conv_sizes(all).v);
  all.v = shared.data();
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t first = round * panels / rounds, count = (round + 1) * panels / rounds - first;
    all.v_first = first * ConvTask::kPanel;
    for_chunks(count, [&](int64_t i) {
      kernels().conv_input(all, (first + i) * ConvTask::kPanel, (first + i + 1) * ConvTask::kPanel);
    });
    const int64_t parts = std::clamp<int64_t>(kChunksPerThread * threads / blocks, 1, count);
    for_chunks_with(blocks * parts, [&] {
      ConvTask t = all;
      t.m_rows = ceil_div(count, parts) * ConvTask::kPanel;
      const ConvSizes sizes = kernels().conv_sizes(t);
      Buffers buffers(t, 0, sizes.u, sizes.m);
      return [&, t, buffers = std::move(buffers)](int64_t i) {
        const int64_t block = i / parts, part = i % parts, begin = (first + part * count / parts) * ConvTask::kPanel;
        const int64_t end = std::min(tiles, (first + (part + 1) * count / parts) * ConvTask::kPanel);
        for (int64_t run = 0; run < t.runs(); ++run) {
          kernels().conv_weights(t, block, run);
          kernels().conv_products(t, block, run, begin, end);
        }
        kernels().conv_outputs(t, block, begin, end);
      };
    });
  }
}

// Computes the tiles of all images. The smaller of the transformed weights and tiles is shared by the threads. Neither
// the choice nor the partition affects results.
void run(ConvTask task, const Maps& maps) {
  task.batch = maps.in.size(0);
  // In float64 and float16 tiles of six would only make the module larger.
  const bool usual = task.dtype == ScalarType::Float || task.dtype == ScalarType::BFloat16;
  task.tile = usual ? tile_of(task.channels, task.width) : 4;
  const int64_t tiles = ceil_div(task.out_height, task.tile) * ceil_div(task.out_width, task.tile) * task.batch;
  if (tiles == 0 || task.outputs == 0) return;
  const std::vector<double> zeros(static_cast<size_t>(task.channels) + 64);
  task.zeros = zeros.data();
  task.x = maps.in.data_ptr();
  task.out = maps.out.data_ptr();
  if (maps.mask) task.mask = maps.mask->data_ptr();
  if (maps.argmax) task.argmax = static_cast<const uint8_t*>(maps.argmax->data_ptr());
  if (maps.out_argmax) task.out_argmax = static_cast<uint8_t*>(maps.out_argmax->data_ptr());
  const int64_t blocks = ceil_div(task.outputs, ConvTask::kColumns);
  task.v_rows = ConvTask::kPanel;
  const ConvSizes sizes = kernels().conv_sizes(task);
  const int64_t of_weights = blocks * task.runs() * sizes.u, of_tiles = ceil_div(tiles, ConvTask::kPanel) * sizes.v;
  if (of_weights <= kSharedWeights && of_weights <= of_tiles) {
    share_weights(task, tiles, blocks);
  } else {
    share_tiles(task, tiles, blocks);
  }
}

// The padding of rows or columns by name.
Border border_of(const char* op, const std::string& name) {
  if (name == "zeros") return Border::kZeros;
  if (name == "replicate") return Border::kReplicate;
  if (name == "circular") return Border::kCircular;
  check(name == "reflect", op, ": expected padding zeros, replicate, circular or reflect, got ", name);
  return Border::kReflect;
}

ConvTask forward_task(const char* op, const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                      bool relu, const std::string& padding) {
  check_map(op, "x", x);
  check_weights(op, x, "x", weight, 1);
  ConvTask t;
  t.dtype = x.scalar_type();
  t.relu = relu;
  const size_t comma = padding.find(',');  // "rows,columns", or one name for both
  t.rows = border_of(op, padding.substr(0, comma));
  t.columns = comma == std::string::npos ? t.rows : border_of(op, padding.substr(comma + 1));
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
