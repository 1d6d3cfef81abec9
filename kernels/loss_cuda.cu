#include "kernels/cuda_util.cuh"

namespace nc::kernels::NC_CUDA {

Loss<float> loss() {
    return {};
}

}  // namespace nc::kernels::NC_CUDA
