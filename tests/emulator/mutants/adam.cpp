// Three steps of Adam for an image of three blocks, the second with a gradient that is not finite in the last block: it
// does not count.
#include "adam.cuh"

#include "driver.h"

namespace fastnst::kernels {

double adam_error() {
  using emulator::larger;
  using emulator::Memory;
  constexpr int kCount = 9000;
  using M = Memory<float>;
  M image("image", kCount, M::kZeros), good("good", kCount, M::kZeros), mean("mean", kCount, M::kZeros);
  M square("square", kCount, M::kZeros), gradient("gradient", kCount, M::kInput), losses("losses", 2, M::kInput);
  M wrong("wrong", kCount, M::kZeros);
  Memory<double> values("values", 3, Memory<double>::kOutput), factors("factors", 8, Memory<double>::kZeros);
  Memory<double> rate("rate", 1, Memory<double>::kZeros);
  const double table[] = {0, 1, 10, 0.1, 5, 0.2, 4, 0.3};
  std::copy(table, table + 8, factors.data());
  *rate.data() = 0.5;
  std::copy(gradient.data(), gradient.data() + kCount, wrong.data());
  wrong.data()[kCount - 1] = std::numeric_limits<float>::infinity();
  Memory<int> count("count", 1, Memory<int>::kZeros);
  const auto step = [&](float* by) {
    Memory<int> scratch("scratch", kMaxBlocks + 1, Memory<int>::kOutput);
    const AdamTensors<float> tensors{image.data(), good.data(), mean.data(), square.data(), by, kCount};
    const AdamLosses of{losses.data(), nullptr, values.data(), 2};
    const AdamSchedule schedule{count.data(), factors.data(), rate.data(), 3};
    const int blocks = launch_adam_check(tensors, of, schedule, scratch.data(), nullptr);
    launch_adam_update(tensors, of, schedule, {0.5, 0.75, 1e-3, 1.0, false}, scratch.data(), blocks, nullptr);
  };
  step(gradient.data());
  step(wrong.data());
  if (values[2] != 0) return 2;
  step(gradient.data());
  if (values[2] != 1 || *count.data() != 2) return 2;
  double worst = 0;
  for (int i = 0; i < kCount; ++i) {
    const double g = gradient[i];
    double x = 0, last = 0, m = 0, v = 0;
    for (int t = 1; t <= 2; ++t) {
      last = x;
      m = 0.5 * m + 0.5 * g;
      v = 0.75 * v + 0.25 * g * g;
      x -= 0.5 * table[2 * t] * m / (std::sqrt(v) / table[2 * t + 1] + 1e-3);
    }
    worst = larger(worst, std::fabs(image[i] - x) / 1e-4);
    worst = larger(worst, std::fabs(good[i] - last) / 1e-4);
  }
  return worst;
}

}  // namespace fastnst::kernels

int main() { return emulator::drive(fastnst::kernels::adam_error); }
