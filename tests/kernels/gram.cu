// Every instantiation of gram.cuh that the library launches, compiled without torch.
#include "gram.cuh"

namespace fastnst::kernels {

template void launch_gram<float>(const FeatureMap<float>&, GramPath, const GramPlan&, const GramTask<float>&, bool,
                                 cudaStream_t);
template void launch_gram<double>(const FeatureMap<double>&, GramPath, const GramPlan&, const GramTask<double>&, bool,
                                  cudaStream_t);
template void launch_gram<__half>(const FeatureMap<__half>&, GramPath, const GramPlan&, const GramTask<float>&, bool,
                                  cudaStream_t);
template void launch_gram<__nv_bfloat16>(const FeatureMap<__nv_bfloat16>&, GramPath, const GramPlan&,
                                         const GramTask<float>&, bool, cudaStream_t);

template void launch_bias_gram<float>(const FeatureMap<float>&, GramPath, const GramPlan&, const GramTask<float>&,
                                      const float*, float*, bool, cudaStream_t);
template void launch_bias_gram<__half>(const FeatureMap<__half>&, GramPath, const GramPlan&, const GramTask<float>&,
                                       const __half*, __half*, bool, cudaStream_t);
template void launch_bias_gram<__nv_bfloat16>(const FeatureMap<__nv_bfloat16>&, GramPath, const GramPlan&,
                                              const GramTask<float>&, const __nv_bfloat16*, __nv_bfloat16*, bool,
                                              cudaStream_t);

}  // namespace fastnst::kernels
