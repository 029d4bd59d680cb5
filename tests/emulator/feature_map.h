// A buffer of shape [B, C, N] as the Gram kernels take it.
#pragma once

#include "bind.h"
#include "gram_units.cuh"

namespace emulator {

template <typename T>
fastnst::kernels::FeatureMap<T> feature_map(const Buffer& x) {
  const auto& shape = x.shape();
  const auto& strides = x.strides();
  return {x.data<T>(), shape.at(0), shape.at(1), shape.at(2), strides.at(0), strides.at(1), strides.at(2)};
}

}  // namespace emulator
