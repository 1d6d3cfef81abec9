// The norm family of one instruction set.
#include "kernels/families.h"

namespace nc::kernels::NC_ISA {

Norm<float> norm() {
    return reference_norm<float>();
}

}  // namespace nc::kernels::NC_ISA
