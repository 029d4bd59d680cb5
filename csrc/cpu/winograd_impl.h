// 3x3 convolution by Winograd's minimal filtering F(4x4, 3x3) or F(6x6, 3x3), with 36 instead of 144 or 64 instead of
// 324 products, in the same precision. conv3x3.cpp distributes the steps below and owns their buffers:
//
//   v  tiles of the input at the points                       [point][tile][channel]
//   u  weights of one block of outputs and run of channels    [point][set of kTileColumns outputs][channel][output]
//   m  products                                               [point][tile][output]
//
// The strides of points are padded, because powers of two would place all points of a tile in the same set of a cache.
// What the next step of a loop reads or writes is fetched into the cache: the points are too many streams for the
// processor to follow.

namespace fastnst::cpu::FASTNST_ISA {

// The steps of a convolution with tiles of kTile x kTile outputs.
template <typename In, int64_t kTile>
class Winograd {
  using T = Compute<In>;
  using V = Vector<T>;
  using Lane = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
  typedef Lane Mask __attribute__((vector_size(FASTNST_VECTOR_BYTES)));
  typedef uint8_t Bytes __attribute__((vector_size(FASTNST_VECTOR_BYTES / sizeof(T))));
  static constexpr int64_t kL = kLanes<T>, kColumns = ConvTask::kColumns, kSet = kTileColumns<T>;
  static constexpr int64_t kPatch = kTile + 2, kPoints = kPatch * kPatch;
  static constexpr int64_t kPad = 64 / static_cast<int64_t>(sizeof(T));  // a cache line
  static constexpr int64_t kTogether = 16;                               // channels of weights: a line of float
  static constexpr int64_t kUSet = ConvTask::kRun * kSet, kUPoint = kColumns / kSet * kUSet + kPad;
  static_assert(kColumns % kSet == 0);

 public:
  explicit Winograd(const ConvTask& t)
      : t_(t),
        across_((t.out_width + kTile - 1) / kTile),
        tiles_((t.out_height + kTile - 1) / kTile * across_),
        row_((t.channels + kL - 1) / kL * kL + kPad),
        v_point_(t.v_rows * row_ + kPad),
        m_point_(t.m_rows * kColumns + kPad) {}

  ConvSizes sizes() const {
    const auto bytes = [](int64_t n) { return static_cast<int64_t>(sizeof(T)) * kPoints * n; };
    return {bytes(v_point_), bytes(kUPoint), bytes(m_point_)};
  }

  void input(int64_t first, int64_t last) const {
    for (int64_t tile = first; tile < last; ++tile) {
      T* v = static_cast<T*>(t_.v) + (tile - t_.v_first) * row_;
      if (tile < t_.batch * tiles_) {
        transform_input(tile, v);
      } else {
        for (int64_t p = 0; p < kPoints; ++p) std::fill_n(v + p * v_point_, row_, T(0));
      }
    }
  }

  // Outputs that are not contiguous are transposed first, some input channels at a time.
  void weights(int64_t block, int64_t run) const {
    alignas(64) T transposed[kTogether * 9 * kColumns];
    const int64_t k = block * kColumns, outputs = std::min(t_.outputs - k, kColumns);
    const int64_t begin = run * ConvTask::kRun, depth = std::min(ConvTask::kRun, t_.channels - begin);
    const bool direct = t_.weight_output == 1 && outputs == kColumns;
    if (!direct && outputs < kColumns) std::fill_n(transposed, kTogether * 9 * kColumns, T(0));
    for (int64_t c = 0; c < depth; c += kTogether) {
      const int64_t channels = std::min(depth - c, kTogether);
      const In* from = static_cast<const In*>(t_.weight) + k * t_.weight_output + (begin + c) * t_.weight_channel;
      if (direct) {
        for (int64_t i = 0; i < channels; ++i) {
          const In* w = from + i * t_.weight_channel;
          for (int64_t tap = 0; tap < 9; ++tap)
            for (int64_t j = 0; j < kColumns; j += 64 / static_cast<int64_t>(sizeof(In)))
              __builtin_prefetch(w + 2 * t_.weight_channel + tap / 3 * t_.weight_row + tap % 3 * t_.weight_column + j);
          weights_of_channel(w, t_.weight_row, t_.weight_column, c + i);
        }
      } else {
        transpose_weights(from, channels, outputs, transposed);
        for (int64_t i = 0; i < channels; ++i)
          weights_of_channel(transposed + i * 9 * kColumns, 3 * kColumns, kColumns, c + i);
      }
    }
  }

  void products(int64_t block, int64_t run, int64_t first, int64_t last) const {
    const int64_t outputs = std::min(t_.outputs - block * kColumns, kColumns), count = last - first;
    const int64_t c = run * ConvTask::kRun, depth = std::min(ConvTask::kRun, t_.channels - c);
    for (int64_t p = 0; p < kPoints; ++p) {
      const T* v = static_cast<const T*>(t_.v) + p * v_point_ + (first - t_.v_first) * row_ + c;
      const T* u = static_cast<const T*>(t_.u) + p * kUPoint;
      const T* next = u + kUPoint;
      T* m = static_cast<T*>(t_.m) + p * m_point_;
      for (int64_t i = 0; i < count; i += kPanel)
        for (int64_t set = 0; set < outputs; set += kSet, next += depth * kPad)
          panel(std::min(kPanel, count - i), outputs - set, depth, run > 0, v + i * row_, u + set / kSet * kUSet, next,
                m + i * kColumns + set);
    }
  }

  void outputs(int64_t block, int64_t first, int64_t last) const {
    const int64_t k = block * kColumns, outputs = std::min(t_.outputs - k, kColumns);
    for (int64_t tile = first; tile < last; ++tile)
      for (int64_t half = 0; half < outputs; half += kL)
        transform_output(tile, k + half, static_cast<const T*>(t_.m) + (tile - first) * kColumns + half);
  }

 private:
  void panel(int64_t rows, int64_t outputs, int64_t depth, bool add, const T* v, const T* u, const T* next,
             T* m) const {
    const auto multiply = [&](auto n, auto registers) {
      panel_product<n.value, registers.value>(depth, v, row_, u, next, m, add);
    };
    const auto with_rows = [&](auto registers) {
      if (rows > 2 * kThird) {
        multiply(std::integral_constant<int64_t, kPanel>{}, registers);
      } else if (rows > kThird) {
        multiply(std::integral_constant<int64_t, 2 * kThird>{}, registers);
      } else {
        multiply(std::integral_constant<int64_t, kThird>{}, registers);
      }
    };
    if (outputs > kL) {
      with_rows(std::integral_constant<int64_t, 2>{});
    } else {
      with_rows(std::integral_constant<int64_t, 1>{});
    }
  }

  // to[(i * 9 + tap) * kColumns + k] = the weight of channel i, tap and output k.
  void transpose_weights(const In* from, int64_t channels, int64_t outputs, T* to) const {
    const bool squares = sizeof(T) == 4 && t_.weight_channel == 1 && channels == kTogether && outputs == kColumns;
    for (int64_t tap = 0; tap < 9; ++tap) {
      const In* w = from + tap / 3 * t_.weight_row + tap % 3 * t_.weight_column;
      if constexpr (sizeof(T) == 4) {
        for (int64_t k = 0; squares && k < kColumns; k += kL) {
          for (int64_t i = 0; i < kTogether; i += kL) {
            alignas(64) T square[kL][kL];
#pragma GCC unroll 16
            for (int64_t j = 0; j < kL; ++j) {
              const In* row = w + (k + j) * t_.weight_output + i;
              __builtin_prefetch(row + kTogether);
              const V lanes = load_lanes(row);
              std::memcpy(square[j], &lanes, sizeof lanes);
            }
            transpose<T>(square, to + (i * 9 + tap) * kColumns + k, 9 * kColumns);
          }
        }
      }
      for (int64_t k = 0; !squares && k < outputs; ++k)
        for (int64_t i = 0; i < channels; ++i)
          to[(i * 9 + tap) * kColumns + k] = widen(w[k * t_.weight_output + i * t_.weight_channel]);
    }
  }

  // The 3 x 3 weights of channel c of the run and of kColumns outputs, to the points.
  template <typename From>
  void weights_of_channel(const From* w, int64_t row, int64_t column, int64_t c) const {
    for (int64_t k = 0; k < kColumns; k += kL) {
      T* u = static_cast<T*>(t_.u) + k / kSet * kUSet + c * kSet + k % kSet;
      V rows[3][kPatch];
#pragma GCC unroll 3
      for (int64_t i = 0; i < 3; ++i) {
        const V g[3] = {load_lanes(w + i * row + k), load_lanes(w + i * row + column + k),
                        load_lanes(w + i * row + 2 * column + k)};
        Points<kTile>::template of_weights<T>(g, rows[i]);
      }
#pragma GCC unroll 8
      for (int64_t j = 0; j < kPatch; ++j) {
        const V g[3] = {rows[0][j], rows[1][j], rows[2][j]};
        V points[kPatch];
        Points<kTile>::template of_weights<T>(g, points);
#pragma GCC unroll 8
        for (int64_t i = 0; i < kPatch; ++i) *reinterpret_cast<V*>(u + (i * kPatch + j) * kUPoint) = points[i];
      }
    }
  }

  // The offsets of kCount coordinates, or -1 for zeros. Only coordinates one beyond the map affect its outputs.
  template <int64_t kCount>
  static void offsets(int64_t first, int64_t size, int64_t step, Border border, int64_t offset[kCount]) {
    for (int64_t i = 0; i < kCount; ++i) {
      int64_t at = first + i;
      if (border == Border::kReplicate) at = std::clamp<int64_t>(at, 0, size - 1);
      if (at == -1 || at == size) {
        if (border == Border::kCircular) at = at < 0 ? size - 1 : 0;
        if (border == Border::kReflect) at = std::max<int64_t>(0, at < 0 ? std::min<int64_t>(1, size - 1) : size - 2);
      }
      offset[i] = at >= 0 && at < size ? at * step : -1;
    }
  }

  void transform_input(int64_t tile, T* v) const {
    const int64_t top = t_.first_row + tile % tiles_ / across_ * kTile - t_.pad, left = tile % across_ * kTile - t_.pad;
    if (!t_.argmax) return transform_map(tile / tiles_, top, left, v);
    const auto with_parity = [](int64_t first, const auto& f) {
      first % 2 ? f(std::integral_constant<int64_t, 1>{}) : f(std::integral_constant<int64_t, 0>{});
    };
    with_parity(top, [&](auto below) {
      with_parity(left, [&](auto right) { transform_pooled<below.value, right.value>(tile / tiles_, top, left, v); });
    });
  }

  void transform_map(int64_t image, int64_t top, int64_t left, T* v) const {
    const int64_t across = t_.width * t_.channels, size = t_.height * across;
    const In* map = static_cast<const In*>(t_.x) + image * size;
    int64_t y[kPatch], x[kPatch];
    offsets<kPatch>(top, t_.height, across, t_.rows, y);
    offsets<kPatch>(left, t_.width, t_.channels, t_.columns, x);
    const In* at[kPatch][kPatch];
    for (int64_t i = 0; i < kPatch; ++i)
      for (int64_t j = 0; j < kPatch; ++j)
        at[i][j] = (y[i] | x[j]) >= 0 ? map + y[i] + x[j] : static_cast<const In*>(t_.zeros);
    // Before this, a whole register can be read at the end of a pixel: the values beyond are not used.
    const In* safe = static_cast<const In*>(t_.x) + std::max<int64_t>(0, t_.batch * size - t_.channels - kL);
    const int64_t next = kTile * t_.channels;  // the same place in the tile to the right
    for (int64_t c = 0; c < t_.channels; c += kL) {
      const int64_t lanes = t_.channels - c;
      V columns[kPatch][kPatch];  // [j][i]
      for (int64_t j = 0; j < kPatch; ++j) {
        V d[kPatch];
#pragma GCC unroll 8
        for (int64_t i = 0; i < kPatch; ++i) {
          if (j >= 2) __builtin_prefetch(at[i][j] + c + next);
          d[i] = lanes >= kL || at[i][j] < safe ? load_lanes(at[i][j] + c) : load_some(at[i][j] + c, lanes);
        }
        Points<kTile>::template of_input<T>(d, columns[j]);
      }
      store_points(columns, v + c);
    }
  }

  // The same if the map is the gradient of a max pool's input: each value of x goes to one of the four positions of its
  // window. kBelow and kRight: whether the tile begins with the second row and column of a window.
  template <int64_t kBelow, int64_t kRight>
  void transform_pooled(int64_t image, int64_t top, int64_t left, T* v) const {
    constexpr int64_t kRows = kPatch / 2 + kBelow, kWindows = kPatch / 2 + kRight;  // of windows
    const int64_t height = t_.height / 2, width = t_.width / 2, across = width * t_.channels;
    int64_t y[kRows], x[kWindows];
    offsets<kRows>((top - kBelow) / 2, height, across, Border::kZeros, y);
    offsets<kWindows>((left - kRight) / 2, width, t_.channels, Border::kZeros, x);
    const In* at[kRows][kWindows];
    const uint8_t* place[kRows][kWindows];
    for (int64_t i = 0; i < kRows; ++i) {
      for (int64_t j = 0; j < kWindows; ++j) {
        const bool inside = (y[i] | x[j]) >= 0;
        const int64_t index = image * height * across + y[i] + x[j];
        at[i][j] = static_cast<const In*>(inside ? t_.x : t_.zeros) + (inside ? index : 0);
        place[i][j] = inside ? t_.argmax + index : static_cast<const uint8_t*>(t_.zeros);
      }
    }
    for (int64_t c = 0; c < t_.channels; c += kL) {
      const int64_t lanes = t_.channels - c;
      V columns[kPatch][kPatch];  // [j][i]
      for (int64_t window = 0; window < kWindows; ++window) {
        V values[kRows];
        Mask places[kRows];
#pragma GCC unroll 5
        for (int64_t i = 0; i < kRows; ++i) {
          const In* from = at[i][window] + c;
          values[i] = lanes >= kL ? load_lanes(from) : load_some(from, lanes);
          Bytes bytes = {};
          std::memcpy(&bytes, place[i][window] + c, lanes >= kL ? sizeof bytes : static_cast<size_t>(lanes));
          places[i] = __builtin_convertvector(bytes, Mask);
        }
        for (int64_t right = 0; right < 2; ++right) {
          const int64_t j = 2 * window + right - kRight;
          if (j < 0 || j >= kPatch) continue;
          V d[kPatch];
#pragma GCC unroll 8
          for (int64_t i = 0; i < kPatch; ++i) {
            const int64_t row = (i + kBelow) / 2, corner = (i + kBelow) % 2 * 2;
            d[i] = where(places[row] == static_cast<Lane>(corner + right), values[row]);
          }
          Points<kTile>::template of_input<T>(d, columns[j]);
        }
      }
      store_points(columns, v + c);
    }
  }

  // x where the mask is set, else zero.
  static V where(Mask mask, V x) {
    Mask bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits &= mask;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  }

  // The second dimension of the transform, from columns [j][i].
  void store_points(const V columns[kPatch][kPatch], T* v) const {
    for (int64_t i = 0; i < kPatch; ++i) {
      V row[kPatch], points[kPatch];
#pragma GCC unroll 8
      for (int64_t j = 0; j < kPatch; ++j) row[j] = columns[j][i];
      Points<kTile>::template of_input<T>(row, points);
#pragma GCC unroll 8
      for (int64_t j = 0; j < kPatch; ++j) *reinterpret_cast<V*>(v + (i * kPatch + j) * v_point_) = points[j];
    }
  }

  void transform_output(int64_t tile, int64_t k, const T* m) const {
    V rows[kTile][kPatch];
    for (int64_t j = 0; j < kPatch; ++j) {
      V column[kPatch], y[kTile];
#pragma GCC unroll 8
      for (int64_t i = 0; i < kPatch; ++i) column[i] = *reinterpret_cast<const V*>(m + (i * kPatch + j) * m_point_);
      Points<kTile>::template to_outputs<T>(column, y);
#pragma GCC unroll 8
      for (int64_t i = 0; i < kTile; ++i) rows[i][j] = y[i];
    }
    const int64_t lanes = std::min(t_.outputs - k, kL);
    V bias = {};
    if (t_.bias)
      bias = lanes == kL ? load_lanes(static_cast<const In*>(t_.bias) + k)
                         : load_some(static_cast<const In*>(t_.bias) + k, lanes);
    V out[kTile][kTile];
    for (int64_t i = 0; i < kTile; ++i) {
      Points<kTile>::template to_outputs<T>(rows[i], out[i]);
#pragma GCC unroll 8
      for (int64_t j = 0; j < kTile; ++j) {
        out[i][j] += bias;
        if (t_.relu) out[i][j] = out[i][j] < 0 ? V{} : out[i][j];  // keeps NaN
      }
    }
    const int64_t image = tile / tiles_, in_image = tile % tiles_;
    const int64_t top = in_image / across_ * kTile, left = in_image % across_ * kTile;
    if (t_.out_argmax)
      pool_tile(out, image, top / 2, left / 2, k, lanes);
    else
      store_tile(out, image, top, left, k, lanes);
  }

  void store_tile(const V out[kTile][kTile], int64_t image, int64_t top, int64_t left, int64_t k, int64_t lanes) const {
    const int64_t height = std::min(kTile, t_.out_height - top), width = std::min(kTile, t_.out_width - left);
    for (int64_t i = 0; i < height; ++i) {
      for (int64_t j = 0; j < width; ++j) {
        const int64_t index = ((image * t_.out_height + top + i) * t_.out_width + left + j) * t_.outputs + k;
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
  void pool_tile(const V out[kTile][kTile], int64_t image, int64_t top, int64_t left, int64_t k, int64_t lanes) const {
    const int64_t rows = t_.out_height / 2, columns = t_.out_width / 2;
    const int64_t height = std::min(kTile / 2, rows - top), width = std::min(kTile / 2, columns - left);
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
        const int64_t index = ((image * rows + top + i) * columns + left + j) * t_.outputs + k;
        In* to = static_cast<In*>(t_.out) + index;
        lanes == kL ? store_lanes(to, best) : store_some(to, best, lanes);
        const Bytes bytes = __builtin_convertvector(place, Bytes);
        std::memcpy(t_.out_argmax + index, &bytes, static_cast<size_t>(lanes));
      }
    }
  }

  const ConvTask& t_;
  const int64_t across_, tiles_, row_, v_point_, m_point_;
};

template <typename F>
inline void with_winograd(const ConvTask& t, const F& f) {
  with_storage_type(t.dtype, [&](auto in) {
    using In = decltype(in);
    if constexpr (std::is_same_v<In, float> || std::is_same_v<In, Brain>)
      if (t.tile == 6) return f(Winograd<In, 6>(t));
    f(Winograd<In, 4>(t));
  });
}

inline ConvSizes conv_sizes(const ConvTask& t) {
  ConvSizes sizes;
  with_winograd(t, [&](const auto& winograd) { sizes = winograd.sizes(); });
  return sizes;
}
inline void conv_input(const ConvTask& t, int64_t first, int64_t last) {
  with_winograd(t, [&](const auto& winograd) { winograd.input(first, last); });
}
inline void conv_weights(const ConvTask& t, int64_t block, int64_t run) {
  with_winograd(t, [&](const auto& winograd) { winograd.weights(block, run); });
}
inline void conv_products(const ConvTask& t, int64_t block, int64_t run, int64_t first, int64_t last) {
  with_winograd(t, [&](const auto& winograd) { winograd.products(block, run, first, last); });
}
inline void conv_outputs(const ConvTask& t, int64_t block, int64_t first, int64_t last) {
  with_winograd(t, [&](const auto& winograd) { winograd.outputs(block, first, last); });
}

}  // namespace fastnst::cpu::FASTNST_ISA
