// The neuron kernels of one instruction set.
#include "kernels/families.h"
#include "kernels/isa.h"

namespace nc::kernels::NC_ISA {

Neuron<float> neuron() {
    return reference_neuron<float>();
}

}  // namespace nc::kernels::NC_ISA
