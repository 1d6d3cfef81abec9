// The optim family of one instruction set.
#include "kernels/families.h"

namespace nc::kernels::NC_ISA {

Optim<float> optim() {
    return reference_optim<float>();
}

}  // namespace nc::kernels::NC_ISA
