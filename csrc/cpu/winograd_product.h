// The product of Winograd's algorithm at one point: rows of transformed tiles by columns of transformed weights.

namespace fastnst::cpu::FASTNST_ISA {

// Rows of a product, two registers of sums each; the last rows are multiplied in thirds of this.
constexpr int64_t kPanel = kPanelRows, kThird = kPanel / 3;
static_assert(ConvTask::kPanel % kPanel == 0);
// out[i][j] (+)= sum over c < depth of v[i * v_row + c] * u[c * kTileColumns + j] for kRows rows and the columns of the
// first kRegisters registers. Fetches the same part of the rows after these, and depth lines from `next`.
template <int64_t kRows, int64_t kRegisters, typename T>
inline void panel_product(int64_t depth, const T* v, int64_t v_row, const T* u, const T* next, T* out, bool add) {
  Vector<T> acc[kRows][kRegisters] = {};
  int64_t c = 0;
#ifdef FASTNST_LANE_OPERANDS
  for (; c + kLanes<T> <= depth; c += kLanes<T>) {
    Vector<T> rows[kRows];
#pragma GCC unroll 6
    for (int64_t i = 0; i < kRows; ++i) rows[i] = *reinterpret_cast<const Vector<T>*>(v + i * v_row + c);
#pragma GCC unroll 4
    for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
      const Vector<T>* columns = reinterpret_cast<const Vector<T>*>(u + (c + lane) * kTileColumns<T>);
#pragma GCC unroll 6
      for (int64_t i = 0; i < kRows; ++i)
#pragma GCC unroll 2
        for (int64_t r = 0; r < kRegisters; ++r) acc[i][r] += rows[i][lane] * columns[r];
    }
  }
#endif
  constexpr int64_t kLine = 64 / sizeof(T);
  for (; c < depth; ++c) {
    __builtin_prefetch(v + (kRows + c % kLine) * v_row + c / kLine * kLine);
    __builtin_prefetch(next + c * kLine);
    const Vector<T>* columns = reinterpret_cast<const Vector<T>*>(u + c * kTileColumns<T>);
#pragma GCC unroll 12
    for (int64_t i = 0; i < kRows; ++i) {
      const T x = v[i * v_row + c];
#pragma GCC unroll 2
      for (int64_t r = 0; r < kRegisters; ++r) acc[i][r] += x * columns[r];
    }
  }
#pragma GCC unroll 12
  for (int64_t i = 0; i < kRows; ++i) {
    Vector<T>* to = reinterpret_cast<Vector<T>*>(out + i * ConvTask::kColumns);
#pragma GCC unroll 2
    for (int64_t r = 0; r < kRegisters; ++r) to[r] = add ? to[r] + acc[i][r] : acc[i][r];
  }
}

}  // namespace fastnst::cpu::FASTNST_ISA
