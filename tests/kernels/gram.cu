// Every instantiation of gram.cuh that the library launches, compiled without torch.
#include "gram.cuh"

namespace fastnst::kernels {

template void launch_gram<float>(const FeatureMap<float>&, GramPath, const GramPlan&, const GramTask<float>&, bool,
                                 cudaStream_t, const float*, float*);
template void launch_gram<double>(const FeatureMap<double>&, GramPath, const GramPlan&, const GramTask<double>&, bool,
                                  cudaStream_t, const double*, double*);
template void launch_gram<__half>(const FeatureMap<__half>&, GramPath, const GramPlan&, const GramTask<float>&, bool,
                                  cudaStream_t, const __half*, __half*);
template void launch_gram<__nv_bfloat16>(const FeatureMap<__nv_bfloat16>&, GramPath, const GramPlan&,
                                         const GramTask<float>&, bool, cudaStream_t, const __nv_bfloat16*,
                                         __nv_bfloat16*);

}  // namespace fastnst::kernels
