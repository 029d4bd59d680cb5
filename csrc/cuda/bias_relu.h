// The op bias_relu_, for other ops that fall back to it.
#pragma once

#include "binding.h"

namespace fastnst::cuda {

// x = max(x + bias, 0) in place.
void bias_relu(Tensor x, const Tensor& bias);

}  // namespace fastnst::cuda
