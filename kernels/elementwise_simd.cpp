// The elementwise family of one instruction set.
#include "kernels/families.h"

namespace nc::kernels::NC_ISA {

Elementwise<float> elementwise() {
    return reference_elementwise<float>();
}

}  // namespace nc::kernels::NC_ISA
