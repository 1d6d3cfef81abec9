// Convolution and its gradients, vectorised.
#include "kernels/families.h"
#include "kernels/isa.h"

namespace nc::kernels::NC_ISA {

Conv<float> conv() {
    return reference_conv<float>();
}

}  // namespace nc::kernels::NC_ISA
