// The loss family of one instruction set.
#include "kernels/families.h"

namespace nc::kernels::NC_ISA {

Loss<float> loss() {
    return reference_loss<float>();
}

}  // namespace nc::kernels::NC_ISA
