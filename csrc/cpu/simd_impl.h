// Vectors of one register, conversions between storage and compute types, and the one product all matrix work is made
// of.

namespace fastnst::cpu::FASTNST_ISA {

constexpr int64_t kTileRows = FASTNST_TILE_ROWS;

template <typename T>
struct VectorOf {
  typedef T type __attribute__((vector_size(FASTNST_VECTOR_BYTES)));
};
template <typename T>
using Vector = typename VectorOf<T>::type;

template <typename T>
constexpr int64_t kLanes = FASTNST_VECTOR_BYTES / static_cast<int64_t>(sizeof(T));
// A tile of a product is kTileRows x kTileColumns: two registers wide.
template <typename T>
constexpr int64_t kTileColumns = 2 * kLanes<T>;

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

// Cache-line aligned scratch memory for one task.
template <typename T>
struct Scratch {
  explicit Scratch(int64_t n)
      : data(static_cast<T*>(
            ::operator new(static_cast<size_t>(std::max<int64_t>(n, 1)) * sizeof(T), std::align_val_t(64)))) {}
  ~Scratch() { ::operator delete(data, std::align_val_t(64)); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* data;
};

// Terms are summed in runs this long, and then the runs: where all terms are alike (a flat part of a picture) rounding
// errors all have one sign and grow with the length, to 4e-6 of a float sum over 256 and 5e-7 over 8 runs of 32.
constexpr int64_t kRun = 32;

// tile[i][j] = sum over k < depth of a[i * a_row + k * a_k] * b[k * b_k + j], each run in registers from start to end.
// b and tile are aligned to a register.
template <typename T>
inline void product_tile(int64_t depth, const T* a, int64_t a_row, int64_t a_k, const T* b, int64_t b_k, T* tile) {
  for (int64_t begin = 0; begin == 0 || begin < depth; begin += kRun) {
    Vector<T> acc[kTileRows][2] = {};
    const int64_t end = std::min(begin + kRun, depth);
    for (int64_t k = begin; k < end; ++k) {
      const Vector<T> b0 = *reinterpret_cast<const Vector<T>*>(b + k * b_k);
      const Vector<T> b1 = *reinterpret_cast<const Vector<T>*>(b + k * b_k + kLanes<T>);
#pragma GCC unroll 8
      for (int64_t i = 0; i < kTileRows; ++i) {
        const T x = a[i * a_row + k * a_k];
        acc[i][0] += x * b0;
        acc[i][1] += x * b1;
      }
    }
#pragma GCC unroll 8
    for (int64_t i = 0; i < kTileRows; ++i) {
      Vector<T>* to = reinterpret_cast<Vector<T>*>(tile + i * kTileColumns<T>);
      to[0] = begin ? to[0] + acc[i][0] : acc[i][0];
      to[1] = begin ? to[1] + acc[i][1] : acc[i][1];
    }
  }
}

}  // namespace fastnst::cpu::FASTNST_ISA
