// Every instantiation of pooling.cuh that the library launches, compiled without torch.
#include "pooling.cuh"

namespace fastnst::kernels {
namespace {

// Taking their addresses instantiates both launches, and so every kernel.
template <Pool kKind, typename T>
struct Both {
  decltype(&launch_pool<kKind, T>) forward = &launch_pool<kKind, T>;
  decltype(&launch_pool_backward<kKind, T>) backward = &launch_pool_backward<kKind, T>;
};

template <typename T>
struct EveryKind {
  Both<Pool::kMax, T> max;
  Both<Pool::kAverage, T> average;
  Both<Pool::kL2, T> l2;
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
