#include "kernels/cuda_util.cuh"

namespace nc::kernels::NC_CUDA {

Image<float> image() {
    return {};
}

}  // namespace nc::kernels::NC_CUDA
