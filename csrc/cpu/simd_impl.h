// Vectors of one register, conversions between storage and compute types, and the product that all matrix kernels use.

namespace fastnst::cpu::FASTNST_ISA {

// Two bfloat16 values in one word, terms k and k + 1 of a product; the first is the lower half.
struct Pair {
  uint32_t bits;
};

template <typename T>
struct VectorOf {
  typedef T type __attribute__((vector_size(FASTNST_VECTOR_BYTES)));
};
template <>
struct VectorOf<Pair> {
  typedef uint32_t type __attribute__((vector_size(FASTNST_VECTOR_BYTES)));
};
template <typename T>
using Vector = typename VectorOf<T>::type;

template <typename T>
constexpr int64_t kLanes = FASTNST_VECTOR_BYTES / static_cast<int64_t>(sizeof(T));
// A tile of a product is kTileRows x kTileColumns: two registers wide, and half of the registers hold its sums. Its
// rows lie in one packed panel of kTileColumns.
template <typename T>
constexpr int64_t kTileColumns = 2 * kLanes<T>;
template <typename T>
constexpr int64_t kTileRows = FASTNST_REGISTERS / 4 < kTileColumns<T> ? FASTNST_REGISTERS / 4 : kTileColumns<T>;
// Where the rows need not lie in one panel, there are as many as leave registers for one row of the other operand and a
// number. AVX-512 multiplies by a number in memory.
constexpr int64_t kPanelRows = FASTNST_VECTOR_BYTES == 64 ? 12 : 6;

template <typename T>
constexpr int64_t padded(int64_t n) {
  return (n + kTileColumns<T> - 1) / kTileColumns<T> * kTileColumns<T>;
}

// Storage types. Arithmetic is done in Compute: float, or double for double.
struct Brain {
  uint16_t bits;
};
using Half = c10::Half;

template <typename In>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <typename In>
using Compute = typename ComputeOf<In>::type;

inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(Half x) { return static_cast<float>(x); }
inline float widen(Brain x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float y;
  std::memcpy(&y, &bits, sizeof y);
  return y;
}

inline void store(float* out, float x) { *out = x; }
inline void store(double* out, double x) { *out = x; }
inline void store(Half* out, float x) { *out = Half(x); }
inline void store(Brain* out, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  out->bits = static_cast<uint16_t>(x != x ? 0x7fc0 : rounded);
}

template <typename F>
inline void with_storage_type(ScalarType dtype, const F& f) {
  switch (dtype) {
    case ScalarType::Double:
      return f(double{});
    case ScalarType::BFloat16:
      return f(Brain{});
    case ScalarType::Half:
      return f(Half{});
    default:
      return f(float{});
  }
}

// The operands of a product: words of one term, summed in their own type, or pairs if there is an instruction for them.
template <typename W>
struct Product {
  using Sum = W;
  static constexpr int64_t kTerms = 1;
  static void add(Vector<W>& sum, W a, Vector<W> b) { sum += a * b; }
};
template <typename In>
struct WordOf {
  using type = Compute<In>;
};
#ifdef FASTNST_BFLOAT16_PAIRS
template <>
struct Product<Pair> {
  using Sum = float;
  static constexpr int64_t kTerms = 2;
  static void add(Vector<float>& sum, Pair a, Vector<Pair> b) {
    sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(static_cast<int>(a.bits)), (__m512bh)b);
  }
};
template <>
struct WordOf<Brain> {
  using type = Pair;
};
#endif
template <typename In>
using Word = typename WordOf<In>::type;

// The number of words that hold n terms.
template <typename W>
constexpr int64_t words(int64_t n) {
  return (n + Product<W>::kTerms - 1) / Product<W>::kTerms;
}

// The word of terms at[0] and, in a pair, at[step]; with `last` there is no second term.
template <typename In>
inline Compute<In> word(Compute<In>, const In* at, int64_t, bool) {
  return widen(*at);
}
inline Pair word(Pair, const Brain* at, int64_t step, bool last) {
  return {at[0].bits | (last ? 0u : static_cast<uint32_t>(at[step].bits) << 16)};
}

// The lower or the upper half of two interleaved vectors.
template <bool kUpper, typename V, int... kLane>
inline V interleave(V a, V b, std::integer_sequence<int, kLane...>) {
  constexpr int kCount = sizeof...(kLane);
#if defined(__clang__)
  return __builtin_shufflevector(a, b, ((kUpper ? kCount / 2 : 0) + kLane / 2 + (kLane % 2) * kCount)...);
#else
  typedef int Mask __attribute__((vector_size(kCount * sizeof(a[0]))));
  return __builtin_shuffle(a, b, Mask{((kUpper ? kCount / 2 : 0) + kLane / 2 + (kLane % 2) * kCount)...});
#endif
}

// to[i * to_row + j] = from[j][i] for words of four bytes, by log2(rows) perfect shuffles of all rows.
template <typename W>
inline void transpose(const W (&from)[kLanes<W>][kLanes<W>], W* to, int64_t to_row) {
  constexpr int64_t kRows = kLanes<W>;
  using Lanes = std::make_integer_sequence<int, kRows>;
  Vector<W> rows[kRows], next[kRows];
  std::memcpy(rows, from, sizeof rows);
#pragma GCC unroll 4
  for (int64_t left = kRows; left > 1; left /= 2) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < kRows / 2; ++i) {
      next[2 * i] = interleave<false>(rows[i], rows[i + kRows / 2], Lanes{});
      next[2 * i + 1] = interleave<true>(rows[i], rows[i + kRows / 2], Lanes{});
    }
#pragma GCC unroll 16
    for (int64_t i = 0; i < kRows; ++i) rows[i] = next[i];
  }
#pragma GCC unroll 16
  for (int64_t i = 0; i < kRows; ++i) std::memcpy(to + i * to_row, &rows[i], sizeof rows[i]);
}

// Memory for n values of one task.
template <typename T>
struct Scratch {
  explicit Scratch(int64_t n) : block(n * static_cast<int64_t>(sizeof(T))), data(static_cast<T*>(block.data())) {}
  Workspace block;
  T* data;
};

// Terms are summed in runs of this length, and then the runs. If all terms are equal (a flat part of an image),
// rounding errors have one sign and grow with the length: to 4e-6 of a float sum over 256 terms, and 5e-7 over 8 runs
// of 32.
constexpr int64_t kRun = 32;

// tile[i][j] = sum over k < depth of a[i * a_row + k * a_k] * b[k * b_k + j], in words, with each run accumulated in
// registers, for kRows rows and the first kVectors registers of columns. b and tile are aligned to a register.
template <typename W, int64_t kRows, int64_t kVectors>
inline void product_tile(int64_t depth, const W* a, int64_t a_row, int64_t a_k, const W* b, int64_t b_k,
                         typename Product<W>::Sum* tile) {
  using T = typename Product<W>::Sum;
  constexpr int64_t kWords = kRun / Product<W>::kTerms;
  for (int64_t begin = 0; begin == 0 || begin < depth; begin += kWords) {
    Vector<T> acc[kRows][kVectors] = {};
    const int64_t end = std::min(begin + kWords, depth);
    for (int64_t k = begin; k < end; ++k) {
      Vector<W> right[kVectors];
#pragma GCC unroll 2
      for (int64_t v = 0; v < kVectors; ++v)
        right[v] = *reinterpret_cast<const Vector<W>*>(b + k * b_k + v * kLanes<W>);
#pragma GCC unroll 12
      for (int64_t i = 0; i < kRows; ++i) {
        const W left = a[i * a_row + k * a_k];
#pragma GCC unroll 2
        for (int64_t v = 0; v < kVectors; ++v) Product<W>::add(acc[i][v], left, right[v]);
      }
    }
#pragma GCC unroll 12
    for (int64_t i = 0; i < kRows; ++i) {
      Vector<T>* to = reinterpret_cast<Vector<T>*>(tile + i * kTileColumns<T>);
#pragma GCC unroll 2
      for (int64_t v = 0; v < kVectors; ++v) to[v] = begin ? to[v] + acc[i][v] : acc[i][v];
    }
  }
}

// The same for `columns` columns, with the second register only if it is needed.
template <typename W, int64_t kRows>
inline void product_tile(int64_t depth, const W* a, int64_t a_row, int64_t a_k, const W* b, int64_t b_k,
                         int64_t columns, typename Product<W>::Sum* tile) {
  if (columns > kLanes<W>) {
    product_tile<W, kRows, 2>(depth, a, a_row, a_k, b, b_k, tile);
  } else {
    product_tile<W, kRows, 1>(depth, a, a_row, a_k, b, b_k, tile);
  }
}

}  // namespace fastnst::cpu::FASTNST_ISA
