// Every instantiation of total_variation.cuh that the library launches, compiled without torch.
#include "total_variation.cuh"

namespace fastnst::kernels {

template int launch_total_variation<float>(Variation, const float*, const ImageShape&, const ImageStrides&, double*,
                                           cudaStream_t);
template int launch_total_variation<double>(Variation, const double*, const ImageShape&, const ImageStrides&, double*,
                                            cudaStream_t);
template int launch_total_variation<__half>(Variation, const __half*, const ImageShape&, const ImageStrides&, double*,
                                            cudaStream_t);
template int launch_total_variation<__nv_bfloat16>(Variation, const __nv_bfloat16*, const ImageShape&,
                                                   const ImageStrides&, double*, cudaStream_t);

template void launch_total_variation_backward<float>(Variation, const float*, const float*, float*, const ImageShape&,
                                                     const ImageStrides&, const ImageStrides&, cudaStream_t);
template void launch_total_variation_backward<double>(Variation, const double*, const double*, double*,
                                                      const ImageShape&, const ImageStrides&, const ImageStrides&,
                                                      cudaStream_t);
template void launch_total_variation_backward<__half>(Variation, const float*, const __half*, __half*,
                                                      const ImageShape&, const ImageStrides&, const ImageStrides&,
                                                      cudaStream_t);
template void launch_total_variation_backward<__nv_bfloat16>(Variation, const float*, const __nv_bfloat16*,
                                                             __nv_bfloat16*, const ImageShape&, const ImageStrides&,
                                                             const ImageStrides&, cudaStream_t);

}  // namespace fastnst::kernels
