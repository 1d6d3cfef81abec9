// The table cuda-vendor: the hand-written kernels, but gemm by cuBLAS and conv by cuDNN.
//
// Precision: fp32 multiplies floats as they are; tf32 rounds both factors to 10 bits, bf16 to 7;
// sums are fp32 in all three. A bias is written (or added) to c first and kept by the product: 8
// bytes an element.
#include "kernels/vendor_cuda.cuh"

#include <new>

namespace nc::kernels::on_cuda {
namespace {

constexpr size_t gemm_workspace = size_t(32) << 20;  // what cuBLAS recommends for sm_90

void fail(Queue& q, int error) {
    if (q.status == cudaSuccess) q.status = error;
}

}  // namespace

bool succeeded(Queue& q, cublasStatus_t status) {
    switch (status) {
        case CUBLAS_STATUS_SUCCESS:
            return true;
        case CUBLAS_STATUS_NOT_INITIALIZED:
            fail(q, cudaErrorInitializationError);
            break;
        case CUBLAS_STATUS_ALLOC_FAILED:
            fail(q, cudaErrorMemoryAllocation);
            break;
        case CUBLAS_STATUS_INVALID_VALUE:
            fail(q, cudaErrorInvalidValue);
            break;
        case CUBLAS_STATUS_NOT_SUPPORTED:
            fail(q, cudaErrorNotSupported);
            break;
        case CUBLAS_STATUS_ARCH_MISMATCH:
            fail(q, cudaErrorNoKernelImageForDevice);
            break;
        default:
            fail(q, cudaErrorLaunchFailure);
    }
    return false;
}

bool succeeded(Queue& q, cudnnStatus_t status) {
    if (status == CUDNN_STATUS_SUCCESS) return true;
    if (status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ||
        status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED) {
        fail(q, cudaErrorMemoryAllocation);
        return false;
    }
    switch (CUDNN_STATUS_CATEGORY(int(status))) {
        case int(CUDNN_STATUS_BAD_PARAM):
            fail(q, cudaErrorInvalidValue);
            break;
        case int(CUDNN_STATUS_NOT_SUPPORTED):
            fail(q, cudaErrorNotSupported);
            break;
        case int(CUDNN_STATUS_EXECUTION_FAILED):
            fail(q, cudaErrorLaunchFailure);
            break;
        default:
            fail(q, cudaErrorInitializationError);
    }
    return false;
}

Vendor* vendor(Queue& q) {
    if (q.status != cudaSuccess) return nullptr;
    if (q.handles == nullptr) {
        Vendor* const made = new (std::nothrow) Vendor();
        if (made == nullptr) {
            fail(q, cudaErrorMemoryAllocation);
            return nullptr;
        }
        q.handles = made;
        fail(q, int(cudaSetDevice(q.device)));
        const bool ready = q.status == cudaSuccess && succeeded(q, cublasCreate(&made->blas)) &&
                           succeeded(q, cublasSetStream(made->blas, stream_of(q))) &&
                           succeeded(q, cudnnCreate(&made->dnn)) &&
                           succeeded(q, cudnnSetStream(made->dnn, stream_of(q)));
        if (!ready) {
            close_vendor(&q);
            return nullptr;
        }
    }
    return static_cast<Vendor*>(q.handles);
}

void close_vendor(Queue* queue) {
    Vendor* const v = static_cast<Vendor*>(queue->handles);
    if (v == nullptr) return;
    forget_plans(v->plans);
    if (v->dnn != nullptr) cudnnDestroy(v->dnn);
    if (v->blas != nullptr) cublasDestroy(v->blas);
    delete v;
    queue->handles = nullptr;
}

namespace {

__global__ void repeat_row(const float* row, float* out, size_t n, size_t cols) {
    for (size_t i = global_thread(); i < n; i += global_threads()) out[i] = row[i % cols];
}

// cuBLAS reads columns first: what it calls c is our c transposed, op(b)' op(a)'.
void gemm(Queue& q, bool transpose_a, bool transpose_b, const float* a, const float* b,
          const float* bias, bool accumulate, float* c, size_t m, size_t n, size_t k) {
    if (m == 0 || n == 0 || k == 0) {
        table().gemm.gemm(q, transpose_a, transpose_b, a, b, bias, accumulate, c, m, n, k);
        return;
    }
    if (bias != nullptr && accumulate) table().elementwise.add_row(q, c, bias, c, m, n);
    if (bias != nullptr && !accumulate)
        launch(repeat_row, dim3(blocks_for(m * n, 256)), dim3(256), q, bias, c, m * n, n);
    const Vendor* const v = vendor(q);
    if (v == nullptr) return;
    const cublasComputeType_t compute =
        q.precision == Precision::bf16   ? CUBLAS_COMPUTE_32F_FAST_16BF
        : q.precision == Precision::tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                         : CUBLAS_COMPUTE_32F;
    const float one = 1, keep = accumulate || bias != nullptr ? 1 : 0;
    if (succeeded(q, cublasSetWorkspace(v->blas, aligned_scratch(q), gemm_workspace)))
        succeeded(q,
                  cublasGemmEx_64(v->blas, transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                                  transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, int64_t(n), int64_t(m),
                                  int64_t(k), &one, b, CUDA_R_32F, int64_t(transpose_b ? k : n), a,
                                  CUDA_R_32F, int64_t(transpose_a ? m : k), &keep, c, CUDA_R_32F,
                                  int64_t(n), compute, CUBLAS_GEMM_DEFAULT));
}

size_t gemm_scratch(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, int threads) {
    const size_t own = table().gemm.gemm_scratch(transpose_a, transpose_b, m, n, k, threads);
    const size_t bytes = gemm_workspace + alignment;
    return own > bytes ? own : bytes;
}

Table<float> vendor_table() {
    Table<float> t = table();
    t.name = "cuda-vendor";
    t.gemm = {.gemm = gemm, .gemm_scratch = gemm_scratch};
    t.conv = vendor_conv();
    return t;
}

}  // namespace

static const Table<float>* shared_table() {
    static const Table<float> t = vendor_table();
    return &t;
}

}  // namespace nc::kernels::on_cuda

namespace nc::kernels {

const Table<float>* cuda_vendor() {
    return why_no_cuda() == nullptr ? on_cuda::shared_table() : nullptr;
}

}  // namespace nc::kernels
