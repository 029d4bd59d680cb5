// quantile_residual_ on the CPU: each row is sorted by its bits, and its values are compared with the quantiles in
// place.
#include <cstring>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>

#include "chunks.h"
#include "kernels.h"
#include "workspace.h"

namespace fastnst::cpu {
namespace {

constexpr int64_t kGroupValues = int64_t{1} << 22;  // values of rows that are copied at a time where they are strided
constexpr int64_t kTile = 16;                       // rows and positions of a transposed tile: a cache line of float32

// An unsigned integer of the order of x: -0 equals 0, and nan is above all others, as in torch.sort.
template <typename T>
using Key = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <typename T>
Key<T> key_of(T x) {
  using K = Key<T>;
  constexpr K kSign = K{1} << (8 * sizeof(K) - 1);
  const T positive_zero = x + T{0};
  K bits;
  std::memcpy(&bits, &positive_zero, sizeof bits);
  const K key = bits ^ (bits & kSign ? ~K{0} : kSign);
  return x == x ? key : ~K{0};
}

template <typename T>
T value_of(Key<T> key) {
  using K = Key<T>;
  constexpr K kSign = K{1} << (8 * sizeof(K) - 1);
  const K bits = key ^ (key & kSign ? kSign : ~K{0});
  T x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// A stable radix sort of the values of one row, in the memory of one thread.
template <typename T>
class RowSort {
 public:
  struct Entry {
    Key<T> key;
    uint32_t position;
    T value() const { return value_of<T>(key); }
  };

  explicit RowSort(int64_t n)
      : n_(n), counts_(kDigits * kBuckets * static_cast<int64_t>(sizeof(uint32_t))), from_(bytes()), to_(bytes()) {}

  // Calls emit(rank, entry) for all values of x, not in the order of ranks. Once it is called for a position, x is not
  // read there again.
  template <typename Emit>
  void operator()(const T* x, const Emit& emit) {
    prepare(x);
    if (used_ == 1) {
      distribute(digits_[0], from_row(x), emit);
    } else {
      distribute(digits_[used_ - 1], from_entries(passes(x, used_ - 1)), emit);
    }
  }

  // The values of x in their order.
  const Entry* sorted(const T* x) {
    prepare(x);
    return passes(x, used_);
  }

 private:
  static constexpr int64_t kBits = 11, kBuckets = int64_t{1} << kBits;
  static constexpr int64_t kDigits = (8 * static_cast<int64_t>(sizeof(T)) + kBits - 1) / kBits;

  int64_t bytes() const { return n_ * static_cast<int64_t>(sizeof(Entry)); }
  uint32_t* counts(int64_t d) const { return static_cast<uint32_t*>(counts_.data()) + d * kBuckets; }
  static int64_t digit(Key<T> key, int64_t d) { return static_cast<int64_t>(key >> (d * kBits)) & (kBuckets - 1); }

  static auto from_row(const T* x) {
    return [x](int64_t i) { return Entry{key_of(x[i]), static_cast<uint32_t>(i)}; };
  }
  static auto from_entries(const Entry* entries) {
    return [entries](int64_t i) { return entries[i]; };
  }

  // Counts the digits, and finds those that are not the same in all values: at least one.
  void prepare(const T* x) {
    std::memset(counts_.data(), 0, kDigits * kBuckets * sizeof(uint32_t));
    for (int64_t i = 0; i < n_; ++i) {
      const Key<T> key = key_of(x[i]);
      for (int64_t d = 0; d < kDigits; ++d) ++counts(d)[digit(key, d)];
    }
    used_ = 0;
    const Key<T> key = key_of(x[0]);
    for (int64_t d = 0; d < kDigits; ++d)
      if (counts(d)[digit(key, d)] != n_) digits_[used_++] = d;
    if (used_ == 0) digits_[used_++] = 0;
  }

  // Sorts by the first digits that differ.
  const Entry* passes(const T* x, int64_t count) {
    Entry *from = static_cast<Entry*>(from_.data()), *to = static_cast<Entry*>(to_.data());
    for (int64_t i = 0; i < count; ++i) {
      const auto put = [to](int64_t rank, const Entry& entry) { to[rank] = entry; };
      if (i == 0) {
        distribute(digits_[i], from_row(x), put);
      } else {
        distribute(digits_[i], from_entries(from), put);
      }
      std::swap(from, to);
    }
    return from;
  }

  template <typename Source, typename Put>
  void distribute(int64_t d, const Source& source, const Put& put) {
    uint32_t* next = counts(d);
    for (uint32_t i = 0, sum = 0; i < kBuckets; ++i) sum += std::exchange(next[i], sum);
    for (int64_t i = 0; i < n_; ++i) {
      const Entry entry = source(i);
      put(next[digit(entry.key, d)]++, entry);
    }
  }

  int64_t n_, digits_[kDigits], used_ = 0;
  Workspace counts_, from_, to_;
};

// The style's quantiles along one line, at the centers of `count` equal intervals of 0..1, interpolated between them.
template <typename T>
struct Quantiles {
  const T* at;
  int64_t count;

  double interpolated(double rank) const {
    const double last = static_cast<double>(count - 1), place = rank * static_cast<double>(count) - 0.5;
    const double index = place > 0 ? std::min(place, last) : 0;  // also for nan
    const int64_t below = static_cast<int64_t>(index), above = std::min(below + 1, count - 1);
    const double low = at[below], high = at[above];
    return low + (index - static_cast<double>(below)) * (high - low);
  }
};

struct Task {
  int64_t n = 0;  // positions
  const void* quantiles = nullptr;
  int64_t count = 0;  // quantiles per row
  const void* weight = nullptr;
  double factor = 1;
};

// Compares rows with quantiles, in the memory of one thread.
template <typename T>
class Matcher {
 public:
  explicit Matcher(const Task& task)
      : task_(task), sort_(task.n), even_(task.weight || task.count == task.n ? 0 : task.n * int64_t{sizeof(T)}) {}

  // Overwrites row x with factor * weight * (x - quantile), and returns the sum of weight * (x - quantile)^2.
  double operator()(T* x, int64_t row) {
    const Quantiles<T> quantiles{static_cast<const T*>(task_.quantiles) + row * task_.count, task_.count};
    return task_.weight ? weighted(x, quantiles) : even(x, quantiles);
  }

 private:
  double even(T* x, const Quantiles<T>& quantiles) {
    const int64_t n = task_.n;
    const T* wanted = quantiles.at;
    if (quantiles.count != n) {
      T* to = static_cast<T*>(even_.data());
      for (int64_t i = 0; i < n; ++i)
        to[i] = static_cast<T>(quantiles.interpolated((static_cast<double>(i) + 0.5) / static_cast<double>(n)));
      wanted = to;
    }
    const T factor = static_cast<T>(task_.factor / static_cast<double>(n));
    double sum = 0;
    sort_(x, [&](int64_t rank, const auto& entry) {
      const T difference = entry.value() - wanted[rank];
      x[entry.position] = factor * difference;
      sum += static_cast<double>(difference) * static_cast<double>(difference);
    });
    return sum / static_cast<double>(n);
  }

  double weighted(T* x, const Quantiles<T>& quantiles) {
    using Entry = typename RowSort<T>::Entry;
    const T* weight = static_cast<const T*>(task_.weight);
    const Entry* sorted = sort_.sorted(x);
    double sum = 0, before = 0;
    for (int64_t i = 0; i < task_.n; ++i) {
      const Entry entry = sorted[i];
      const double share = static_cast<double>(weight[entry.position]);
      const T difference = entry.value() - static_cast<T>(quantiles.interpolated(before + share / 2));
      before += share;
      x[entry.position] = static_cast<T>(task_.factor * share) * difference;
      sum += share * static_cast<double>(difference) * static_cast<double>(difference);
    }
    return sum;
  }

  Task task_;
  RowSort<T> sort_;
  Workspace even_;
};

// Calls f(thread's Matcher, row) for `rows` rows.
template <typename T, typename F>
void for_rows(int64_t rows, const Task& task, const F& f) {
  for_chunks_with(rows, [&] { return [&f, match = Matcher<T>(task)](int64_t row) mutable { f(match, row); }; });
}

// Rows of a matrix, of any strides.
template <typename T>
struct Rows {
  T* data;
  int64_t stride, step;  // of rows, and of positions
};

template <typename T>
void copy(const Rows<T>& from, const Rows<T>& to, int64_t rows, int64_t n) {
  for_ranges(n, 16 * kTile, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += kTile) {
      const int64_t last = std::min(first + kTile, end);
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t i = first; i < last; ++i)
          to.data[row * to.stride + i * to.step] = from.data[row * from.stride + i * from.step];
    }
  });
}

template <typename T>
void match(const Rows<T>& x, int64_t rows, const Task& task, double* sums) {
  const int64_t n = task.n;
  if (x.step == 1 || n == 1) {
    for_rows<T>(rows, task, [&](Matcher<T>& one, int64_t row) { sums[row] = one(x.data + row * x.stride, row); });
    return;
  }
  const int64_t group = std::max<int64_t>(kGroupValues / n / kTile, 1) * kTile;
  const int64_t stride = n + kTile;  // not a power of two
  const Workspace copied(std::min(group, rows) * stride * static_cast<int64_t>(sizeof(T)));
  const Rows<T> near{static_cast<T*>(copied.data()), stride, 1};
  for (int64_t begin = 0; begin < rows; begin += group) {
    const int64_t count = std::min(group, rows - begin);
    const Rows<T> part{x.data + begin * x.stride, x.stride, x.step};
    copy(part, near, count, n);
    for_rows<T>(count, task,
                [&](Matcher<T>& one, int64_t row) { sums[begin + row] = one(near.data + row * stride, begin + row); });
    copy(near, part, count, n);
  }
}

Tensor quantile_residual_(Tensor x, const Tensor& quantiles_, std::optional<Tensor> weight_, double factor) {
  const char* op = "quantile_residual_";
  check(x.scalar_type() == ScalarType::Float || x.scalar_type() == ScalarType::Double, op,
        ": expected x of dtype float32 or float64");
  check(x.dim() == 2, op, ": expected x of two dimensions, got ", x.dim());
  const int64_t rows = x.size(0), n = x.size(1);
  check((rows < 2 || x.stride(0) != 0) && (n < 2 || x.stride(1) != 0), op,
        ": expected x whose elements do not overlap, got one that is expanded");
  check(n <= std::numeric_limits<uint32_t>::max(), op, ": expected at most 2^32 - 1 positions, got ", n);
  check(quantiles_.dim() == 2 && quantiles_.size(0) == rows && quantiles_.size(1) > 0, op,
        ": expected quantiles of shape (", rows, ", any positive number), got ", shape_of(quantiles_));
  check(quantiles_.scalar_type() == x.scalar_type(), op, ": expected quantiles of the dtype of x");
  check(!weight_ || (weight_->dim() == 1 && weight_->size(0) == n), op, ": expected weight of shape (", n, ",), got ",
        weight_ ? shape_of(*weight_) : "");
  check(!weight_ || weight_->scalar_type() == x.scalar_type(), op, ": expected weight of the dtype of x");
  Tensor sums = allocate_zeros(x, {rows}, ScalarType::Double);
  if (x.numel() == 0) return sums;
  const Tensor quantiles = as_contiguous(quantiles_);
  std::optional<Tensor> weight;
  if (weight_) weight = as_contiguous(*weight_);
  const Task task{n, quantiles.data_ptr(), quantiles.size(1), weight ? weight->data_ptr() : nullptr, factor};
  double* to = static_cast<double*>(sums.data_ptr());
  if (x.scalar_type() == ScalarType::Double) {
    match<double>({static_cast<double*>(x.data_ptr()), x.stride(0), x.stride(1)}, rows, task, to);
  } else {
    match<float>({static_cast<float*>(x.data_ptr()), x.stride(0), x.stride(1)}, rows, task, to);
  }
  return sums;
}

}  // namespace
}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_IMPL(fastnst, CPU, m) {
  m.impl("quantile_residual_", TORCH_BOX(&fastnst::cpu::quantile_residual_));
}
