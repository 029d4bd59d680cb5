// A tensor as the Gram kernels take it.
#pragma once

#include "../kernels/gram_units.cuh"
#include "binding.h"
#include "precision.h"

namespace fastnst::cuda {

template <typename T>
kernels::FeatureMap<T> feature_map(const char* op, const Tensor& x) {
  const Features f = features(op, "x", x);
  return {static_cast<const T*>(f.data), f.batch, f.channels, f.positions, f.stride_b, f.stride_c, f.stride_n};
}

inline kernels::Card current_card() {
  int device = 0, major = 0, multiprocessors = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  return {major >= 8, multiprocessors};
}

inline std::optional<Tensor> contiguous(const std::optional<Tensor>& x) {
  return x ? std::optional<Tensor>(as_contiguous(*x)) : std::nullopt;
}

}  // namespace fastnst::cuda
