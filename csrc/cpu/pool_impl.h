// Pooling over 2 x 2 windows. Where values of a pixel are contiguous (step 1), the innermost loops run over them. In a
// contiguous map (step 2) the corners of kWindows windows, of several rows if these are short, are first sorted into
// four arrays. Loops are branch-free, so that the compiler vectorizes them.

namespace fastnst::cpu::FASTNST_ISA {

constexpr int64_t kWindows = 256;

// The upper left, upper right, lower left and lower right pixels of windows; Side is the storage or the compute type.
template <typename Side>
struct Corners {
  Side *a, *b, *c, *d;
};

// Null for a null pointer.
template <typename Side>
inline Side* moved(Side* from, int64_t n) {
  return from ? from + n : nullptr;
}

template <typename Side>
inline Corners<Side> corners(const PoolTask& t, Side* first) {
  return {first, moved(first, t.right), moved(first, t.down), moved(first, t.down + t.right)};
}

template <typename Side>
struct Buffers {
  Side a[kWindows], b[kWindows], c[kWindows], d[kWindows];

  Corners<Side> at(int64_t j) { return {a + j, b + j, c + j, d + j}; }
};

template <Pool kKind, typename Side, typename In>
inline void pool_windows(const Corners<Side>& x, int64_t n, In* __restrict y, uint8_t* __restrict places) {
  using T = Compute<In>;
  const Side* __restrict a = x.a, * __restrict b = x.b, * __restrict c = x.c, * __restrict d = x.d;
  for (int64_t j = 0; j < n; ++j) {
    const T window[4] = {widen(a[j]), widen(b[j]), widen(c[j]), widen(d[j])};
    if constexpr (kKind == Pool::kMax) {
      T best = window[0];
      int found = 0;
      for (int i = 1; i < 4; ++i) {
        const bool larger = (window[i] > best) | (window[i] != window[i]);  // NaN is the largest, as in PyTorch
        best = larger ? window[i] : best;
        found = larger ? i : found;
      }
      store(y + j, best);
      places[j] = static_cast<uint8_t>(found + (best > 0 ? 0 : 4));
    } else if constexpr (kKind == Pool::kAverage) {
      store(y + j, (window[0] + window[1] + window[2] + window[3]) / 4);
    } else {
      T squares = 0;
      for (int i = 0; i < 4; ++i) squares += window[i] * window[i];
      store(y + j, std::sqrt(squares / 4 + T(1e-8)));
    }
  }
}

// The gradient of one corner of n windows. `x` and `y` are read for kL2, `places` for kMax.
template <Pool kKind, typename Side, typename In>
inline void corner_gradient(int corner, const In* __restrict grad, const Side* __restrict x, const In* __restrict y,
                            const uint8_t* __restrict places, uint8_t mask, int64_t n, Side* __restrict out) {
  using T = Compute<In>;
  for (int64_t j = 0; j < n; ++j) {
    const T g = widen(grad[j]);
    if constexpr (kKind == Pool::kMax) {
      store(out + j, (places[j] & mask) == corner ? g : T(0));
    } else if constexpr (kKind == Pool::kAverage) {
      store(out + j, g / 4);
    } else {
      store(out + j, g * widen(x[j]) / (4 * widen(y[j])));
    }
  }
}

template <Pool kKind, typename Side, typename In>
inline void pool_gradients(const In* grad, const Corners<const Side>& x, const In* y, const uint8_t* places,
                           uint8_t mask, int64_t n, const Corners<Side>& out) {
  corner_gradient<kKind>(0, grad, x.a, y, places, mask, n, out.a);
  corner_gradient<kKind>(1, grad, x.b, y, places, mask, n, out.b);
  corner_gradient<kKind>(2, grad, x.c, y, places, mask, n, out.c);
  corner_gradient<kKind>(3, grad, x.d, y, places, mask, n, out.d);
}

// Calls f with the task's kind and a zero of its storage type.
template <typename F>
inline void with_pool(const PoolTask& t, const F& f) {
  with_storage_type(t.dtype, [&](auto in) {
    switch (t.kind) {
      case Pool::kMax:
        return f(std::integral_constant<Pool, Pool::kMax>{}, in);
      case Pool::kAverage:
        return f(std::integral_constant<Pool, Pool::kAverage>{}, in);
      default:
        return f(std::integral_constant<Pool, Pool::kL2>{}, in);
    }
  });
}

// Calls f(first, n, pieces) for n <= kWindows of the task's windows at a time; pieces(g) calls g(j, input, count) for
// windows first + j, ... that lie in one row, at the offset `input`.
template <typename F>
inline void for_each_chunk(const PoolTask& t, const F& f) {
  const int64_t total = t.count * t.inner;
  int64_t row = 0, column = 0;
  for (int64_t first = 0; first < total; first += kWindows) {
    const int64_t n = std::min(kWindows, total - first), first_row = row, first_column = column;
    f(first, n, [&](const auto& g) {
      row = first_row, column = first_column;
      for (int64_t j = 0; j < n;) {
        const int64_t count = std::min(n - j, t.inner - column);
        g(j, row * t.window + 2 * column, count);
        j += count;
        column += count;
        if (column == t.inner) ++row, column = 0;
      }
    });
  }
}

// Sorts the windows of one row into buffers, or back.
template <typename In>
inline void gather(const In* __restrict upper, const In* __restrict lower, int64_t n, Corners<Compute<In>> to) {
  Compute<In>* __restrict a = to.a, * __restrict b = to.b, * __restrict c = to.c, * __restrict d = to.d;
  for (int64_t k = 0; k < n; ++k) a[k] = widen(upper[2 * k]), b[k] = widen(upper[2 * k + 1]);
  for (int64_t k = 0; k < n; ++k) c[k] = widen(lower[2 * k]), d[k] = widen(lower[2 * k + 1]);
}

template <typename In>
inline void scatter(Corners<Compute<In>> from, int64_t n, In* __restrict upper, In* __restrict lower) {
  const Compute<In>* __restrict a = from.a, * __restrict b = from.b, * __restrict c = from.c, * __restrict d = from.d;
  for (int64_t k = 0; k < n; ++k) store(upper + 2 * k, a[k]), store(upper + 2 * k + 1, b[k]);
  for (int64_t k = 0; k < n; ++k) store(lower + 2 * k, c[k]), store(lower + 2 * k + 1, d[k]);
}

inline void pool(const PoolTask& t) {
  with_pool(t, [&](auto kind, auto in) {
    using In = decltype(in);
    using T = Compute<In>;
    constexpr Pool kKind = decltype(kind)::value;
    const In* x = static_cast<const In*>(t.x);
    In* y = static_cast<In*>(t.pooled);
    if (t.step == 1) {
      for (int64_t w = 0; w < t.count; ++w)
        pool_windows<kKind>(corners(t, x + w * t.window), t.inner, y + w * t.inner, moved(t.argmax, w * t.inner));
      return;
    }
    Buffers<T> buffers;
    for_each_chunk(t, [&](int64_t first, int64_t n, const auto& pieces) {
      pieces([&](int64_t j, int64_t at, int64_t count) { gather(x + at, x + at + t.down, count, buffers.at(j)); });
      pool_windows<kKind>(buffers.at(0), n, y + first, moved(t.argmax, first));
    });
  });
}

inline void pool_backward(const PoolTask& t) {
  with_pool(t, [&](auto kind, auto in) {
    using In = decltype(in);
    using T = Compute<In>;
    constexpr Pool kKind = decltype(kind)::value;
    const uint8_t mask = t.relu ? 7 : 3;
    const In* grad = static_cast<const In*>(t.pooled);
    const In* x = static_cast<const In*>(t.x);
    const In* y = static_cast<const In*>(t.y);
    In* out = static_cast<In*>(t.out);
    if (t.step == 1) {
      for (int64_t w = 0; w < t.count; ++w) {
        const int64_t at = w * t.window, pooled = w * t.inner;
        pool_gradients<kKind>(grad + pooled, corners(t, moved(x, at)), moved(y, pooled), moved(t.argmax, pooled), mask,
                              t.inner, corners(t, out + at));
      }
      return;
    }
    Buffers<T> inputs, gradients;
    for_each_chunk(t, [&](int64_t first, int64_t n, const auto& pieces) {
      if (x)
        pieces([&](int64_t j, int64_t at, int64_t count) { gather(x + at, x + at + t.down, count, inputs.at(j)); });
      const Corners<const T> read = {inputs.a, inputs.b, inputs.c, inputs.d};
      pool_gradients<kKind>(grad + first, read, moved(y, first), moved(t.argmax, first), mask, n, gradients.at(0));
      pieces(
          [&](int64_t j, int64_t at, int64_t count) { scatter(gradients.at(j), count, out + at, out + at + t.down); });
    });
  });
}

}  // namespace fastnst::cpu::FASTNST_ISA
