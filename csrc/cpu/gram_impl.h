// The Gram product over blocks of positions, and the backward of a layer with losses over strips of positions.
//
// Both first pack a part of the feature map into a small aligned buffer of words, which handles layouts and storage
// types; the rest is one product in cache.

namespace fastnst::cpu::FASTNST_ISA {

// to[k * to_k + j] = the word of terms k.. of column j, read from at[k * step_k + j * step_j].
template <typename W, bool kUnit, typename In>
inline void pack(const In* at, int64_t terms, int64_t step_k, int64_t columns, int64_t step_j, W* to, int64_t to_k) {
  constexpr int64_t kTerms = Product<W>::kTerms, kSquare = kLanes<W>;
  const int64_t step = kUnit ? 1 : step_k, whole = terms / kTerms;
  if (step_j == 1) {
    for (int64_t k = 0; k < whole; ++k)
      for (int64_t j = 0; j < columns; ++j) to[k * to_k + j] = word(W{}, at + k * kTerms * step + j, step, false);
  } else {
    // Transposed in square blocks, so that both sides use whole cache lines.
    for (int64_t k0 = 0; k0 < whole; k0 += kSquare) {
      for (int64_t j0 = 0; j0 < columns; j0 += kSquare) {
        const int64_t k1 = std::min(k0 + kSquare, whole), j1 = std::min(j0 + kSquare, columns);
        if constexpr (sizeof(W) == 4 && kUnit) {
          if (k1 - k0 == kSquare && j1 - j0 == kSquare) {
            alignas(64) W square[kSquare][kSquare];
            for (int64_t j = 0; j < kSquare; ++j)
              for (int64_t k = 0; k < kSquare; ++k)
                square[j][k] = word(W{}, at + (k0 + k) * kTerms + (j0 + j) * step_j, 1, false);
            transpose<W>(square, to + k0 * to_k + j0, to_k);
            continue;
          }
        }
        for (int64_t j = j0; j < j1; ++j)
          for (int64_t k = k0; k < k1; ++k)
            to[k * to_k + j] = word(W{}, at + k * kTerms * step + j * step_j, step, false);
      }
    }
  }
  if (whole * kTerms < terms)
    for (int64_t j = 0; j < columns; ++j)
      to[whole * to_k + j] = word(W{}, at + whole * kTerms * step + j * step_j, step, true);
}

// The same for one column of contiguous terms.
template <typename W, typename In>
inline void pack_line(const In* at, int64_t terms, W* to) {
  constexpr int64_t kTerms = Product<W>::kTerms;
  const int64_t whole = terms / kTerms;
  if constexpr (sizeof(W) == kTerms * sizeof(In)) {
    std::memcpy(to, at, static_cast<size_t>(whole) * sizeof(W));
  } else {
    for (int64_t k = 0; k < whole; ++k) to[k] = word(W{}, at + k * kTerms, 1, false);
  }
  if (whole * kTerms < terms) to[whole] = word(W{}, at + whole * kTerms, 1, true);
}

// Packs channels 0..channels of positions begin..begin+count into panels of kTileColumns channels: a row of a panel has
// one word of each channel, whose terms are positions. Channels beyond the last are zero.
template <typename In, typename W>
inline void pack_panels(const Features& x, int64_t b, int64_t begin, int64_t count, int64_t channels, W* packed) {
  const In* base = static_cast<const In*>(x.data) + b * x.stride_b + begin * x.stride_n;
  const int64_t depth = words<W>(count);
  constexpr int64_t kPanel = kTileColumns<W>;
  for (int64_t c0 = 0; c0 < channels; c0 += kPanel) {
    W* panel = packed + c0 * depth;
    const int64_t columns = std::min(kPanel, channels - c0);
    if (x.stride_n == 1) {
      pack<W, true>(base + c0 * x.stride_c, count, 1, columns, x.stride_c, panel, kPanel);
    } else {
      pack<W, false>(base + c0 * x.stride_c, count, x.stride_n, columns, x.stride_c, panel, kPanel);
    }
    for (int64_t k = 0; columns < kPanel && k < depth; ++k)
      for (int64_t j = columns; j < kPanel; ++j) panel[k * kPanel + j] = W{};
  }
}

template <typename T>
inline double both(T x) {
  return x;
}
inline double both(Pair x) {
  return double(widen(Brain{static_cast<uint16_t>(x.bits)})) + widen(Brain{static_cast<uint16_t>(x.bits >> 16)});
}

template <typename In, typename W>
inline void gram_blocks(const GramTask& t) {
  using T = typename Product<W>::Sum;
  constexpr int64_t kPanel = kTileColumns<W>;
  const int64_t block = gram_block(t.x.channels), size = words<W>(block) * padded<W>(t.row_end);
  const T* weight = static_cast<const T*>(t.weight);
  Scratch<W> packed(size), weighted(weight ? size : 0);
  alignas(64) T tile[kTileRows<W> * kPanel];
  for (int64_t begin = t.first_block * block; begin < t.x.positions; begin += t.block_step * block) {
    const int64_t count = std::min(block, t.x.positions - begin), depth = words<W>(count);
    pack_panels<In, W>(t.x, t.b, begin, count, t.row_end, packed.data);
    const W* left = packed.data;
    if constexpr (std::is_same_v<W, T>) {
      if (weight) {
        for (int64_t c0 = 0; c0 < t.row_end; c0 += kPanel)
          for (int64_t k = 0; k < depth; ++k)
            for (int64_t j = c0 * depth + k * kPanel; j < c0 * depth + (k + 1) * kPanel; ++j)
              weighted.data[j] = weight[begin + k] * packed.data[j];
        left = weighted.data;
      }
    }
    if (t.sum) {
      for (int64_t c0 = t.row_begin; c0 < t.row_end; c0 += kPanel)
        for (int64_t k = 0; k < depth; ++k)
          for (int64_t c = c0; c < std::min(c0 + kPanel, t.row_end); ++c)
            t.sum[c - t.row_begin] += both(left[c0 * depth + k * kPanel + c - c0]);
    }
    for (int64_t j0 = 0; j0 < t.row_end; j0 += kPanel) {
      for (int64_t i0 = std::max(t.row_begin, j0); i0 < t.row_end; i0 += kTileRows<W>) {
        const int64_t rows = std::min(kTileRows<W>, t.row_end - i0), columns = std::min(kPanel, i0 + rows - j0);
        const W* a = left + i0 / kPanel * kPanel * depth + i0 % kPanel;
        product_tile<W, kTileRows<W>>(depth, a, 1, kPanel, packed.data + j0 * depth, kPanel, columns, tile);
        for (int64_t i = 0; i < rows; ++i) {
          double* to = t.gram + (i0 + i - t.row_begin) * t.row_stride + j0;
          const T* from = tile + i * kPanel;
          for (int64_t j = 0; j < columns; ++j) to[j] += from[j];
        }
      }
    }
  }
}

inline void gram(const GramTask& t) {
  with_storage_type(t.x.dtype, [&](auto in) {
    using In = decltype(in);
    if (t.weight) {
      gram_blocks<In, Compute<In>>(t);  // a weighted feature is not exact in bfloat16
    } else {
      gram_blocks<In, Word<In>>(t);
    }
  });
}

// The words of a backward. A matrix in bfloat16 costs accuracy, which averages out over many channels
// (docs/experiments/gram_bf16.md); with few channels the kernel is memory-bound.
template <typename In, typename F>
inline void with_word(In, int64_t channels, const F& f) {
  constexpr int64_t kMany = 64;
  if (channels >= kMany) {
    f(Word<In>{});
  } else {
    f(Compute<In>{});
  }
}

inline int64_t matrix_rows(ScalarType dtype, int64_t channels) {
  int64_t rows = 0;
  with_storage_type(dtype,
                    [&](auto in) { with_word(in, channels, [&](auto w) { rows = words<decltype(w)>(channels); }); });
  return rows;
}

inline float as_word(float, float first, float) { return first; }
inline double as_word(double, double first, double) { return first; }
inline Pair as_word(Pair, float first, float second) {
  Brain terms[2];
  store(terms, first);
  store(terms + 1, second);
  return word(Pair{}, terms, 1, false);
}

template <typename T, typename W>
inline void matrix_of_words(const MatrixTask& t) {
  constexpr int64_t kTerms = Product<W>::kTerms;
  const T* a = static_cast<const T*>(t.a);
  const int64_t channels = t.channels, ld = padded<W>(channels);
  Scratch<T> terms(kTerms * channels);
  for (int64_t k = t.row_begin; k < t.row_end; ++k) {
    for (int64_t r = 0; r < kTerms; ++r) {
      const int64_t i = kTerms * k + r;
      T* to = terms.data + r * channels;
      for (int64_t j = 0; j < channels; ++j) to[j] = i < channels ? a[i * channels + j] : T(0);
      for (int64_t j = 0; t.symmetrize && i < channels && j < channels; ++j) to[j] += a[j * channels + i];
    }
    W* to = static_cast<W*>(t.out) + k * ld;
    const T* second = terms.data + (kTerms - 1) * channels;
    for (int64_t j = 0; j < channels; ++j) to[j] = as_word(W{}, terms.data[j], second[j]);
    for (int64_t j = channels; j < ld; ++j) to[j] = W{};
  }
}

inline void matrix(const MatrixTask& t) {
  with_storage_type(t.dtype, [&](auto in) {
    using In = decltype(in);
    with_word(in, t.channels, [&](auto w) { matrix_of_words<Compute<In>, decltype(w)>(t); });
  });
}

// The parameters of a strip for finishing its tiles.
template <typename In, typename T>
struct Strip {
  const BackwardTask& t;
  const In* x;
  const In* target;
  const In* above;
  In* out;
  const T* weight;
  const T* shift;
  T factor, content;

  explicit Strip(const BackwardTask& task)
      : t(task),
        x(static_cast<const In*>(task.x.data)),
        target(static_cast<const In*>(task.target)),
        above(static_cast<const In*>(task.above)),
        out(static_cast<In*>(task.out)),
        weight(static_cast<const T*>(task.weight)),
        shift(static_cast<const T*>(task.shift)),
        factor(static_cast<T>(task.factor)),
        content(static_cast<T>(task.content)) {}

  // Adds the other terms to `count` products in `value` and stores them from `offset` with stride `kUnit ? 1 : stride`.
  // With kChannels the row has the channels of one position, which share a weight; else the positions of one channel,
  // which share a shift.
  template <bool kUnit, bool kChannels>
  inline void finish(const T* value, int64_t count, int64_t offset, int64_t stride, const T* w, const T* s) const {
    int64_t j = 0;
    if constexpr (kUnit)
      for (; j + kLanes<T> <= count; j += kLanes<T>) finish_lanes<kChannels>(value + j, offset + j, w, s, j);
    for (; j < count; ++j) {
      const int64_t at = offset + j * (kUnit ? 1 : stride);
      T y = value[j] * factor;
      if (s) y += s[kChannels ? j : 0];
      if (w) y *= w[kChannels ? 0 : j];
      if (above) y += widen(above[at]);
      if (target) y += content * (widen(x[at]) - widen(target[at]));
      if (t.relu) y = widen(x[at]) > 0 ? y : T(0);
      store(out + at, y);
    }
  }

  // One register of a row with unit stride.
  template <bool kChannels>
  inline void finish_lanes(const T* value, int64_t at, const T* w, const T* s, int64_t j) const {
    Vector<T> y = load_lanes(value) * factor;
    if (s) y += kChannels ? load_lanes(s + j) : Vector<T>{} + *s;
    if (w) y *= kChannels ? Vector<T>{} + *w : load_lanes(w + j);
    if (above) y += load_lanes(above + at);
    if (target || t.relu) {
      const Vector<T> feature = load_lanes(x + at);
      if (target) y += content * (feature - load_lanes(target + at));
      if (t.relu) y = feature > 0 ? y : Vector<T>{};
    }
    store_lanes(out + at, y);
  }
};

// channels_last: the rows of a tile are positions; its columns, the vector lanes, are channels.
template <typename In, typename W>
inline void backward_channels_last(const BackwardTask& t) {
  using T = typename Product<W>::Sum;
  const Strip<In, T> strip(t);
  const int64_t channels = t.x.channels, depth = words<W>(channels), ld = padded<W>(channels);
  const int64_t length = strip_length(channels);
  Scratch<W> packed((length + kPanelRows) * depth);
  alignas(64) T tile[kPanelRows * kTileColumns<W>];
  const W* matrix = static_cast<const W*>(t.matrix);
  for (int64_t begin = t.begin; begin < t.end; begin += length) {
    const int64_t count = std::min(length, t.end - begin), first = t.b * t.x.stride_b + begin * t.x.stride_n;
    for (int64_t n = 0; n < count; ++n)
      pack_line(strip.x + first + n * t.x.stride_n, channels, packed.data + n * depth);
    for (int64_t c0 = t.channel_begin; c0 < t.channel_end; c0 += kTileColumns<W>) {
      const int64_t columns = std::min(kTileColumns<W>, t.channel_end - c0);
      for (int64_t i0 = 0; i0 < count; i0 += kPanelRows) {
        product_tile<W, kPanelRows>(depth, packed.data + i0 * depth, depth, 1, matrix + c0, ld, columns, tile);
        const int64_t rows = std::min(kPanelRows, count - i0);
        for (int64_t i = 0; i < rows; ++i)
          strip.template finish<true, true>(tile + i * kTileColumns<W>, columns, first + (i0 + i) * t.x.stride_n + c0,
                                            1, strip.weight ? strip.weight + begin + i0 + i : nullptr,
                                            strip.shift ? strip.shift + c0 : nullptr);
      }
    }
  }
}

// Other layouts, mainly contiguous: the rows of a tile are channels; its columns are positions.
template <typename In, typename W>
inline void backward_channels_first(const BackwardTask& t) {
  using T = typename Product<W>::Sum;
  const Strip<In, T> strip(t);
  const int64_t channels = t.x.channels, depth = words<W>(channels), ld = padded<W>(channels);
  const int64_t length = strip_length(channels), row = padded<W>(length);
  Scratch<W> packed(depth * row);
  alignas(64) T tile[std::max(kPanelRows, kTileRows<W>) * kTileColumns<W>];
  const W* matrix = static_cast<const W*>(t.matrix);
  for (int64_t begin = t.begin; begin < t.end; begin += length) {
    const int64_t count = std::min(length, t.end - begin), first = t.b * t.x.stride_b + begin * t.x.stride_n;
    pack<W, false>(strip.x + first, channels, t.x.stride_c, count, t.x.stride_n, packed.data, row);
    for (int64_t c0 = t.channel_begin, rows = 0; c0 < t.channel_end; c0 += rows) {
      // Near the end a smaller tile, which begins earlier if some of its rows would lie beyond the matrix.
      const bool whole = c0 + kPanelRows <= ld;
      const int64_t first_row = whole ? c0 : std::min(c0, ld - kTileRows<W>), skipped = c0 - first_row;
      rows = std::min(whole ? kPanelRows : kTileRows<W> - skipped, t.channel_end - c0);
      for (int64_t j0 = 0; j0 < count; j0 += kTileColumns<W>) {
        const int64_t columns = std::min(kTileColumns<W>, count - j0);
        if (whole) {
          product_tile<W, kPanelRows>(depth, matrix + c0, 1, ld, packed.data + j0, row, columns, tile);
        } else {
          product_tile<W, kTileRows<W>>(depth, matrix + first_row, 1, ld, packed.data + j0, row, columns, tile);
        }
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t c = c0 + i, offset = first + c * t.x.stride_c + j0 * t.x.stride_n;
          const T* value = tile + (skipped + i) * kTileColumns<W>;
          const T* w = strip.weight ? strip.weight + begin + j0 : nullptr;
          const T* shift = strip.shift ? strip.shift + c : nullptr;
          if (t.x.stride_n == 1) {
            strip.template finish<true, false>(value, columns, offset, 1, w, shift);
          } else {
            strip.template finish<false, false>(value, columns, offset, t.x.stride_n, w, shift);
          }
        }
      }
    }
  }
}

inline void backward(const BackwardTask& t) {
  with_storage_type(t.x.dtype, [&](auto in) {
    using In = decltype(in);
    with_word(in, t.x.channels, [&](auto w) {
      if (t.x.stride_c == 1) {
        backward_channels_last<In, decltype(w)>(t);
      } else {
        backward_channels_first<In, decltype(w)>(t);
      }
    });
  });
}

}  // namespace fastnst::cpu::FASTNST_ISA
