// The reduce family of one instruction set.
#include "kernels/families.h"

namespace nc::kernels::NC_ISA {

Reduce<float> reduce() {
    return reference_reduce<float>();
}

}  // namespace nc::kernels::NC_ISA
