// Pooling over 2 x 2 windows. Loops over the inner values are branch-free, so that the compiler vectorizes them.

namespace fastnst::cpu::FASTNST_ISA {

template <Pool kKind, typename In>
inline void pool_four(const In* x, int64_t right, int64_t down, In* y, uint8_t* place) {
  using T = Compute<In>;
  const T window[4] = {widen(x[0]), widen(x[right]), widen(x[down]), widen(x[down + right])};
  if constexpr (kKind == Pool::kMax) {
    T best = window[0];
    int found = 0;
    for (int i = 1; i < 4; ++i) {
      const bool larger = (window[i] > best) | (window[i] != window[i]);  // NaN is the largest, as in PyTorch
      best = larger ? window[i] : best;
      found = larger ? i : found;
    }
    store(y, best);
    *place = static_cast<uint8_t>(found + (best > 0 ? 0 : 4));
  } else if constexpr (kKind == Pool::kAverage) {
    store(y, (window[0] + window[1] + window[2] + window[3]) / 4);
  } else {
    T squares = 0;
    for (int i = 0; i < 4; ++i) squares += window[i] * window[i];
    store(y, std::sqrt(squares / 4 + T(1e-8)));
  }
}

template <Pool kKind, typename In>
inline void pool_gradients(In grad, const In* x, const In* y, uint8_t place, int64_t right, int64_t down, In* out) {
  using T = Compute<In>;
  const int64_t corners[4] = {0, right, down, down + right};
  const T g = widen(grad);
  for (int i = 0; i < 4; ++i) {
    if constexpr (kKind == Pool::kMax) {
      store(out + corners[i], place == i ? g : T(0));
    } else if constexpr (kKind == Pool::kAverage) {
      store(out + corners[i], g / 4);
    } else {
      store(out + corners[i], g * widen(x[corners[i]]) / (4 * widen(*y)));
    }
  }
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

inline void pool(const PoolTask& t) {
  with_pool(t, [&](auto kind, auto in) {
    using In = decltype(in);
    constexpr Pool kKind = decltype(kind)::value;
    const int64_t right = t.right, down = t.down, step = t.step, inner = t.inner;
    uint8_t unused = 0;
    for (int64_t w = 0; w < t.count; ++w) {
      const In* __restrict x = static_cast<const In*>(t.x) + w * t.window;
      In* __restrict y = static_cast<In*>(t.pooled) + w * inner;
      uint8_t* __restrict argmax = kKind == Pool::kMax ? t.argmax + w * inner : &unused;
      const auto place = [&](int64_t i) { return kKind == Pool::kMax ? argmax + i : argmax; };
      if (step == 1) {
        for (int64_t i = 0; i < inner; ++i) pool_four<kKind>(x + i, right, down, y + i, place(i));
      } else {
        for (int64_t i = 0; i < inner; ++i) pool_four<kKind>(x + 2 * i, 1, down, y + i, place(i));
      }
    }
  });
}

inline void pool_backward(const PoolTask& t) {
  with_pool(t, [&](auto kind, auto in) {
    using In = decltype(in);
    constexpr Pool kKind = decltype(kind)::value;
    const int64_t right = t.right, down = t.down, step = t.step, inner = t.inner;
    const uint8_t mask = t.relu ? 7 : 3;
    for (int64_t w = 0; w < t.count; ++w) {
      const In* __restrict grad = static_cast<const In*>(t.pooled) + w * inner;
      const In* __restrict x = kKind == Pool::kL2 ? static_cast<const In*>(t.x) + w * t.window : grad;
      const In* __restrict y = kKind == Pool::kL2 ? static_cast<const In*>(t.y) + w * inner : grad;
      In* __restrict out = static_cast<In*>(t.out) + w * t.window;
      const auto place = [&](int64_t i) {
        return static_cast<uint8_t>(kKind == Pool::kMax ? t.argmax[w * inner + i] & mask : 0);
      };
      if (step == 1) {
        for (int64_t i = 0; i < inner; ++i)
          pool_gradients<kKind>(grad[i], x + i, y + i, place(i), right, down, out + i);
      } else {
        for (int64_t i = 0; i < inner; ++i)
          pool_gradients<kKind>(grad[i], x + 2 * i, y + i, place(i), 1, down, out + 2 * i);
      }
    }
  });
}

}  // namespace fastnst::cpu::FASTNST_ISA
