// Total variation of one plane. With the differences r and d to the right and lower neighbor (zero at the border), a
// pixel contributes |r| + |d|, sqrt(r^2 + d^2) or r^2 + d^2. The subgradient at a zero difference is zero.

namespace fastnst::cpu::FASTNST_ISA {

template <Variation kind, typename T>
inline T pixel_variation(T right, T down) {
  if constexpr (kind == Variation::kAnisotropic) return std::abs(right) + std::abs(down);
  if constexpr (kind == Variation::kSquared) return right * right + down * down;
  return std::sqrt(right * right + down * down);
}

template <typename T>
inline T sign(T x) {
  return static_cast<T>((x > 0) - (x < 0));
}

// The derivative of a pixel's variation with respect to `own`, one of its two differences; `other` is the second.
template <Variation kind, typename T>
inline T derivative(T own, T other) {
  if constexpr (kind == Variation::kAnisotropic) return sign(own);
  if constexpr (kind == Variation::kSquared) return 2 * own;
  const T length = std::sqrt(own * own + other * other);
  return length == 0 ? T(0) : own / length;  // NaN is kept
}

// kUnit: pixels of a row are neighbors in memory, which lets the compiler vectorize.
template <typename In, bool kUnit>
struct Plane {
  using T = Compute<In>;
  const In* x;
  int64_t height, width, row_stride, column_stride;

  explicit Plane(const PlaneTask& t)
      : x(static_cast<const In*>(t.x)),
        height(t.height),
        width(t.width),
        row_stride(t.row_stride),
        column_stride(kUnit ? 1 : t.column_stride) {}

  T at(int64_t i, int64_t j) const { return widen(x[i * row_stride + (kUnit ? j : j * column_stride)]); }
  T right(int64_t i, int64_t j) const { return j + 1 < width ? at(i, j + 1) - at(i, j) : T(0); }
  T down(int64_t i, int64_t j) const { return i + 1 < height ? at(i + 1, j) - at(i, j) : T(0); }
};

template <typename F>
inline void with_variation(Variation kind, const F& f) {
  switch (kind) {
    case Variation::kAnisotropic:
      return f(std::integral_constant<Variation, Variation::kAnisotropic>{});
    case Variation::kIsotropic:
      return f(std::integral_constant<Variation, Variation::kIsotropic>{});
    case Variation::kSquared:
      return f(std::integral_constant<Variation, Variation::kSquared>{});
  }
}

template <typename F>
inline void with_unit(bool unit, const F& f) {
  if (unit) {
    f(std::true_type{});
  } else {
    f(std::false_type{});
  }
}

inline double variation(const PlaneTask& t) {
  double total = 0;
  with_storage_type(t.dtype, [&](auto in) {
    with_variation(t.kind, [&](auto kind) {
      with_unit(t.column_stride == 1, [&](auto unit) {
        const Plane<decltype(in), unit.value> p(t);
        double sum = 0;
        for (int64_t i = t.row_begin; i < t.row_end; ++i)
          for (int64_t j = 0; j < p.width; ++j) sum += pixel_variation<kind.value>(p.right(i, j), p.down(i, j));
        total = sum;
      });
    });
  });
  return total;
}

inline void variation_backward(const PlaneTask& t) {
  with_storage_type(t.dtype, [&](auto in) {
    with_variation(t.kind, [&](auto kind) {
      with_unit(t.column_stride == 1 && t.out_column_stride == 1, [&](auto unit) {
        using In = decltype(in);
        using T = Compute<In>;
        const Plane<In, unit.value> p(t);
        In* out = static_cast<In*>(t.out);
        const T factor = static_cast<T>(t.factor);
        for (int64_t i = t.row_begin; i < t.row_end; ++i)
          for (int64_t j = 0; j < t.width; ++j) {
            const T right = p.right(i, j), down = p.down(i, j);
            T g = -derivative<kind.value>(right, down) - derivative<kind.value>(down, right);
            if (j > 0) g += derivative<kind.value>(p.right(i, j - 1), p.down(i, j - 1));
            if (i > 0) g += derivative<kind.value>(p.down(i - 1, j), p.right(i - 1, j));
            store(out + i * t.out_row_stride + (unit.value ? j : j * t.out_column_stride), factor * g);
          }
      });
    });
  });
}

}  // namespace fastnst::cpu::FASTNST_ISA
