// The pool family of one instruction set.
#include "kernels/families.h"

namespace nc::kernels::NC_ISA {

Pool<float> pool() {
    return reference_pool<float>();
}

}  // namespace nc::kernels::NC_ISA
