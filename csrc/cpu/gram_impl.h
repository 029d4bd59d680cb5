// The Gram product over blocks of positions, and the backward of a tapped layer over strips of positions.
//
// Both pack a piece of the feature map into a small aligned buffer first: that is where layouts and storage types end,
// and what follows is one float (or double) product in cache.

namespace fastnst::cpu::FASTNST_ISA {

// packed[n][c] for positions begin..begin+count, rows of `ld` values, zero beyond the last channel.
template <typename In, typename T>
inline void pack_position_major(const Features& x, int64_t b, int64_t begin, int64_t count, int64_t ld, T* packed) {
  const In* base = static_cast<const In*>(x.data) + b * x.stride_b + begin * x.stride_n;
  const int64_t channels = x.channels;
  if (x.stride_c == 1) {
    for (int64_t n = 0; n < count; ++n) {
      const In* from = base + n * x.stride_n;
      T* to = packed + n * ld;
      for (int64_t c = 0; c < channels; ++c) to[c] = widen(from[c]);
      for (int64_t c = channels; c < ld; ++c) to[c] = 0;
    }
    return;
  }
  // Transposed in squares, so that neither side leaves its cache lines half used.
  constexpr int64_t kSquare = 16;
  for (int64_t c0 = 0; c0 < channels; c0 += kSquare) {
    const int64_t c1 = std::min(c0 + kSquare, channels);
    for (int64_t n0 = 0; n0 < count; n0 += kSquare) {
      const int64_t n1 = std::min(n0 + kSquare, count);
      for (int64_t c = c0; c < c1; ++c)
        for (int64_t n = n0; n < n1; ++n) packed[n * ld + c] = widen(base[c * x.stride_c + n * x.stride_n]);
    }
  }
  for (int64_t n = 0; n < count; ++n)
    for (int64_t c = channels; c < ld; ++c) packed[n * ld + c] = 0;
}

// packed[c][n], rows of `ld` values, zero beyond the last position.
template <typename In, typename T>
inline void pack_channel_major(const Features& x, int64_t b, int64_t begin, int64_t count, int64_t ld, T* packed) {
  const In* base = static_cast<const In*>(x.data) + b * x.stride_b + begin * x.stride_n;
  for (int64_t c = 0; c < x.channels; ++c) {
    const In* from = base + c * x.stride_c;
    T* to = packed + c * ld;
    if (x.stride_n == 1) {
      for (int64_t n = 0; n < count; ++n) to[n] = widen(from[n]);
    } else {
      for (int64_t n = 0; n < count; ++n) to[n] = widen(from[n * x.stride_n]);
    }
    for (int64_t n = count; n < ld; ++n) to[n] = 0;
  }
}

template <typename In>
inline void gram_blocks(const GramTask& t) {
  using T = Compute<In>;
  const int64_t channels = t.x.channels, ld = padded<T>(channels);
  const T* weight = static_cast<const T*>(t.weight);
  Scratch<T> packed(kGramBlock * ld), weighted(weight ? kGramBlock * ld : 0);
  alignas(64) T tile[kTileRows * kTileColumns<T>];
  for (int64_t begin = t.first_block * kGramBlock; begin < t.x.positions; begin += t.block_step * kGramBlock) {
    const int64_t count = std::min(kGramBlock, t.x.positions - begin);
    pack_position_major<In, T>(t.x, t.b, begin, count, ld, packed.data);
    if (t.sum) {
      for (int64_t n = 0; n < count; ++n)
        for (int64_t c = 0; c < channels; ++c) t.sum[c] += packed.data[n * ld + c];
    }
    const T* left = packed.data;
    if (weight) {
      for (int64_t n = 0; n < count; ++n)
        for (int64_t c = 0; c < ld; ++c) weighted.data[n * ld + c] = weight[begin + n] * packed.data[n * ld + c];
      left = weighted.data;
    }
    for (int64_t i0 = t.row_begin; i0 < t.row_end; i0 += kTileRows) {
      const int64_t rows = std::min(kTileRows, t.row_end - i0);
      for (int64_t j0 = 0; j0 < i0 + rows; j0 += kTileColumns<T>) {
        product_tile<T>(count, left + i0, 1, ld, packed.data + j0, ld, tile);
        const int64_t columns = std::min(kTileColumns<T>, channels - j0);
        for (int64_t i = 0; i < rows; ++i) {
          double* to = t.gram + (i0 + i) * channels + j0;
          const T* from = tile + i * kTileColumns<T>;
          for (int64_t j = 0; j < columns; ++j) to[j] += from[j];
        }
      }
    }
  }
}

inline void gram(const GramTask& t) {
  with_storage_type(t.x.dtype, [&](auto in) { gram_blocks<decltype(in)>(t); });
}

// What is known of one strip while its tiles are finished.
template <typename In, typename T>
struct Strip {
  const BackwardTask& t;
  const In* target;
  const In* above;
  In* out;
  const T* weight;
  const T* shift;
  T content;

  explicit Strip(const BackwardTask& task)
      : t(task),
        target(static_cast<const In*>(task.target)),
        above(static_cast<const In*>(task.above)),
        out(static_cast<In*>(task.out)),
        weight(static_cast<const T*>(task.weight)),
        shift(static_cast<const T*>(task.shift)),
        content(static_cast<T>(task.content)) {}

  // Finishes `count` products in `value`, which lie `kUnit ? 1 : stride` apart in memory, first at `offset`. Along the
  // row the weight and the shift advance by their steps (one of the two is constant in it). One short loop per term, so
  // that each is vectorised.
  template <bool kUnit>
  inline void finish(T* value, const T* feature, int64_t count, int64_t offset, int64_t row_stride, const T* w,
                     int64_t w_step, const T* s, int64_t s_step) const {
    const int64_t stride = kUnit ? 1 : row_stride;
    if (w)
      for (int64_t j = 0; j < count; ++j) value[j] *= w[j * w_step];
    if (s)
      for (int64_t j = 0; j < count; ++j) value[j] += s[j * s_step];
    if (above)
      for (int64_t j = 0; j < count; ++j) value[j] += widen(above[offset + j * stride]);
    if (target)
      for (int64_t j = 0; j < count; ++j) value[j] += content * (feature[j] - widen(target[offset + j * stride]));
    if (t.relu)
      for (int64_t j = 0; j < count; ++j) value[j] = feature[j] > 0 ? value[j] : T(0);
    for (int64_t j = 0; j < count; ++j) store(out + offset + j * stride, value[j]);
  }
};

// channels_last: rows of a tile are positions, and its columns, the vector lanes, are channels.
template <typename In, typename T>
inline void backward_channels_last(const BackwardTask& t) {
  const Strip<In, T> strip(t);
  const int64_t channels = t.x.channels, ld = padded<T>(channels);
  Scratch<T> packed(kStrip * ld);
  alignas(64) T tile[kTileRows * kTileColumns<T>];
  const T* matrix = static_cast<const T*>(t.matrix);
  for (int64_t begin = t.begin; begin < t.end; begin += kStrip) {
    const int64_t count = std::min(kStrip, t.end - begin);
    pack_position_major<In, T>(t.x, t.b, begin, count, ld, packed.data);
    for (int64_t c0 = 0; c0 < channels; c0 += kTileColumns<T>) {
      const int64_t columns = std::min(kTileColumns<T>, channels - c0);
      for (int64_t i0 = 0; i0 < count; i0 += kTileRows) {
        product_tile<T>(channels, packed.data + i0 * ld, ld, 1, matrix + c0, ld, tile);
        const int64_t rows = std::min(kTileRows, count - i0);
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t n = begin + i0 + i;
          const int64_t offset = t.b * t.x.stride_b + n * t.x.stride_n + c0;
          strip.template finish<true>(tile + i * kTileColumns<T>, packed.data + (i0 + i) * ld + c0, columns, offset, 1,
                                      strip.weight ? strip.weight + n : nullptr, 0,
                                      strip.shift ? strip.shift + c0 : nullptr, 1);
        }
      }
    }
  }
}

// Any other layout, contiguous above all: rows of a tile are channels and its columns are positions.
template <typename In, typename T>
inline void backward_channels_first(const BackwardTask& t) {
  const Strip<In, T> strip(t);
  const int64_t channels = t.x.channels, ld = padded<T>(channels);
  Scratch<T> packed(channels * kStrip);
  alignas(64) T tile[kTileRows * kTileColumns<T>];
  const T* matrix = static_cast<const T*>(t.matrix);
  for (int64_t begin = t.begin; begin < t.end; begin += kStrip) {
    const int64_t count = std::min(kStrip, t.end - begin);
    pack_channel_major<In, T>(t.x, t.b, begin, count, kStrip, packed.data);
    for (int64_t c0 = 0; c0 < channels; c0 += kTileRows) {
      const int64_t rows = std::min(kTileRows, channels - c0);
      for (int64_t j0 = 0; j0 < count; j0 += kTileColumns<T>) {
        product_tile<T>(channels, matrix + c0 * ld, ld, 1, packed.data + j0, kStrip, tile);
        const int64_t columns = std::min(kTileColumns<T>, count - j0);
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t c = c0 + i;
          const int64_t offset = t.b * t.x.stride_b + c * t.x.stride_c + (begin + j0) * t.x.stride_n;
          T* value = tile + i * kTileColumns<T>;
          const T* feature = packed.data + c * kStrip + j0;
          const T* w = strip.weight ? strip.weight + begin + j0 : nullptr;
          const T* shift = strip.shift ? strip.shift + c : nullptr;
          if (t.x.stride_n == 1) {
            strip.template finish<true>(value, feature, columns, offset, 1, w, 1, shift, 0);
          } else {
            strip.template finish<false>(value, feature, columns, offset, t.x.stride_n, w, 1, shift, 0);
          }
        }
      }
    }
  }
}

inline void backward(const BackwardTask& t) {
  with_storage_type(t.x.dtype, [&](auto in) {
    using In = decltype(in);
    if (t.x.stride_c == 1) {
      backward_channels_last<In, Compute<In>>(t);
    } else {
      backward_channels_first<In, Compute<In>>(t);
    }
  });
}

}  // namespace fastnst::cpu::FASTNST_ISA
