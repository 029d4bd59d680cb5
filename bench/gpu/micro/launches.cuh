// Of the micro-benchmark: everything that depends on how the kernels of csrc/kernels are launched.
#pragma once

#include "backward.cuh"
#include "bias_relu.cuh"
#include "content_loss.cuh"
#include "gram.cuh"
#include "harness.cuh"
#include "pooling.cuh"
#include "total_variation.cuh"

namespace micro {

namespace kernels = fastnst::kernels;

inline kernels::Card card() {
  int device = 0, major = 0, multiprocessors = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "the capability");
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device), "the multiprocessors");
  return {major >= 8, multiprocessors};
}

template <typename T>
kernels::FeatureMap<T> feature_map(const Problem& p, const Buffer<T>& x) {
  const int64_t c = p.channels(), n = p.positions();
  if (p.channels_last) return {x.get(), 1, c, n, c * n, 1, c};
  return {x.get(), 1, c, n, c * n, n, 1};
}

// R = scale F F^T - target and its squared norm, with the given number of splits (0: chosen by the shape). With a bias,
// of F = max(x + bias, 0), which is written to `activated`. Workspaces are allocated once.
template <typename T>
struct Gram {
  kernels::FeatureMap<T> map;
  kernels::GramPath path;
  kernels::GramPlan plan;
  kernels::GramTask<float> task{};
  bool plain_tf32;
  const T* bias = nullptr;
  T* activated = nullptr;
  Buffer<float> partial;
  Buffer<double> losses;
  Buffer<unsigned> counter{1};

  Gram(const Problem& p, const Buffer<T>& x, float scale, const Buffer<float>& target, const Buffer<float>& out,
       const Buffer<float>& loss, int splits = 0, bool ordinary = false)
      : map(feature_map(p, x)), plain_tf32(p.precision == "tf32") {
    path = ordinary ? kernels::GramPath::kSimt : kernels::gram_path(map, false, card());
    plan = kernels::gram_plan(map, path, card(), splits);
    partial = Buffer<float>(plan.partial_values());
    losses = Buffer<double>(plan.losses());
    task.scale = scale;
    task.target = target.get();
    task.out = out.get();
    task.loss = loss.get();
    task.partial = partial.get();
    task.losses = losses.get();
    task.counter = counter.get();
  }
  bool tensor_cores() const { return path != kernels::GramPath::kSimt; }
  bool fuses_bias() const { return kernels::fuses_bias(path, map.channels); }
  void operator()() const { kernels::launch_gram<T>(map, path, plan, task, plain_tf32, nullptr, bias, activated); }
};

// out = above + factor matrix F.
template <typename T>
struct Backward {
  kernels::FeatureMap<T> map;
  kernels::BackwardPath path;
  kernels::BackwardTask<T> task{};
  bool plain_tf32;

  Backward(const Problem& p, const Buffer<T>& x, const Buffer<float>& matrix, float factor, const Buffer<T>& above,
           const Buffer<T>& out, bool ordinary = false)
      : map(feature_map(p, x)), plain_tf32(p.precision == "tf32") {
    task.matrix = matrix.get();
    task.factor = factor;
    task.above = above.get();
    task.out = out.get();
    path = ordinary ? kernels::BackwardPath::kSimt : kernels::backward_path(map, task, card());
    task.padded =
        kernels::padded_channels(path, p.channels());  // that of the layers of VGG-19 is the number of channels
  }
  void operator()() const { kernels::launch_backward<T>(map, path, task, plain_tf32, card(), nullptr); }
};

template <typename T>
void bias_relu(const Problem& p, const Buffer<T>& x, const Buffer<T>& bias) {
  const int channels = static_cast<int>(p.channels());
  if (p.channels_last)
    return kernels::launch_bias_relu_channels<T>(x.get(), bias.get(), p.positions(), channels, nullptr);
  kernels::launch_bias_relu_rows<T>(x.get(), bias.get(), 1, channels, p.positions(), p.size(), p.positions(), nullptr);
}

// The sums of blocks, which a second launch adds.
struct SumSpace {
  Buffer<double> partial{kernels::kMaxBlocks};
};

template <typename T>
void content_loss(const Buffer<T>& x, const Buffer<T>& y, const SumSpace& space, const Buffer<float>& out) {
  const int blocks = kernels::launch_squared_difference<T>(x.get(), y.get(), x.count(), space.partial.get(), nullptr);
  kernels::launch_sum_of_blocks(space.partial.get(), blocks, out.get(), nullptr);
}

template <typename T>
void content_backward(const Buffer<float>& one, const Buffer<T>& x, const Buffer<T>& y, const Buffer<T>& out) {
  kernels::launch_scaled_difference<T>(one.get(), x.get(), y.get(), out.get(), x.count(), nullptr);
}

inline kernels::PoolShape pool_shape(const Problem& p) {
  const int height = static_cast<int>(p.height());
  return {1, static_cast<int>(p.channels()), height, height};
}

template <typename T>
void pool(const Problem& p, const Buffer<T>& x, const Buffer<T>& y, const Buffer<uint8_t>& argmax) {
  kernels::launch_pool<kernels::Pool::kMax, T>(x.get(), y.get(), argmax.get(), pool_shape(p), p.channels_last, nullptr);
}

template <typename T>
void pool_backward(const Problem& p, const Buffer<T>& grad, const Buffer<uint8_t>& argmax, const Buffer<T>& out) {
  kernels::launch_pool_backward<kernels::Pool::kMax, T>(grad.get(), nullptr, nullptr, argmax.get(), out.get(),
                                                        pool_shape(p), false, p.channels_last, nullptr);
}

inline kernels::ImageShape image_shape(const Problem& p) { return {1, p.channels(), p.height(), p.height()}; }
inline kernels::ImageStrides image_strides(const Problem& p) {
  const int64_t c = p.channels(), h = p.height();
  if (p.channels_last) return {p.size(), 1, h * c, c};
  return {p.size(), h * h, h, 1};
}

template <typename T>
void total_variation(const Problem& p, const Buffer<T>& x, const SumSpace& space, const Buffer<float>& out) {
  const int blocks = kernels::launch_total_variation<T>(kernels::Variation::kAnisotropic, x.get(), image_shape(p),
                                                        image_strides(p), space.partial.get(), nullptr);
  kernels::launch_sum_of_blocks(space.partial.get(), blocks, out.get(), nullptr);
}

template <typename T>
void variation_backward(const Problem& p, const Buffer<float>& one, const Buffer<T>& x, const Buffer<T>& out) {
  kernels::launch_total_variation_backward<T>(kernels::Variation::kAnisotropic, one.get(), x.get(), out.get(),
                                              image_shape(p), image_strides(p), image_strides(p), nullptr);
}

}  // namespace micro
