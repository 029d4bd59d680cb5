// 3x3 convolution by Winograd's minimal filtering F(4x4, 3x3): 36 instead of 144 products, in the same precision. Lavin
// and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.
//
// A block of output tiles is transformed, multiplied and transformed back in cache. Weights are transformed for 2
// registers of output channels at a time: those of deep layers would exceed the last-level cache, and the transform
// costs 1.5 operations where the products cost one per tile of the block.
//
// Interpolation at 0, +-sqrt(1/2), +-sqrt(2) and infinity keeps the factors near 1 and halves the rounding error of the
// usual points 0, +-1, +-2 (docs/experiments/winograd.md).

namespace fastnst::cpu::FASTNST_ISA {

constexpr int64_t kTile = ConvTask::kTile, kPatch = kTile + 2, kPoints = kPatch * kPatch;
// Rows of a product, two registers of sums each. AVX-512 multiplies by a number in memory; elsewhere the rows take
// registers too.
constexpr int64_t kPanel = FASTNST_VECTOR_BYTES == 64 ? 12 : 6;
static_assert(ConvTask::kPanel % kPanel == 0);
constexpr double kRootHalf = 0.70710678118654752440, kRootTwo = 1.41421356237309504880;

template <typename In>
inline Vector<Compute<In>> load_lanes(const In* x) {
  using T = Compute<In>;
  Vector<T> y;
  if constexpr (std::is_same_v<In, T>) {
    std::memcpy(&y, x, sizeof y);
  } else if constexpr (std::is_same_v<In, Brain>) {
    typedef uint16_t Narrow __attribute__((vector_size(FASTNST_VECTOR_BYTES / 2)));
    typedef uint32_t Wide __attribute__((vector_size(FASTNST_VECTOR_BYTES)));
    Narrow narrow;
    std::memcpy(&narrow, x, sizeof narrow);
    const Wide wide = __builtin_convertvector(narrow, Wide) << 16;
    std::memcpy(&y, &wide, sizeof y);
  } else {
    for (int64_t i = 0; i < kLanes<T>; ++i) y[i] = widen(x[i]);
  }
  return y;
}

template <typename In>
inline void store_lanes(In* out, Vector<Compute<In>> x) {
  using T = Compute<In>;
  if constexpr (std::is_same_v<In, T>) {
    std::memcpy(out, &x, sizeof x);
  } else if constexpr (std::is_same_v<In, Brain>) {
    typedef uint16_t Narrow __attribute__((vector_size(FASTNST_VECTOR_BYTES / 2)));
    typedef uint32_t Wide __attribute__((vector_size(FASTNST_VECTOR_BYTES)));
    Wide bits;
    std::memcpy(&bits, &x, sizeof bits);
    const Wide rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Wide ordered = (Wide)(x == x);
    const Narrow narrow = __builtin_convertvector((rounded & ordered) | (0x7fc0 & ~ordered), Narrow);
    std::memcpy(out, &narrow, sizeof narrow);
  } else {
    for (int64_t i = 0; i < kLanes<T>; ++i) store(out + i, x[i]);
  }
}

// The first `n` lanes; the others are zero.
template <typename In>
inline Vector<Compute<In>> load_some(const In* x, int64_t n) {
  Vector<Compute<In>> y = {};
  for (int64_t i = 0; i < n; ++i) y[i] = widen(x[i]);
  return y;
}

template <typename In>
inline void store_some(In* out, Vector<Compute<In>> x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) store(out + i, x[i]);
}

// y = B^T d: six values to the six points.
template <typename T>
inline void to_points(const Vector<T> d[kPatch], Vector<T> y[kPatch]) {
  const T a = T(kRootHalf), b = T(kRootTwo);
  const Vector<T> even_a = d[4] - 2 * d[2], odd_a = a * (d[3] - 2 * d[1]);
  const Vector<T> even_b = d[4] - T(0.5) * d[2], odd_b = b * (d[3] - T(0.5) * d[1]);
  y[0] = d[0] - T(2.5) * d[2] + d[4];
  y[1] = even_a + odd_a;
  y[2] = even_a - odd_a;
  y[3] = even_b + odd_b;
  y[4] = even_b - odd_b;
  y[5] = d[1] - T(2.5) * d[3] + d[5];
}

// y = G w: three weights to the six points.
template <typename T>
inline void weights_to_points(const Vector<T> w[3], Vector<T> y[kPatch]) {
  const T third = T(1) / 3, sixth = T(1) / 6, a = T(kRootHalf), b = T(kRootTwo);
  // 1 / (2 a^2 (a^2 - b^2)) = -2/3 and 1 / (2 b^2 (b^2 - a^2)) = 1/6
  const Vector<T> even_a = -2 * third * w[0] - third * w[2], odd_a = -2 * third * a * w[1];
  const Vector<T> even_b = sixth * w[0] + third * w[2], odd_b = sixth * b * w[1];
  y[0] = w[0];
  y[1] = even_a + odd_a;
  y[2] = even_a - odd_a;
  y[3] = even_b + odd_b;
  y[4] = even_b - odd_b;
  y[5] = w[2];
}

// y = A^T m: six points to four outputs.
template <typename T>
inline void from_points(const Vector<T> m[kPatch], Vector<T> y[kTile]) {
  const T a = T(kRootHalf), b = T(kRootTwo);
  const Vector<T> even_a = m[1] + m[2], odd_a = a * (m[1] - m[2]), even_b = m[3] + m[4], odd_b = b * (m[3] - m[4]);
  y[0] = m[0] + even_a + even_b;
  y[1] = odd_a + odd_b;
  y[2] = T(0.5) * even_a + 2 * even_b;
  y[3] = T(0.5) * odd_a + 2 * odd_b + m[5];
}

// out[i][j] = sum over c < depth of v[i * v_row + c] * u[c * kTileColumns + j] for kPanel rows and the columns of the
// first kRegisters registers.
template <int64_t kRegisters, typename T>
inline void panel_product(int64_t depth, const T* v, int64_t v_row, const T* u, T* out) {
  Vector<T> acc[kPanel][kRegisters] = {};
  int64_t c = 0;
#ifdef FASTNST_LANE_OPERANDS
  for (; c + kLanes<T> <= depth; c += kLanes<T>) {
    Vector<T> rows[kPanel];
#pragma GCC unroll 6
    for (int64_t i = 0; i < kPanel; ++i) rows[i] = *reinterpret_cast<const Vector<T>*>(v + i * v_row + c);
#pragma GCC unroll 4
    for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
      const Vector<T>* columns = reinterpret_cast<const Vector<T>*>(u + (c + lane) * kTileColumns<T>);
#pragma GCC unroll 6
      for (int64_t i = 0; i < kPanel; ++i)
#pragma GCC unroll 2
        for (int64_t r = 0; r < kRegisters; ++r) acc[i][r] += rows[i][lane] * columns[r];
    }
  }
#endif
  for (; c < depth; ++c) {
    const Vector<T>* columns = reinterpret_cast<const Vector<T>*>(u + c * kTileColumns<T>);
#pragma GCC unroll 12
    for (int64_t i = 0; i < kPanel; ++i) {
      const T x = v[i * v_row + c];
#pragma GCC unroll 2
      for (int64_t r = 0; r < kRegisters; ++r) acc[i][r] += x * columns[r];
    }
  }
#pragma GCC unroll 12
  for (int64_t i = 0; i < kPanel; ++i) {
    Vector<T>* to = reinterpret_cast<Vector<T>*>(out + i * kTileColumns<T>);
#pragma GCC unroll 2
    for (int64_t r = 0; r < kRegisters; ++r) to[r] = acc[i][r];
  }
}

// The transforms of one call: their inputs and outputs, and the position of a block.
template <typename In>
class Winograd {
  using T = Compute<In>;
  using V = Vector<T>;
  using Lane = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
  typedef Lane Mask __attribute__((vector_size(FASTNST_VECTOR_BYTES)));
  typedef uint8_t Bytes __attribute__((vector_size(FASTNST_VECTOR_BYTES / sizeof(T))));
  static constexpr int64_t kL = kLanes<T>, kColumns = kTileColumns<T>;

 public:
  explicit Winograd(const ConvTask& t)
      : t_(t),
        across_((t.out_width + kTile - 1) / kTile),
        block_((t.block + kPanel - 1) / kPanel * kPanel),
        row_((t.channels + kL - 1) / kL * kL + kL),
        v_point_(block_ * row_ + kL),
        m_point_(block_ * kColumns + kL),
        u_block_(kPoints * t.channels * kColumns),
        kept_(t.channels * (t.last_output - t.first_output) <= ConvTask::kMaxKept ? output_blocks() : 1),
        v_(kPoints * v_point_),
        m_(kPoints * m_point_),
        u_(kept_ * u_block_),
        zeros_(t.channels + kL),
        gathered_(kGathered * 9 * kColumns) {
    std::fill_n(zeros_.data, t.channels + kL, In{});
    std::fill_n(gathered_.data, kGathered * 9 * kColumns, In{});
  }

  void run() {
    const bool keep = kept_ == output_blocks();
    for (int64_t first = t_.first_tile; first < t_.last_tile; first += t_.block) {
      const int64_t count = std::min(t_.block, t_.last_tile - first);
      for (int64_t i = 0; i < count; ++i) transform_input(first + i, v_.data + i * row_);
      const int64_t rows = (count + kPanel - 1) / kPanel * kPanel;
      for (int64_t i = count; i < rows; ++i)
        for (int64_t p = 0; p < kPoints; ++p) std::fill_n(v_.data + p * v_point_ + i * row_, t_.channels, T(0));
      for (int64_t b = 0; b < output_blocks(); ++b) {
        const int64_t k = t_.first_output + b * kColumns;
        T* u = u_.data + (keep ? b * u_block_ : 0);
        if (!keep || first == t_.first_tile) transform_weights(k, u);
        t_.last_output - k > kL ? multiply<2>(rows, u) : multiply<1>(rows, u);
        for (int64_t i = 0; i < count; ++i)
          for (int64_t half = 0; half < kColumns && k + half < t_.last_output; half += kL)
            transform_output(first + i, k + half, m_.data + i * kColumns + half);
      }
    }
  }

 private:
  static constexpr int64_t kGathered = 16;  // input channels: a cache line of float

  template <int64_t kRegisters>
  void multiply(int64_t rows, const T* u) {
    for (int64_t p = 0; p < kPoints; ++p)
      for (int64_t i = 0; i < rows; i += kPanel)
        panel_product<kRegisters>(t_.channels, v_.data + p * v_point_ + i * row_, row_, u + p * t_.channels * kColumns,
                                  m_.data + p * m_point_ + i * kColumns);
  }

  int64_t output_blocks() const { return (t_.last_output - t_.first_output + kColumns - 1) / kColumns; }

  // The 36 vectors of weights of every input channel, for output channels k..k + kColumns. Outputs that are not
  // contiguous are gathered first, some input channels at a time.
  void transform_weights(int64_t k, T* u) const {
    const In* weight = static_cast<const In*>(t_.weight) + k * t_.weight_output;
    const int64_t outputs = std::min(t_.outputs - k, kColumns);
    for (int64_t c = 0; c < t_.channels; c += kGathered) {
      const int64_t channels = std::min(t_.channels - c, kGathered);
      const In* from = weight + c * t_.weight_channel;
      if (t_.weight_output == 1 && outputs == kColumns) {
        for (int64_t i = 0; i < channels; ++i)
          weights_of_channel(from + i * t_.weight_channel, t_.weight_row, t_.weight_column, c + i, u);
      } else {
        gather(from, channels, outputs);
        for (int64_t i = 0; i < channels; ++i)
          weights_of_channel(gathered_.data + i * 9 * kColumns, 3 * kColumns, kColumns, c + i, u);
      }
    }
  }

  void gather(const In* from, int64_t channels, int64_t outputs) const {
    for (int64_t k = 0; k < outputs; ++k)
      for (int64_t tap = 0; tap < 9; ++tap) {
        const In* w = from + k * t_.weight_output + tap / 3 * t_.weight_row + tap % 3 * t_.weight_column;
        In* to = gathered_.data + tap * kColumns + k;
        for (int64_t i = 0; i < channels; ++i) to[i * 9 * kColumns] = w[i * t_.weight_channel];
      }
  }

  void weights_of_channel(const In* w, int64_t row, int64_t column, int64_t c, T* u) const {
#pragma GCC unroll 2
    for (int64_t half = 0; half < kColumns; half += kL) {
      V rows[3][kPatch];
#pragma GCC unroll 3
      for (int64_t i = 0; i < 3; ++i) {
        const V g[3] = {load_lanes(w + i * row + half), load_lanes(w + i * row + column + half),
                        load_lanes(w + i * row + 2 * column + half)};
        weights_to_points<T>(g, rows[i]);
      }
#pragma GCC unroll 6
      for (int64_t j = 0; j < kPatch; ++j) {
        const V g[3] = {rows[0][j], rows[1][j], rows[2][j]};
        V points[kPatch];
        weights_to_points<T>(g, points);
#pragma GCC unroll 6
        for (int64_t i = 0; i < kPatch; ++i)
          *reinterpret_cast<V*>(u + ((i * kPatch + j) * t_.channels + c) * kColumns + half) = points[i];
      }
    }
  }

  // A coordinate of the input, or -1 for padding.
  int64_t inside(int64_t i, int64_t size) const {
    if (i >= 0 && i < size) return i;
    return t_.replicate ? std::clamp<int64_t>(i, 0, size - 1) : -1;
  }

  void transform_input(int64_t tile, T* v) const {
    const int64_t top = t_.first_row + tile / across_ * kTile - t_.pad, left = tile % across_ * kTile - t_.pad;
    const In* at[kPoints];
    const uint8_t* place[kPoints];
    uint8_t corner[kPoints];
    const int64_t shift = t_.argmax ? 1 : 0, map_width = t_.argmax ? t_.width / 2 : t_.width;
    for (int64_t i = 0; i < kPatch; ++i) {
      int64_t y = inside(top + i, t_.height);
      if (y >> shift >= t_.height >> shift) y = -1;  // the odd last row, in no window
      for (int64_t j = 0; j < kPatch; ++j) {
        int64_t x = inside(left + j, t_.width);
        if (x >> shift >= map_width) x = -1;
        const int64_t index = ((y >> shift) * map_width + (x >> shift)) * t_.channels;
        const int64_t p = i * kPatch + j;
        at[p] = y < 0 || x < 0 ? zeros_.data : static_cast<const In*>(t_.x) + index;
        if (t_.argmax) {
          place[p] = y < 0 || x < 0 ? reinterpret_cast<const uint8_t*>(zeros_.data) : t_.argmax + index;
          corner[p] = static_cast<uint8_t>((y & 1) * 2 + (x & 1));
        }
      }
    }
    for (int64_t c = 0; c < t_.channels; c += kL) {
      const int64_t lanes = t_.channels - c;
      V columns[kPatch][kPatch];  // [j][i]
      for (int64_t j = 0; j < kPatch; ++j) {
        V d[kPatch];
        for (int64_t i = 0; i < kPatch; ++i) {
          const int64_t p = i * kPatch + j;
          d[i] = lanes >= kL ? load_lanes(at[p] + c) : load_some(at[p] + c, lanes);
          if (t_.argmax) d[i] = chosen(d[i], place[p] + c, corner[p], lanes);
        }
        to_points<T>(d, columns[j]);
      }
      for (int64_t i = 0; i < kPatch; ++i) {
        const V row[kPatch] = {columns[0][i], columns[1][i], columns[2][i],
                               columns[3][i], columns[4][i], columns[5][i]};
        V points[kPatch];
        to_points<T>(row, points);
        for (int64_t j = 0; j < kPatch; ++j) *reinterpret_cast<V*>(v + (i * kPatch + j) * v_point_ + c) = points[j];
      }
    }
  }

  // x where the window's argmax is `corner`, else zero.
  static V chosen(V x, const uint8_t* place, uint8_t corner, int64_t lanes) {
    Bytes bytes = {};
    std::memcpy(&bytes, place, lanes >= kL ? sizeof bytes : static_cast<size_t>(lanes));
    const Mask hit = __builtin_convertvector(bytes, Mask) == corner;
    Mask bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits &= hit;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  }

  void transform_output(int64_t tile, int64_t k, const T* m) const {
    V rows[kTile][kPatch];
    for (int64_t j = 0; j < kPatch; ++j) {
      V column[kPatch], y[kTile];
      for (int64_t i = 0; i < kPatch; ++i) column[i] = *reinterpret_cast<const V*>(m + (i * kPatch + j) * m_point_);
      from_points<T>(column, y);
      for (int64_t i = 0; i < kTile; ++i) rows[i][j] = y[i];
    }
    const int64_t lanes = std::min(t_.last_output - k, kL);
    V bias = {};
    if (t_.bias)
      bias = lanes == kL ? load_lanes(static_cast<const In*>(t_.bias) + k)
                         : load_some(static_cast<const In*>(t_.bias) + k, lanes);
    V out[kTile][kTile];
    for (int64_t i = 0; i < kTile; ++i) {
      from_points<T>(rows[i], out[i]);
      for (int64_t j = 0; j < kTile; ++j) {
        out[i][j] += bias;
        if (t_.relu) out[i][j] = out[i][j] < 0 ? V{} : out[i][j];  // keeps NaN
      }
    }
    const int64_t top = tile / across_ * kTile, left = tile % across_ * kTile;
    if (t_.out_argmax)
      pool_tile(out, top / 2, left / 2, k, lanes);
    else
      store_tile(out, top, left, k, lanes);
  }

  void store_tile(const V out[kTile][kTile], int64_t top, int64_t left, int64_t k, int64_t lanes) const {
    const int64_t height = std::min(kTile, t_.out_height - top), width = std::min(kTile, t_.out_width - left);
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        const int64_t index = ((top + i) * t_.out_width + left + j) * t_.outputs + k;
        V y = out[i][j];
        if (t_.mask) {
          const In* mask = static_cast<const In*>(t_.mask) + index;
          y = (lanes == kL ? load_lanes(mask) : load_some(mask, lanes)) > 0 ? y : V{};
        }
        In* to = static_cast<In*>(t_.out) + index;
        lanes == kL ? store_lanes(to, y) : store_some(to, y, lanes);
      }
    }
  }

  // The 2 x 2 maxima of a tile and their argmax, as in the op `pool`; NaN is the largest.
  void pool_tile(const V out[kTile][kTile], int64_t top, int64_t left, int64_t k, int64_t lanes) const {
    const int64_t height = std::min<int64_t>(2, t_.out_height / 2 - top);
    const int64_t width = std::min<int64_t>(2, t_.out_width / 2 - left);
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        V best = out[2 * i][2 * j];
        Mask place = {};
#pragma GCC unroll 3
        for (int64_t w = 1; w < 4; ++w) {
          const V other = out[2 * i + w / 2][2 * j + w % 2];
          const Mask larger = (other > best) | (other != other);
          best = larger ? other : best;
          place = larger ? Mask{} + static_cast<Lane>(w) : place;
        }
        place += best > 0 ? Mask{} : Mask{} + 4;
        const int64_t index = ((top + i) * (t_.out_width / 2) + left + j) * t_.outputs + k;
        In* to = static_cast<In*>(t_.out) + index;
        lanes == kL ? store_lanes(to, best) : store_some(to, best, lanes);
        const Bytes bytes = __builtin_convertvector(place, Bytes);
        std::memcpy(t_.out_argmax + index, &bytes, static_cast<size_t>(lanes));
      }
    }
  }

  const ConvTask& t_;
  const int64_t across_, block_, row_, v_point_, m_point_, u_block_, kept_;
  Scratch<T> v_, m_, u_;
  Scratch<In> zeros_, gathered_;
};

inline void winograd(const ConvTask& t) {
  with_storage_type(t.dtype, [&](auto in) { Winograd<decltype(in)>(t).run(); });
}

}  // namespace fastnst::cpu::FASTNST_ISA
