// The whole of a build without CUDA: there is no CUDA table.
#include "kernels/kernels.h"

namespace nc::kernels {

const Table<float>* cuda() {
    return nullptr;
}
const Table<float>* cuda_vendor() {
    return nullptr;
}

}  // namespace nc::kernels
