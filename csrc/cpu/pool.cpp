// pool and pool_backward on the CPU, in both memory layouts.
#include <cstring>
#include <string>
#include <tuple>
#include <utility>

#include "../pool_checks.h"
#include "chunks.h"
#include "kernels.h"

namespace fastnst::cpu {
namespace {

Pool pool_of(const char* op, const std::string& kind) {
  if (kind == "max") return Pool::kMax;
  if (kind == "average") return Pool::kAverage;
  check(kind == "l2", op, ": expected kind max, average or l2, got ", kind);
  return Pool::kL2;
}

// Maps of height x width: B with C values per pixel if channels_last, else B * C with one. Those of even height are one
// tall map.
struct Maps {
  Maps(int64_t batch, int64_t channels, int64_t h, int64_t w, bool channels_last)
      : count(channels_last ? batch : batch * channels), height(h), width(w), inner(channels_last ? channels : 1) {
    if (h % 2 == 0) height = h * std::exchange(count, 1);
  }
  int64_t count, height, width, inner;

  int64_t pooled_row() const { return width / 2 * inner; }
  int64_t across() const { return width * inner; }

  // Calls f(task, input, pooled) for pairs of rows, with the offsets of the first pair and of its row of windows: each
  // pair if channels_last, else all of a map that a thread has.
  template <typename F>
  void for_each_task(PoolTask task, bool channels_last, const F& f) const {
    task.inner = channels_last ? inner : width / 2;
    task.step = channels_last ? 1 : 2;
    task.window = channels_last ? 2 * inner : 2 * across();
    task.right = inner;
    task.down = across();
    const int64_t rows = height / 2, grain = std::max<int64_t>(1, kElementBlock / (2 * across()));
    for_ranges(count * rows, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin, taken; i < end; i += taken) {
        taken = channels_last ? 1 : std::min(end - i, rows - i % rows);
        PoolTask part = task;
        part.count = channels_last ? width / 2 : taken;
        f(part, (i / rows * height + i % rows * 2) * across(), i * pooled_row());
      }
    });
  }
};

char* at(const Tensor& x, int64_t index) { return static_cast<char*>(x.data_ptr()) + index * element_size(x); }
uint8_t* place_at(const Tensor& argmax, int64_t index) { return static_cast<uint8_t*>(argmax.data_ptr()) + index; }

std::tuple<Tensor, Tensor> pool(const Tensor& x_, std::string kind) {
  check_map("pool", "x", x_);
  const bool last = output_is_channels_last(x_);
  const Tensor x = laid_out(x_, last);
  PoolTask task;
  task.kind = pool_of("pool", kind);
  task.dtype = x.scalar_type();
  Tensor y = new_map(x, x.size(2) / 2, x.size(3) / 2, x.scalar_type(), last);
  Tensor argmax = new_argmax(x, kind, last);
  if (y.numel() == 0) return {y, argmax};
  const Maps maps(x.size(0), x.size(1), x.size(2), x.size(3), last);
  maps.for_each_task(task, last, [&](PoolTask t, int64_t input, int64_t pooled) {
    t.x = at(x, input);
    t.pooled = at(y, pooled);
    if (t.kind == Pool::kMax) t.argmax = place_at(argmax, pooled);
    kernels().pool(t);
  });
  return {y, argmax};
}

// Writes zeros outside all windows: the last row and column of a map of odd size.
void clear_edges(const Tensor& out, const Maps& maps) {
  const size_t bytes = static_cast<size_t>(element_size(out));
  for (int64_t m = 0; m < maps.count; ++m) {
    const int64_t map = m * maps.height * maps.across();
    if (maps.height % 2) std::memset(at(out, map + (maps.height - 1) * maps.across()), 0, bytes * maps.across());
    for (int64_t row = 0; maps.width % 2 && row < maps.height; ++row)
      std::memset(at(out, map + (row + 1) * maps.across() - maps.inner), 0, bytes * maps.inner);
  }
}

Tensor pool_backward(const Tensor& grad_, std::optional<Tensor> x, std::optional<Tensor> y,
                     std::optional<Tensor> argmax, std::string kind, int64_t height, int64_t width, bool relu) {
  check_pooled(grad_, kind, height, width, relu);
  const bool last = output_is_channels_last(grad_);
  const Tensor grad = laid_out(grad_, last);
  const ScalarType dtype = grad.scalar_type();
  PoolTask task;
  task.kind = pool_of("pool_backward", kind);
  task.dtype = dtype;
  task.relu = relu;
  std::optional<Tensor> input, output, where;
  if (kind == "max") where = needed("argmax", grad, argmax, height / 2, width / 2, ScalarType::Byte, last);
  if (kind == "l2") input = needed("x", grad, x, height, width, dtype, last);
  if (kind == "l2") output = needed("y", grad, y, height / 2, width / 2, dtype, last);
  Tensor out = new_map(grad, height, width, dtype, last);
  if (out.numel() == 0) return out;
  const Maps maps(grad.size(0), grad.size(1), height, width, last);
  clear_edges(out, maps);
  if (grad.numel() == 0) return out;
  maps.for_each_task(task, last, [&](PoolTask t, int64_t row, int64_t pooled) {
    t.out = at(out, row);
    t.pooled = at(grad, pooled);
    if (where) t.argmax = place_at(*where, pooled);
    if (input) t.x = at(*input, row);
    if (output) t.y = at(*output, pooled);
    kernels().pool_backward(t);
  });
  return out;
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) {
  m.impl("pool", TORCH_BOX(&fastnst::cpu::pool));
  m.impl("pool_backward", TORCH_BOX(&fastnst::cpu::pool_backward));
}
