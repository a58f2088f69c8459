// The AVX-512 level: quantised matrices.
#include "kernels/avx512/quant.h"
#include "kernels/levels.h"

namespace idefics::kernels {

const QuantKernels kAvx512Quant = {
    gemm_groups<Avx512Quant, Q8>, gemm_groups<Avx512Quant, Q4>, gemm_int8, group_sums<Avx512Quant>, quantize,
};

}  // namespace idefics::kernels
