// Of the micro-benchmark: the definitions in float64, one thread or block per result and as plain as can be.
#pragma once

#include "harness.cuh"

namespace micro {

// Where features [C, N] are in memory.
struct Place {
  int64_t channels, positions;
  bool channels_last;

  explicit Place(const Problem& p) : channels(p.channels()), positions(p.positions()), channels_last(p.channels_last) {}
  __device__ int64_t at(int64_t c, int64_t n) const { return channels_last ? n * channels + c : c * positions + n; }
  __device__ int64_t channel(int64_t i) const { return channels_last ? i % channels : i / positions; }
  __device__ int64_t position(int64_t i) const { return channels_last ? i / channels : i % positions; }
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    gram_reference(Place place, const T* x, double scale, const float* target, double* out) {
  const int64_t i = blockIdx.x / place.channels, j = blockIdx.x % place.channels;
  double sum = 0;
  for (int64_t n = threadIdx.x; n < place.positions; n += kThreads)
    sum += static_cast<double>(widen(x[place.at(i, n)])) * widen(x[place.at(j, n)]);
  sum = fastnst::kernels::block_sum<kThreads>(sum);
  if (threadIdx.x == 0) out[blockIdx.x] = scale * sum - target[blockIdx.x];
}

// R = scale F F^T - target.
template <typename T>
Buffer<double> residual(const Problem& p, const Buffer<T>& x, double scale, const Buffer<float>& target) {
  Buffer<double> out(p.channels() * p.channels());
  launch(gram_reference<T>, static_cast<unsigned>(out.count()), kThreads, 0, nullptr, Place(p),
         static_cast<const T*>(x.get()), scale, static_cast<const float*>(target.get()), out.get());
  check(cudaGetLastError(), "gram_reference");
  return out;
}

// above + factor R F.
template <typename T>
Buffer<double> style_gradient(const Problem& p, const Buffer<T>& x, const Buffer<float>& matrix, double factor,
                              const Buffer<T>& above_) {
  Buffer<double> out(p.size());
  const Place place(p);
  const T *f = x.get(), *above = above_.get();
  const float* r = matrix.get();
  double* to = out.get();
  each(out.count(), [=] __device__(int64_t i) {
    const int64_t c = place.channel(i), n = place.position(i);
    double sum = 0;
    for (int64_t k = 0; k < place.channels; ++k)
      sum += static_cast<double>(r[c * place.channels + k]) * widen(f[place.at(k, n)]);
    to[i] = widen(above[i]) + factor * sum;
  });
  return out;
}

template <typename T>
Buffer<double> activation(const Problem& p, const Buffer<T>& x, const Buffer<T>& bias) {
  Buffer<double> out(p.size());
  const Place place(p);
  const T *from = x.get(), *b = bias.get();
  double* to = out.get();
  each(out.count(), [=] __device__(int64_t i) {
    const double y = static_cast<double>(widen(from[i])) + widen(b[place.channel(i)]);
    to[i] = y > 0 ? y : 0;
  });
  return out;
}

template <typename F>
__global__ void __launch_bounds__(kThreads) sum_kernel(int64_t count, F f, double* sums) {
  double sum = 0;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += int64_t{gridDim.x} * kThreads)
    sum += f(i);
  sum = fastnst::kernels::block_sum<kThreads>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// The sum of f(i) over i < count, as a buffer of one value.
template <typename F>
Buffer<double> sum_of(int64_t count, F f) {
  const Buffer<double> sums(kErrorBlocks);
  Buffer<double> out(1);
  launch(sum_kernel<F>, kErrorBlocks, kThreads, 0, nullptr, count, f, sums.get());
  const double* from = sums.get();
  double* to = out.get();
  each(1, [=] __device__(int64_t) {
    double sum = 0;
    for (int i = 0; i < kErrorBlocks; ++i) sum += from[i];
    *to = sum;
  });
  return out;
}

template <typename T>
Buffer<double> squared_distance(const Buffer<T>& x_, const Buffer<T>& y_) {
  const T *x = x_.get(), *y = y_.get();
  return sum_of(x_.count(), [=] __device__(int64_t i) {
    const double d = static_cast<double>(widen(x[i])) - widen(y[i]);
    return d * d;
  });
}

template <typename T>
Buffer<double> content_gradient(const Buffer<T>& x_, const Buffer<T>& y_) {
  Buffer<double> out(x_.count());
  const T *x = x_.get(), *y = y_.get();
  double* to = out.get();
  each(out.count(), [=] __device__(int64_t i) { to[i] = 2 * (static_cast<double>(widen(x[i])) - widen(y[i])); });
  return out;
}

// Which of the four values of the window of output (c, row, column) is the first largest one: its position in the map.
template <typename T>
__device__ int64_t largest(const Place& place, int64_t width, const T* x, int64_t c, int64_t row, int64_t column) {
  int64_t best = 2 * row * width + 2 * column;
  for (int k = 1; k < 4; ++k) {
    const int64_t n = (2 * row + k / 2) * width + 2 * column + k % 2;
    if (widen(x[place.at(c, n)]) > widen(x[place.at(c, best)])) best = n;
  }
  return best;
}

template <typename T>
Buffer<double> pooled(const Problem& p, const Buffer<T>& x_) {
  Buffer<double> out(p.size() / 4);
  Place place(p), small = place;
  small.positions /= 4;
  const int64_t width = p.height();
  const T* x = x_.get();
  double* to = out.get();
  each(out.count(), [=] __device__(int64_t i) {
    const int64_t c = small.channel(i), n = small.position(i);
    to[i] = widen(x[place.at(c, largest(place, width, x, c, n / (width / 2), n % (width / 2)))]);
  });
  return out;
}

template <typename T>
Buffer<double> pool_gradient(const Problem& p, const Buffer<T>& x_, const Buffer<T>& grad_) {
  Buffer<double> out(p.size());
  Place place(p), small = place;
  small.positions /= 4;
  const int64_t width = p.height();
  const T *x = x_.get(), *grad = grad_.get();
  double* to = out.get();
  each(out.count(), [=] __device__(int64_t i) {
    const int64_t c = place.channel(i), n = place.position(i), row = n / width / 2, column = n % width / 2;
    to[i] = largest(place, width, x, c, row, column) == n ? widen(grad[small.at(c, row * (width / 2) + column)]) : 0.0;
  });
  return out;
}

// The differences to the right and lower neighbor of position n, zero at the border.
template <typename T>
__device__ double right_of(const Place& place, int64_t width, const T* x, int64_t c, int64_t n) {
  return n % width + 1 < width ? static_cast<double>(widen(x[place.at(c, n + 1)])) - widen(x[place.at(c, n)]) : 0.0;
}
template <typename T>
__device__ double below(const Place& place, int64_t width, const T* x, int64_t c, int64_t n) {
  return n / width + 1 < width ? static_cast<double>(widen(x[place.at(c, n + width)])) - widen(x[place.at(c, n)]) : 0.0;
}

template <typename T>
Buffer<double> variation(const Problem& p, const Buffer<T>& x_) {
  const Place place(p);
  const int64_t width = p.height();
  const T* x = x_.get();
  return sum_of(p.size(), [=] __device__(int64_t i) {
    const int64_t c = place.channel(i), n = place.position(i);
    return fabs(right_of(place, width, x, c, n)) + fabs(below(place, width, x, c, n));
  });
}

template <typename T>
Buffer<double> variation_gradient(const Problem& p, const Buffer<T>& x_) {
  Buffer<double> out(p.size());
  const Place place(p);
  const int64_t width = p.height();
  const T* x = x_.get();
  double* to = out.get();
  each(out.count(), [=] __device__(int64_t i) {
    const int64_t c = place.channel(i), n = place.position(i);
    const auto sign = [](double d) { return static_cast<double>((d > 0) - (d < 0)); };
    double sum = -sign(right_of(place, width, x, c, n)) - sign(below(place, width, x, c, n));
    if (n % width > 0) sum += sign(right_of(place, width, x, c, n - 1));
    if (n >= width) sum += sign(below(place, width, x, c, n - width));
    to[i] = sum;
  });
  return out;
}

}  // namespace micro
