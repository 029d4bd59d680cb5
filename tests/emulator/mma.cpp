// mma.sync: exact products, summed in double, then rounded towards zero. Tensor cores also cut each product where it is
// aligned with the largest, which errs a little more.
#include "runtime.h"

namespace emulator {

void mma(float* d, const uint32_t* a, const uint32_t* b, void (*multiply)(Warp&), Mma kind, const void* pc);

namespace {

float toward_zero(double x) {
  const auto rounded = static_cast<float>(x);
  return std::fabs(static_cast<double>(rounded)) > std::fabs(x) ? std::nextafterf(rounded, 0.f) : rounded;
}

// d += a b for 16 x k and k x 8.
template <int kDepth>
void multiply(Warp& warp, const double (&a)[16][kDepth], const double (&b)[kDepth][8]) {
  double d[16][8];
  const auto each = [&](auto visit) {
    for (int lane = 0; lane < kLanes; ++lane)
      for (int i = 0; i < 4; ++i) visit(warp.d[lane][i], d[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2]);
  };
  each([](float& held, double& sum) { sum = held; });
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < kDepth; ++k)
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
  each([](float& held, double& sum) { held = toward_zero(sum); });
}

void multiply_tf32(Warp& warp) {
  double a[16][8], b[8][8];
  const auto value = [](uint32_t bits) { return static_cast<double>(__uint_as_float(bits & 0xffffe000u)); };
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) a[g + i % 2 * 8][t + i / 2 * 4] = value(warp.a[lane][i]);
    for (int i = 0; i < 2; ++i) b[t + i * 4][g] = value(warp.b[lane][i]);
  }
  multiply<8>(warp, a, b);
}

template <typename H, float kWiden(H)>
void multiply_half(Warp& warp) {
  double a[16][16], b[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int part = 0; part < 2; ++part) {
      const auto value = [part](uint32_t word) {
        return static_cast<double>(kWiden(H{static_cast<uint16_t>(word >> 16 * part)}));
      };
      for (int i = 0; i < 4; ++i) a[g + i % 2 * 8][2 * t + part + i / 2 * 8] = value(warp.a[lane][i]);
      for (int i = 0; i < 2; ++i) b[2 * t + part + i * 8][g] = value(warp.b[lane][i]);
    }
  }
  multiply<16>(warp, a, b);
}

}  // namespace
}  // namespace emulator

namespace fastnst::kernels {

using namespace emulator;

void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma(d, a, b, multiply_tf32, Mma::kTf32, __builtin_return_address(0));
}
void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma(d, a, b, multiply_half<__nv_bfloat16, __bfloat162float>, Mma::kBf16, __builtin_return_address(0));
}
void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma(d, a, b, multiply_half<__half, __half2float>, Mma::kF16, __builtin_return_address(0));
}

}  // namespace fastnst::kernels
