// Loads and stores of one register of any storage type, whole or in part.

namespace fastnst::cpu::FASTNST_ISA {

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

}  // namespace fastnst::cpu::FASTNST_ISA
