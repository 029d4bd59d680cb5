// Bias, ReLU and max pool in one pass: 3 channels of 5 x 7, NCHW, keeping the activated map; and 16 channels of 4 x 6,
// channels_last, without it.
#include "bias_relu_pool.cuh"
#include "driver.h"

namespace fastnst::kernels {

template <bool kLast>
double pool_error() {
  using emulator::larger;
  using emulator::Memory;
  const int channels = kLast ? 16 : 3, height = kLast ? 4 : 5, width = kLast ? 6 : 7;
  const int count = channels * height * width, windows = channels * (height / 2) * (width / 2);
  Memory<float> given("given", count, Memory<float>::kInput), x("x", count, Memory<float>::kZeros);
  Memory<float> bias("bias", channels, Memory<float>::kInput), y("y", windows, Memory<float>::kOutput);
  Memory<uint8_t> argmax("argmax", windows, Memory<uint8_t>::kOutput);
  std::copy(given.data(), given.data() + count, x.data());
  launch_bias_relu_pool<Pool::kMax, float>(x.data(), bias.data(), y.data(), argmax.data(), {1, channels, height, width},
                                           !kLast, kLast, nullptr);
  const auto at = [&](int c, int h, int w, int rows, int columns) {
    return kLast ? (h * columns + w) * channels + c : (c * rows + h) * columns + w;
  };
  const auto activated = [&](int c, int h, int w) {
    return std::fmax(static_cast<double>(given[at(c, h, w, height, width)]) + bias[c], 0.0);
  };
  double worst = 0;
  for (int c = 0; c < channels; ++c) {
    for (int h = 0; !kLast && h < height; ++h)
      for (int w = 0; w < width; ++w)
        worst = larger(worst, std::fabs(x[at(c, h, w, height, width)] - activated(c, h, w)) / 1e-5);
    for (int h = 0; h < height / 2; ++h)
      for (int w = 0; w < width / 2; ++w) {
        double most = -1;
        int found = 0;
        for (int corner = 0; corner < 4; ++corner) {
          const double value = activated(c, 2 * h + corner / 2, 2 * w + corner % 2);
          if (value > most) found = corner;
          most = std::fmax(most, value);
        }
        const int to = at(c, h, w, height / 2, width / 2);
        worst = larger(worst, std::fabs(y[to] - most) / 1e-5);
        if (argmax[to] != (most > 0 ? found : found + 4)) worst = 2;
      }
  }
  return worst;
}

}  // namespace fastnst::kernels

int main() {
  return emulator::drive(
      [] { return emulator::larger(fastnst::kernels::pool_error<false>(), fastnst::kernels::pool_error<true>()); });
}
