// For small programs that run one kernel and compare with float64: prints "right", "wrong: ..." or a check's finding.
#pragma once

#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "../runtime.h"

namespace emulator {

// Memory with guards around it. Outputs start as NaN that must not be read.
template <typename T>
class Memory {
 public:
  enum Kind { kInput, kOutput, kZeros };

  Memory(const char* name, size_t count, Kind kind) : values_(count), cells_(count + 1, Cell{}) {
    static std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (T& value : values_) {
      if (kind == kInput) value = static_cast<T>(normal(random));
      if (kind == kOutput) value = std::numeric_limits<T>::quiet_NaN();
    }
    Region region;
    region.base = reinterpret_cast<uintptr_t>(values_.data());
    region.bytes = count * sizeof(T);
    region.shift = sizeof(T) == 8 ? 3 : sizeof(T) == 1 ? 0 : 2;
    region.writable = kind != kInput;
    region.initialized = kind != kOutput;
    region.cells = kind == kInput ? nullptr : cells_.data();
    region.name = name;
    add_region(region);
  }
  ~Memory() { remove_region(reinterpret_cast<uintptr_t>(values_.data())); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  T* data() { return values_.data(); }
  T operator[](size_t i) const { return values_[i]; }

 private:
  std::vector<T> values_;
  std::vector<Cell> cells_;
};

// The larger of two errors; NaN is the largest.
inline double larger(double a, double b) { return std::isnan(a) || b <= a ? a : b; }

// Runs `body`, which returns the largest error relative to its bound, under several schedules.
inline int drive(const std::function<double()>& body) {
  for (state.seed = 0; state.seed < 3; ++state.seed) {
    try {
      const double error = body();
      if (!(error < 1)) {
        std::printf("wrong: the error is %g of what is allowed\n", error);
        return 1;
      }
    } catch (const Violation& violation) {
      std::printf("%s\n", violation.what());
      return 1;
    }
  }
  std::printf("right\n");
  return 0;
}

}  // namespace emulator
