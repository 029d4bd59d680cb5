// The transforms of Winograd's minimal filtering F(n x n, 3 x 3) in one dimension. Lavin and Gray, "Fast algorithms for
// convolutional neural networks", CVPR 2016. No include guard: see kernels_impl.h.
//
// Points come in pairs +-a, so that the even and the odd terms of a polynomial are computed once for both.

namespace fastnst::cpu::FASTNST_ISA {

template <typename V, typename T>
inline void plus_minus(V even, V odd, T a, V* y) {
  y[0] = even + a * odd;
  y[1] = even - a * odd;
}

template <int64_t kTile>
struct Points;

// 0, +-sqrt(1/2), +-sqrt(2) and infinity: factors near 1, half the rounding error of the usual 0, +-1, +-2
// (docs/experiments/winograd.md).
template <>
struct Points<4> {
  static constexpr double kRootHalf = 0.70710678118654752440, kRootTwo = 1.41421356237309504880;

  // y = B^T d: six values to the six points.
  template <typename T>
  static void of_input(const Vector<T> d[6], Vector<T> y[6]) {
    y[0] = d[0] - T(2.5) * d[2] + d[4];
    plus_minus(d[4] - 2 * d[2], d[3] - 2 * d[1], T(kRootHalf), y + 1);
    plus_minus(d[4] - T(0.5) * d[2], d[3] - T(0.5) * d[1], T(kRootTwo), y + 3);
    y[5] = d[1] - T(2.5) * d[3] + d[5];
  }

  // y = G w: three weights to the six points. 1 / (2 a^2 (a^2 - b^2)) = -2/3 and 1 / (2 b^2 (b^2 - a^2)) = 1/6.
  template <typename T>
  static void of_weights(const Vector<T> w[3], Vector<T> y[6]) {
    const T third = T(1) / 3, sixth = T(1) / 6;
    y[0] = w[0];
    plus_minus(-2 * third * w[0] - third * w[2], w[1], T(-2.0 / 3 * kRootHalf), y + 1);
    plus_minus(sixth * w[0] + third * w[2], w[1], T(kRootTwo / 6), y + 3);
    y[5] = w[2];
  }

  // y = A^T m: six points to four outputs.
  template <typename T>
  static void to_outputs(const Vector<T> m[6], Vector<T> y[4]) {
    const T a = T(kRootHalf), b = T(kRootTwo);
    const Vector<T> even_a = m[1] + m[2], odd_a = a * (m[1] - m[2]), even_b = m[3] + m[4], odd_b = b * (m[3] - m[4]);
    y[0] = m[0] + even_a + even_b;
    y[1] = odd_a + odd_b;
    y[2] = T(0.5) * even_a + 2 * even_b;
    y[3] = T(0.5) * odd_a + 2 * odd_b + m[5];
  }
};

// 0, +-1/2, +-1, +-2 and infinity. All factors of the input and of the outputs are exact; other points have no smaller
// error (docs/experiments/winograd.md).
template <>
struct Points<6> {
  template <typename T>
  static void of_input(const Vector<T> d[8], Vector<T> y[8]) {
    y[0] = (d[6] - d[0]) + T(5.25) * (d[2] - d[4]);
    plus_minus(d[6] - 5 * d[4] + 4 * d[2], d[5] - 5 * d[3] + 4 * d[1], T(0.5), y + 1);
    plus_minus(d[6] - T(4.25) * d[4] + d[2], d[5] - T(4.25) * d[3] + d[1], T(1), y + 3);
    plus_minus(d[6] - T(1.25) * d[4] + T(0.25) * d[2], d[5] - T(1.25) * d[3] + T(0.25) * d[1], T(2), y + 5);
    y[7] = (d[7] - d[1]) + T(5.25) * (d[3] - d[5]);
  }

  template <typename T>
  static void of_weights(const Vector<T> w[3], Vector<T> y[8]) {
    y[0] = -w[0];
    plus_minus(T(32.0 / 45) * w[0] + T(8.0 / 45) * w[2], w[1], T(16.0 / 45), y + 1);
    plus_minus(T(-2.0 / 9) * (w[0] + w[2]), w[1], T(-2.0 / 9), y + 3);
    plus_minus(T(1.0 / 90) * w[0] + T(2.0 / 45) * w[2], w[1], T(1.0 / 45), y + 5);
    y[7] = w[2];
  }

  template <typename T>
  static void to_outputs(const Vector<T> m[8], Vector<T> y[6]) {
    const Vector<T> even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
    const Vector<T> even_c = m[5] + m[6], odd_c = m[5] - m[6];
    y[0] = m[0] + even_a + even_b + even_c;
    y[1] = T(0.5) * odd_a + odd_b + 2 * odd_c;
    y[2] = T(0.25) * even_a + even_b + 4 * even_c;
    y[3] = T(0.125) * odd_a + odd_b + 8 * odd_c;
    y[4] = T(0.0625) * even_a + even_b + 16 * even_c;
    y[5] = T(0.03125) * odd_a + odd_b + 32 * odd_c + m[7];
  }
};

}  // namespace fastnst::cpu::FASTNST_ISA
