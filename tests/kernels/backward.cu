// Every instantiation of backward.cuh that the library launches, compiled without torch.
#include "backward.cuh"

namespace fastnst::kernels {

template void launch_backward<float>(const FeatureMap<float>&, BackwardPath, const BackwardTask<float>&, bool,
                                     const Card&, cudaStream_t);
template void launch_backward<double>(const FeatureMap<double>&, BackwardPath, const BackwardTask<double>&, bool,
                                      const Card&, cudaStream_t);
template void launch_backward<__half>(const FeatureMap<__half>&, BackwardPath, const BackwardTask<__half>&, bool,
                                      const Card&, cudaStream_t);
template void launch_backward<__nv_bfloat16>(const FeatureMap<__nv_bfloat16>&, BackwardPath,
                                             const BackwardTask<__nv_bfloat16>&, bool, const Card&, cudaStream_t);

template void launch_symmetrize<float>(const float*, float*, int64_t, int, int, bool, cudaStream_t);
template void launch_symmetrize<double>(const double*, double*, int64_t, int, int, bool, cudaStream_t);

}  // namespace fastnst::kernels
