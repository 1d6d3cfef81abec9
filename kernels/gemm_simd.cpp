// Matrix product, vectorised.
#include "kernels/families.h"
#include "kernels/isa.h"

namespace nc::kernels::NC_ISA {

Gemm<float> gemm() {
    return reference_gemm<float>();
}

}  // namespace nc::kernels::NC_ISA
