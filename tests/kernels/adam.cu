// Every instantiation of adam.cuh that the library launches, compiled without torch.
#include "adam.cuh"

namespace fastnst::kernels {

template int launch_adam_check<float>(const AdamTensors<float>&, const AdamLosses&, const AdamSchedule&, int*,
                                      cudaStream_t);
template int launch_adam_check<double>(const AdamTensors<double>&, const AdamLosses&, const AdamSchedule&, int*,
                                       cudaStream_t);
template void launch_adam_update<float>(const AdamTensors<float>&, const AdamLosses&, const AdamSchedule&,
                                        const AdamConstants&, int*, int, cudaStream_t);
template void launch_adam_update<double>(const AdamTensors<double>&, const AdamLosses&, const AdamSchedule&,
                                         const AdamConstants&, int*, int, cudaStream_t);

}  // namespace fastnst::kernels
