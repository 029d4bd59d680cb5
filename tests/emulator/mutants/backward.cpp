// The backward of a layer with losses on tensor cores: 72 channels, 100 positions, with an incoming gradient and a
// mask.
#include "backward.cuh"

#include "driver.h"

namespace fastnst::kernels {

double backward_error() {
  using emulator::larger;
  using emulator::Memory;
  const int64_t channels = 72, positions = 100, padded = padded_channels(BackwardPath::kRows, channels);
  const auto count = static_cast<size_t>(channels * positions);
  Memory<float> x("x", count, Memory<float>::kInput), above("above", count, Memory<float>::kInput);
  Memory<float> matrix("matrix", padded * padded, Memory<float>::kInput), out("out", count, Memory<float>::kOutput);
  const FeatureMap<float> map{x.data(), 1, channels, positions, channels * positions, positions, 1};
  BackwardTask<float> task{};
  task.matrix = matrix.data();
  task.padded = padded;
  task.factor = 1;
  task.above = above.data();
  task.relu = true;
  task.out = out.data();
  launch_backward_tiles<float, Load::kRows, Multiply::kTf32x3, 4, false>(map, task, nullptr);
  double worst = 0;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t n = 0; n < positions; ++n) {
      double sum = above[c * positions + n], size = std::fabs(sum);
      for (int64_t k = 0; k < channels; ++k) {
        const double product = static_cast<double>(matrix[c * padded + k]) * x[k * positions + n];
        sum += product;
        size += std::fabs(product);
      }
      if (x[c * positions + n] <= 0) sum = 0;
      worst = larger(worst, std::fabs(out[c * positions + n] - sum) / (1e-5 * size));
    }
  return worst;
}

}  // namespace fastnst::kernels

int main() { return emulator::drive(fastnst::kernels::backward_error); }
