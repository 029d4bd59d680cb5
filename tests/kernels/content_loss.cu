// Every instantiation of content_loss.cuh that the library launches, compiled without torch.
#include "content_loss.cuh"

namespace fastnst::kernels {

template int launch_squared_difference<float>(const float*, const float*, int64_t, double*, cudaStream_t);
template int launch_squared_difference<double>(const double*, const double*, int64_t, double*, cudaStream_t);
template int launch_squared_difference<__half>(const __half*, const __half*, int64_t, double*, cudaStream_t);
template int launch_squared_difference<__nv_bfloat16>(const __nv_bfloat16*, const __nv_bfloat16*, int64_t, double*,
                                                      cudaStream_t);

template void launch_scaled_difference<float>(const float*, const float*, const float*, float*, int64_t, cudaStream_t);
template void launch_scaled_difference<double>(const double*, const double*, const double*, double*, int64_t,
                                               cudaStream_t);
template void launch_scaled_difference<__half>(const float*, const __half*, const __half*, __half*, int64_t,
                                               cudaStream_t);
template void launch_scaled_difference<__nv_bfloat16>(const float*, const __nv_bfloat16*, const __nv_bfloat16*,
                                                      __nv_bfloat16*, int64_t, cudaStream_t);

template void launch_sum_of_blocks<float>(const double*, int, float*, cudaStream_t);
template void launch_sum_of_blocks<double>(const double*, int, double*, cudaStream_t);

}  // namespace fastnst::kernels
