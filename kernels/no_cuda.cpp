// The whole of a build without CUDA: there is no CUDA table and no backend.
#include "kernels/backend.h"
#include "kernels/families.h"

namespace nc::kernels {

const Table<float>* cuda() {
    return nullptr;
}
const Table<float>* cuda_vendor() {
    return nullptr;
}
const Backend* cuda_backend() {
    return nullptr;
}
Probe cuda_probe() {
    return nullptr;
}
const char* why_no_cuda() {
    return "this build has no CUDA: it was made without nvcc";
}

}  // namespace nc::kernels
