// Sums over the rows of a matrix, column by column: what statistics, biases, slopes and thresholds
// need.
//
// A fixed tree that depends on the sizes only: rows in chunks; in a chunk each thread adds every
// by-th row in float, the threads of a column are added in order in double, then the chunks.
#pragma once

#include "kernels/cuda_util.cuh"

namespace nc::kernels::NC_CUDA {

// k terms at once of one element.
template <int k>
struct Terms {
    float v[k];
};

constexpr unsigned sum_threads = 256;
constexpr unsigned sum_batch = 8;  // terms a thread asks memory for before it adds them
constexpr size_t most_chunks = 1024;

struct ColumnTree {
    unsigned bx, by;        // a block's threads along columns and along rows; powers of two
    size_t chunks, height;  // chunks of `height` rows
};

static inline ColumnTree column_tree(size_t rows, size_t cols) {
    ColumnTree t;
    t.bx = 1;
    while (t.bx < 32 && t.bx < cols) t.bx *= 2;
    t.by = sum_threads / t.bx;
    const size_t shortest = size_t(t.by) * 16, even = (rows + most_chunks - 1) / most_chunks;
    t.height = shortest > even ? shortest : even;
    t.chunks = (rows + t.height - 1) / t.height;
    return t;
}

// Bytes of scratch of sum_columns with k terms.
static inline size_t column_scratch(size_t rows, size_t cols, int k) {
    return column_tree(rows, cols).chunks * cols * size_t(k) * sizeof(double);
}

// parts [chunks, k, cols].
template <int k, class Term>
static __global__ void column_parts(Term term, size_t rows, size_t cols, size_t height,
                                    double* parts) {
    NC_SHARED(float, all, sum_threads* k);
    const unsigned tx = threadIdx.x, ty = threadIdx.y, bx = blockDim.x, by = blockDim.y;
    const size_t c = size_t(blockIdx.y) * bx + tx, chunk = blockIdx.x;
    const size_t begin = chunk * height, end = begin + height < rows ? begin + height : rows;
    float sum[k];
    for (int j = 0; j < k; ++j) sum[j] = 0;
    if (c < cols) {
        size_t r = begin + ty;
        for (; r + (sum_batch - 1) * by < end; r += sum_batch * by) {
            Terms<k> t[sum_batch];
            NC_UNROLL
            for (unsigned i = 0; i < sum_batch; ++i) t[i] = term(r + i * by, c);
            NC_UNROLL
            for (unsigned i = 0; i < sum_batch; ++i)
                for (int j = 0; j < k; ++j) sum[j] += t[i].v[j];
        }
        for (; r < end; r += by) {
            const Terms<k> t = term(r, c);
            for (int j = 0; j < k; ++j) sum[j] += t.v[j];
        }
    }
    for (int j = 0; j < k; ++j) all[(j * by + ty) * bx + tx] = sum[j];
    __syncthreads();
    if (ty != 0 || c >= cols) return;
    for (int j = 0; j < k; ++j) {
        double whole = 0;
        for (unsigned y = 0; y < by; ++y) whole += double(all[(j * by + y) * bx + tx]);
        parts[(chunk * k + j) * cols + c] = whole;
    }
}

template <int k, unsigned threads, class Finish>
static __global__ void column_wholes(Finish finish, const double* parts, size_t chunks,
                                     size_t cols) {
    const size_t c = blockIdx.x;
    double sum[k];
    for (int j = 0; j < k; ++j) {
        double own = 0;
        for (size_t chunk = threadIdx.x; chunk < chunks; chunk += threads)
            own += parts[(chunk * k + j) * cols + c];
        sum[j] = block_sum<threads>(own);
    }
    if (threadIdx.x == 0) finish(c, sum);
}

// finish(c, sum) once for every column, sum[j] being that of term(r, c).v[j] over all rows. Term
// and Finish are called on the device; they are structs of pointers. Needs column_scratch bytes.
template <int k, class Term, class Finish>
static inline void sum_columns(Queue& queue, Term term, Finish finish, size_t rows, size_t cols) {
    if (cols == 0) return;
    const ColumnTree t = column_tree(rows, cols);
    double* const parts = reinterpret_cast<double*>(queue.scratch);
    launch(column_parts<k, Term>, dim3(unsigned(t.chunks), unsigned((cols + t.bx - 1) / t.bx)),
           dim3(t.bx, t.by), queue, term, rows, cols, t.height, parts);
    if (t.chunks <= warp_size)
        launch(column_wholes<k, warp_size, Finish>, dim3(unsigned(cols)), dim3(warp_size), queue,
               finish, parts, t.chunks, cols);
    else
        launch(column_wholes<k, sum_threads, Finish>, dim3(unsigned(cols)), dim3(sum_threads),
               queue, finish, parts, t.chunks, cols);
}

// Finishes one sum into a row of floats.
struct StoreColumn {
    float* out;
    __device__ void operator()(size_t c, const double* sum) const { out[c] = float(sum[0]); }
};

}  // namespace nc::kernels::NC_CUDA
