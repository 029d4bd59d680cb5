// The CPU kernels. Compiled once per instruction set, in the namespace FASTNST_ISA, which has FASTNST_REGISTERS vector
// registers of FASTNST_VECTOR_BYTES. No include guard: each kernels_*.cpp includes it once.

// First the types, loads and products that the others use.
#include "simd_impl.h"

#include "lanes_impl.h"
#include "winograd_points.h"
#include "winograd_product.h"

// Then the kernels.
#include "elementwise_impl.h"
#include "gram_impl.h"
#include "pool_impl.h"
#include "variation_impl.h"
#include "winograd_impl.h"

namespace fastnst::cpu::FASTNST_ISA {

inline int64_t padded_channels(ScalarType dtype, int64_t channels) {
  return dtype == ScalarType::Double ? padded<double>(channels) : padded<float>(channels);
}

#define FASTNST_STRING_(x) #x
#define FASTNST_STRING(x) FASTNST_STRING_(x)
constexpr Kernels table = {FASTNST_STRING(FASTNST_ISA),
                           padded_channels,
                           matrix_rows,
                           matrix,
                           gram,
                           backward,
                           squared_difference,
                           product,
                           scaled_difference,
                           add_product,
                           pointwise_backward,
                           variation,
                           variation_backward,
                           pool,
                           pool_backward,
                           conv_sizes,
                           conv_input,
                           conv_weights,
                           conv_products,
                           conv_outputs};
#undef FASTNST_STRING
#undef FASTNST_STRING_

}  // namespace fastnst::cpu::FASTNST_ISA
