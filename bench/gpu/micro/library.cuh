// Of the micro-benchmark: the same products by cuBLAS, with -DFASTNST_CUBLAS where the library is there.
#pragma once

#include "harness.cuh"

#ifdef FASTNST_CUBLAS
#include <cublas_v2.h>
#endif

namespace micro {

#ifdef FASTNST_CUBLAS
constexpr bool kLibrary = true;

inline void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "micro: %s: cuBLAS status %d\n", what, static_cast<int>(status));
  std::exit(1);
}

class Library {
 public:
  Library() { check(cublasCreate(&handle_), "cublasCreate"); }
  ~Library() { cublasDestroy(handle_); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // c [m, n] = alpha op(a) op(b) + beta c in columns; a and b are of type T.
  template <typename T, typename Out>
  void multiply(const Problem& p, bool turn_a, bool turn_b, int64_t m, int64_t n, int64_t depth, float alpha,
                const T* a, const T* b, float beta, Out* c) const {
    const auto operation = [](bool turn) { return turn ? CUBLAS_OP_T : CUBLAS_OP_N; };
    const auto rate = p.precision == "tf32" ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const int rows_a = static_cast<int>(turn_a ? depth : m), rows_b = static_cast<int>(turn_b ? n : depth);
    check(cublasGemmEx(handle_, operation(turn_a), operation(turn_b), static_cast<int>(m), static_cast<int>(n),
                       static_cast<int>(depth), &alpha, a, kind<T>(), rows_a, b, kind<T>(), rows_b, &beta, c,
                       kind<Out>(), static_cast<int>(m), rate, CUBLAS_GEMM_DEFAULT),
          "cublasGemmEx");
  }

  // out = scale F F^T + beta out
  template <typename T>
  void gram(const Problem& p, const T* x, float scale, float beta, float* out) const {
    const int64_t c = p.channels();
    multiply(p, !p.channels_last, p.channels_last, c, c, p.positions(), scale, x, x, beta, out);
  }

  // out += factor R F, where R is symmetric
  template <typename T>
  void backward(const Problem& p, const T* matrix, const T* x, float factor, T* out) const {
    const int64_t c = p.channels(), n = p.positions();
    if (p.channels_last) return multiply(p, false, false, c, n, c, factor, matrix, x, 1.f, out);
    multiply(p, false, false, n, c, c, factor, x, matrix, 1.f, out);
  }

 private:
  template <typename T>
  static cudaDataType kind() {
    return std::is_same<T, float>::value ? CUDA_R_32F : std::is_same<T, __half>::value ? CUDA_R_16F : CUDA_R_16BF;
  }
  cublasHandle_t handle_;
};
#else
constexpr bool kLibrary = false;

class Library {
 public:
  template <typename T, typename Out>
  void multiply(const Problem&, bool, bool, int64_t, int64_t, int64_t, float, const T*, const T*, float, Out*) const {}
  template <typename T>
  void gram(const Problem&, const T*, float, float, float*) const {}
  template <typename T>
  void backward(const Problem&, const T*, const T*, float, T*) const {}
};
#endif

}  // namespace micro
