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
