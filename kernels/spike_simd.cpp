// The spike kernels of one instruction set.
#include "kernels/families.h"
#include "kernels/isa.h"

namespace nc::kernels::NC_ISA {

Spike<float> spike() {
    return reference_spike<float>();
}

}  // namespace nc::kernels::NC_ISA
