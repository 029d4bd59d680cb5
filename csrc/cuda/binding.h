// Shared by all CUDA bindings: the caller's stream, scratch memory, dispatch on the dtype, errors that name the op.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <string>

#include "../checks.h"

namespace fastnst::cuda {

using torch::stable::accelerator::DeviceGuard;

// torch.cuda.current_stream() of the device of x.
inline cudaStream_t current_stream(const Tensor& x) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// Calls f with a zero of the type of the values of x.
template <typename F>
void with_cuda_type(const Tensor& x, const F& f) {
  switch (x.scalar_type()) {
    case ScalarType::Double:
      return f(double{});
    case ScalarType::BFloat16:
      return f(__nv_bfloat16{});
    case ScalarType::Half:
      return f(__half{});
    default:
      return f(float{});
  }
}

template <typename T>
T* data(const Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

// The data of an optional tensor, or null.
template <typename T>
T* data(const std::optional<Tensor>& x) {
  return x ? static_cast<T*>(x->data_ptr()) : nullptr;
}

inline int64_t bytes_of(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
    case ScalarType::Long:
      return 8;
    case ScalarType::Float:
    case ScalarType::Int:
      return 4;
    case ScalarType::BFloat16:
    case ScalarType::Half:
      return 2;
    default:
      return 1;
  }
}

// Uninitialized scratch memory for `count` values on the device of `like`.
inline Tensor workspace(const char* op, const Tensor& like, int64_t count, ScalarType dtype) {
  try {
    return torch::stable::new_empty(like, {count}, dtype);
  } catch (const std::exception&) {
    check(false, op, ": out of memory: could not allocate ", count * bytes_of(dtype), " bytes of workspace");
    throw;  // not reached
  }
}

inline std::string device_architecture() {
  int device = 0, major = 0, minor = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return std::to_string(major) + "." + std::to_string(minor);
}

inline void check_cuda(const char* op, cudaError_t error) {
  if (error == cudaSuccess) return;
#ifdef FASTNST_ARCHITECTURES
  if (error == cudaErrorNoKernelImageForDevice) {
    const std::string here = device_architecture();
    std::string name = "sm_";
    for (const char c : here)
      if (c != '.') name += c;
    check(false, op, ": fastnst was built for ", FASTNST_ARCHITECTURES, ", this device is ", name,
          ": rebuild with TORCH_CUDA_ARCH_LIST=", here);
  }
#endif
  check(false, op, ": ", cudaGetErrorString(error));
}

// To be called after every launch, so that a failed launch is an error of this op and not of a later one.
inline void check_launch(const char* op) { check_cuda(op, cudaGetLastError()); }

}  // namespace fastnst::cuda
