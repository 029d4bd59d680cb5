// Elementwise kernels over dense memory.

namespace fastnst::cpu::FASTNST_ISA {

// The sum of f(i) for i < n: short sums in independent lanes, which vectorize, added up in double.
template <typename T, typename F>
inline double sum(int64_t n, const F& f) {
  constexpr int64_t kLanesHere = 32, kShort = 32 * kLanesHere;
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kShort) {
    const int64_t count = std::min(kShort, n - begin), even = count - count % kLanesHere;
    T lanes[kLanesHere] = {};
    for (int64_t i = 0; i < even; i += kLanesHere)
      for (int64_t l = 0; l < kLanesHere; ++l) lanes[l] += f(begin + i + l);
    for (int64_t i = even; i < count; ++i) lanes[i - even] += f(begin + i);
    for (int64_t l = 0; l < kLanesHere; ++l) total += lanes[l];
  }
  return total;
}

inline double squared_difference(ScalarType dtype, const void* x, const void* y, int64_t n) {
  double total = 0;
  with_storage_type(dtype, [&](auto in) {
    using In = decltype(in);
    const In* a = static_cast<const In*>(x);
    const In* b = static_cast<const In*>(y);
    total = sum<Compute<In>>(n, [&](int64_t i) {
      const Compute<In> d = widen(a[i]) - widen(b[i]);
      return d * d;
    });
  });
  return total;
}

inline double product(ScalarType dtype, const void* x, const void* y, int64_t n) {
  double total = 0;
  with_storage_type(dtype, [&](auto in) {
    using In = decltype(in);
    const In* a = static_cast<const In*>(x);
    const In* b = static_cast<const In*>(y);
    total = sum<Compute<In>>(n, [&](int64_t i) -> Compute<In> { return widen(a[i]) * widen(b[i]); });
  });
  return total;
}

inline void scaled_difference(ScalarType dtype, const void* x, const void* y, void* out, double factor, int64_t n) {
  with_storage_type(dtype, [&](auto in) {
    using In = decltype(in);
    using T = Compute<In>;
    const In* a = static_cast<const In*>(x);
    const In* b = static_cast<const In*>(y);
    In* to = static_cast<In*>(out);
    const T f = static_cast<T>(factor);
    for (int64_t i = 0; i < n; ++i) store(to + i, f * (widen(a[i]) - widen(b[i])));
  });
}

template <typename T, typename In>
double add_product(T* x, const In* y, const In* z, T keep, T add, int64_t n) {
  using V = Vector<T>;
  constexpr int64_t kVectors = 4, kStep = kVectors * kLanes<T>, kShort = 32 * kStep;
  double total = 0;
  int64_t begin = 0;
  if constexpr (std::is_same_v<T, Compute<In>>) {
    for (const int64_t whole = n / kStep * kStep; begin < whole;) {
      const int64_t end = std::min(whole, begin + kShort);
      V sums[kVectors] = {};
      for (; begin < end; begin += kStep) {
        for (int64_t k = 0; k < kVectors; ++k) {
          const int64_t i = begin + k * kLanes<T>;
          const V value = keep * load_lanes(x + i) + add * load_lanes(y + i);
          std::memcpy(x + i, &value, sizeof value);
          sums[k] += value * load_lanes(z + i);
        }
      }
      for (const V& lanes : sums)
        for (int64_t l = 0; l < kLanes<T>; ++l) total += lanes[l];
    }
  }
  for (; begin < n; ++begin) {
    x[begin] = keep * x[begin] + add * static_cast<T>(widen(y[begin]));
    total += x[begin] * static_cast<T>(widen(z[begin]));
  }
  return total;
}

inline double add_product(ScalarType x_dtype, ScalarType dtype, void* x, const void* y, const void* z, double keep,
                          double add, int64_t n) {
  double total = 0;
  with_storage_type(dtype, [&](auto in) {
    using In = decltype(in);
    const auto of = [&](auto zero) {
      using T = decltype(zero);
      total = add_product(static_cast<T*>(x), static_cast<const In*>(y), static_cast<const In*>(z),
                          static_cast<T>(keep), static_cast<T>(add), n);
    };
    if (x_dtype == ScalarType::Double) {
      of(double{});
    } else {
      of(float{});
    }
  });
  return total;
}

inline void pointwise_backward(ScalarType dtype, void* grad, const void* x, const void* target, double content,
                               bool relu, int64_t n) {
  with_storage_type(dtype, [&](auto in) {
    using In = decltype(in);
    using T = Compute<In>;
    In* g = static_cast<In*>(grad);
    const In* f = static_cast<const In*>(x);
    const In* p = static_cast<const In*>(target);
    const T c = static_cast<T>(content);
    if (p) {
      for (int64_t i = 0; i < n; ++i) {
        const T feature = widen(f[i]), value = widen(g[i]) + c * (feature - widen(p[i]));
        store(g + i, relu && !(feature > 0) ? T(0) : value);
      }
    } else if (relu) {
      for (int64_t i = 0; i < n; ++i) {
        const T value = widen(g[i]);
        store(g + i, widen(f[i]) > 0 ? value : T(0));
      }
    }
  });
}

}  // namespace fastnst::cpu::FASTNST_ISA
