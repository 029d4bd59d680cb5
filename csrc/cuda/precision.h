// Whether float32 features are multiplied in plain TF32; fastnst/ops/_library.py sets it to follow torch.
#pragma once

namespace fastnst::cuda {

// False: 3xTF32, whose error is that of float32.
bool plain_tf32();

}  // namespace fastnst::cuda
