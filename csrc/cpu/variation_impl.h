// Total variation of one plane. With the differences r and d to the right and lower neighbor (zero at the border), a
// pixel contributes |r| + |d|, sqrt(r^2 + d^2) or r^2 + d^2. The subgradient at a zero difference is zero. Rows are
// processed in segments of kSegment pixels, so that the innermost loops have no border and the compiler vectorizes
// them.

namespace fastnst::cpu::FASTNST_ISA {

constexpr int64_t kSegment = 512;  // the buffers of a task are on its stack

template <Variation kind, typename T>
inline T pixel_variation(T right, T down) {
  if constexpr (kind == Variation::kAnisotropic) return std::abs(right) + std::abs(down);
  if constexpr (kind == Variation::kSquared) return right * right + down * down;
  return std::sqrt(right * right + down * down);
}

template <typename T>
inline T sign(T x) {
  return (x > 0 ? T(1) : T(0)) - (x < 0 ? T(1) : T(0));
}

// The derivatives of a pixel's variation with respect to its two differences. NaN is kept, except by `sign`.
template <Variation kind, typename T>
inline void derivatives(T right, T down, T* by_right, T* by_down) {
  if constexpr (kind == Variation::kAnisotropic) {
    *by_right = sign(right);
    *by_down = sign(down);
  } else if constexpr (kind == Variation::kSquared) {
    *by_right = 2 * right;
    *by_down = 2 * down;
  } else {
    const T length = std::sqrt(right * right + down * down);
    const T divisor = length == 0 ? T(1) : length;
    *by_right = (length == 0 ? T(0) : right) / divisor;
    *by_down = (length == 0 ? T(0) : down) / divisor;
  }
}

// Columns first..first + count of a plane, at most kSegment + 1, and the column to their right, if there is one: a row
// and the one below in the compute type.
template <typename In>
struct Segment {
  using T = Compute<In>;
  const PlaneTask& t;
  int64_t first, count;
  T pixels[2][kSegment + 2];

  Segment(const PlaneTask& task, int64_t begin, int64_t end)
      : t(task), first(begin), count(std::min(end, task.width) - begin) {}

  void read(int64_t row) {
    T* __restrict to = pixels[row % 2];
    const int64_t stride = t.column_stride, wanted = std::min(count + 1, t.width - first);
    const In* from = static_cast<const In*>(t.x) + row * t.row_stride + first * stride;
    if (stride == 1) {
      for (int64_t j = 0; j < wanted; ++j) to[j] = widen(from[j]);
    } else if (stride == 3) {  // channels_last: vectorized as well
      for (int64_t j = 0; j < wanted; ++j) to[j] = widen(from[j * 3]);
    } else {
      for (int64_t j = 0; j < wanted; ++j) to[j] = widen(from[j * stride]);
    }
  }

  // Calls f(j, right, down) for each column of a row that has been read, and reads the row below.
  template <typename F>
  void for_each(int64_t row, const F& f) {
    const T* __restrict own = pixels[row % 2];
    const T* __restrict below = pixels[(row + 1) % 2];
    const int64_t inner = count - (first + count == t.width);
    if (row + 1 < t.height) {
      read(row + 1);
      for (int64_t j = 0; j < inner; ++j) f(j, own[j + 1] - own[j], below[j] - own[j]);
      if (inner < count) f(inner, T(0), below[inner] - own[inner]);
    } else {
      for (int64_t j = 0; j < inner; ++j) f(j, own[j + 1] - own[j], T(0));
      if (inner < count) f(inner, T(0), T(0));
    }
  }
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

template <Variation kind, typename In>
inline double segment_variation(const PlaneTask& t, int64_t first) {
  using T = Compute<In>;
  constexpr int64_t kSums = 32;  // sums of at most kSegment / kSums terms, added in double
  Segment<In> s(t, first, first + kSegment);
  double totals[kSums] = {};
  T values[kSegment];
  s.read(t.row_begin);
  for (int64_t row = t.row_begin; row < t.row_end; ++row) {
    s.for_each(row, [&](int64_t j, T right, T down) { values[j] = pixel_variation<kind>(right, down); });
    T sums[kSums] = {};
    const int64_t even = s.count - s.count % kSums;
    for (int64_t j = 0; j < even; j += kSums)
      for (int64_t l = 0; l < kSums; ++l) sums[l] += values[j + l];
    for (int64_t j = even; j < s.count; ++j) sums[j - even] += values[j];
    for (int64_t l = 0; l < kSums; ++l) totals[l] += sums[l];
  }
  double total = 0;
  for (const double part : totals) total += part;
  return total;
}

[[gnu::noinline]] inline double plane_variation(const PlaneTask& t) {
  double total = 0;
  with_storage_type(t.dtype, [&](auto in) {
    with_variation(t.kind, [&](auto kind) {
      for (int64_t first = 0; first < t.width; first += kSegment)
        total += segment_variation<decltype(kind)::value, decltype(in)>(t, first);
    });
  });
  return total;
}

// A pixel's gradient has the derivatives by its own two differences, and by those of the pixels to its left and above.
template <Variation kind, typename In>
inline void segment_backward(const PlaneTask& t, int64_t first) {
  using T = Compute<In>;
  // One column more to the left, whose derivative by its right difference is needed.
  const int64_t left = first > 0;
  Segment<In> s(t, first - left, first + kSegment);
  T across[kSegment + 2], vertical[2][kSegment + 1] = {};  // across[j] belongs to the pixel to the left of column j
  across[0] = 0;
  const T factor = static_cast<T>(t.factor);
  const int64_t begin = std::max<int64_t>(t.row_begin - 1, 0);
  s.read(begin);
  for (int64_t row = begin; row < t.row_end; ++row) {
    T* __restrict own = vertical[row % 2];
    const T* __restrict above = vertical[(row + 1) % 2];
    s.for_each(row, [&](int64_t j, T right, T down) { derivatives<kind>(right, down, across + j + 1, own + j); });
    if (row < t.row_begin) continue;
    const int64_t stride = t.out_column_stride;
    In* out = static_cast<In*>(t.out) + row * t.out_row_stride + s.first * stride;
    const auto gradient = [&](int64_t j) { return factor * ((across[j] - across[j + 1]) + (above[j] - own[j])); };
    if (stride == 1) {
      for (int64_t j = left; j < s.count; ++j) store(out + j, gradient(j));
    } else {
      for (int64_t j = left; j < s.count; ++j) store(out + j * stride, gradient(j));
    }
  }
}

[[gnu::noinline]] inline void plane_backward(const PlaneTask& t) {
  with_storage_type(t.dtype, [&](auto in) {
    with_variation(t.kind, [&](auto kind) {
      for (int64_t first = 0; first < t.width; first += kSegment)
        segment_backward<decltype(kind)::value, decltype(in)>(t, first);
    });
  });
}

// Subnormal numbers count as zero while it lives, because processors are slower with them: they are the squares of
// differences below 1e-19 in float32, which are zero below 1e-23 anyway. Magnitudes have no squares.
class WithoutSubnormals {
#if defined(__x86_64__)
 public:
  explicit WithoutSubnormals(Variation kind) : state_(_mm_getcsr()) {
    constexpr unsigned kResultsToZero = 0x8000, kOperandsToZero = 0x0040;
    if (kind != Variation::kAnisotropic) _mm_setcsr(state_ | kResultsToZero | kOperandsToZero);
  }
  ~WithoutSubnormals() { _mm_setcsr(state_); }
  WithoutSubnormals(const WithoutSubnormals&) = delete;
  WithoutSubnormals& operator=(const WithoutSubnormals&) = delete;

 private:
  unsigned state_;
#else
 public:
  explicit WithoutSubnormals(Variation) {}
#endif
};

inline double variation(const PlaneTask& t) {
  const WithoutSubnormals mode(t.kind);
  return plane_variation(t);
}

inline void variation_backward(const PlaneTask& t) {
  const WithoutSubnormals mode(t.kind);
  plane_backward(t);
}

}  // namespace fastnst::cpu::FASTNST_ISA
