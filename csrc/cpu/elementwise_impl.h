// Elementwise kernels over dense memory.

namespace fastnst::cpu::FASTNST_ISA {

inline double squared_difference(ScalarType dtype, const void* x, const void* y, int64_t n) {
  double total = 0;
  with_storage_type(dtype, [&](auto in) {
    using In = decltype(in);
    using T = Compute<In>;
    const In* a = static_cast<const In*>(x);
    const In* b = static_cast<const In*>(y);
    // Short sums in independent lanes, which vectorize, accumulated in double.
    constexpr int64_t kLanesHere = 32, kShort = 32 * kLanesHere;
    for (int64_t begin = 0; begin < n; begin += kShort) {
      const int64_t count = std::min(kShort, n - begin), even = count - count % kLanesHere;
      T lanes[kLanesHere] = {};
      for (int64_t i = 0; i < even; i += kLanesHere)
        for (int64_t l = 0; l < kLanesHere; ++l) {
          const T d = widen(a[begin + i + l]) - widen(b[begin + i + l]);
          lanes[l] += d * d;
        }
      for (int64_t i = even; i < count; ++i) {
        const T d = widen(a[begin + i]) - widen(b[begin + i]);
        lanes[i - even] += d * d;
      }
      for (int64_t l = 0; l < kLanesHere; ++l) total += lanes[l];
    }
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
