// Every instantiation of bias_relu.cuh that the library launches, compiled without torch.
#include "bias_relu.cuh"

namespace fastnst::kernels {

template void launch_bias_relu_channels<float>(float*, const float*, int64_t, int, cudaStream_t);
template void launch_bias_relu_channels<double>(double*, const double*, int64_t, int, cudaStream_t);
template void launch_bias_relu_channels<__half>(__half*, const __half*, int64_t, int, cudaStream_t);
template void launch_bias_relu_channels<__nv_bfloat16>(__nv_bfloat16*, const __nv_bfloat16*, int64_t, int,
                                                       cudaStream_t);

template void launch_bias_relu_rows<float>(float*, const float*, int64_t, int, int64_t, int64_t, int64_t, cudaStream_t);
template void launch_bias_relu_rows<double>(double*, const double*, int64_t, int, int64_t, int64_t, int64_t,
                                            cudaStream_t);
template void launch_bias_relu_rows<__half>(__half*, const __half*, int64_t, int, int64_t, int64_t, int64_t,
                                            cudaStream_t);
template void launch_bias_relu_rows<__nv_bfloat16>(__nv_bfloat16*, const __nv_bfloat16*, int64_t, int, int64_t, int64_t,
                                                   int64_t, cudaStream_t);

}  // namespace fastnst::kernels
