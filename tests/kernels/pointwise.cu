// Every instantiation of pointwise.cuh that the library launches, compiled without torch.
#include "pointwise.cuh"

namespace fastnst::kernels {

template void launch_pointwise_backward<float>(float*, const float*, const float*, double, bool, int64_t, cudaStream_t);
template void launch_pointwise_backward<double>(double*, const double*, const double*, double, bool, int64_t,
                                                cudaStream_t);
template void launch_pointwise_backward<__half>(__half*, const __half*, const __half*, double, bool, int64_t,
                                                cudaStream_t);
template void launch_pointwise_backward<__nv_bfloat16>(__nv_bfloat16*, const __nv_bfloat16*, const __nv_bfloat16*,
                                                       double, bool, int64_t, cudaStream_t);

}  // namespace fastnst::kernels
