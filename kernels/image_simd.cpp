// The image family of one instruction set.
#include "kernels/families.h"

namespace nc::kernels::NC_ISA {

Image<float> image() {
    return reference_image<float>();
}

}  // namespace nc::kernels::NC_ISA
