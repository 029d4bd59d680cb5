// Every instantiation of pooling.cuh and bias_relu_pool.cuh that the library launches, compiled without torch.
#include "bias_relu_pool.cuh"

namespace fastnst::kernels {
namespace {

// Taking their addresses instantiates the launches, and so every kernel.
template <Pool kKind, typename T>
struct Launches {
  decltype(&launch_pool<kKind, T>) forward = &launch_pool<kKind, T>;
  decltype(&launch_bias_relu_pool<kKind, T>) after_bias = &launch_bias_relu_pool<kKind, T>;
  decltype(&launch_pool_backward<kKind, T>) backward = &launch_pool_backward<kKind, T>;
};

template <typename T>
struct EveryKind {
  Launches<Pool::kMax, T> max;
  Launches<Pool::kAverage, T> average;
  Launches<Pool::kL2, T> l2;
};

}  // namespace

struct EveryPool {
  EveryKind<float> singles;
  EveryKind<double> doubles;
  EveryKind<__half> halves;
  EveryKind<__nv_bfloat16> bfloats;
};

EveryPool every_pool() { return {}; }

}  // namespace fastnst::kernels
