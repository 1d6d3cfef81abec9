// The reduce family on CUDA: every kernel reads its input once, so the memory's speed bounds all.
//
// A whole array is summed in double: at most 1024 blocks, each a run of it, each thread every 256th
// element of the run; then one block adds their parts. Columns: sum_cuda.cuh. argmax: a warp a row.
#include "kernels/sum_cuda.cuh"

namespace nc::kernels::NC_CUDA {
namespace {

constexpr unsigned threads = 256;
constexpr size_t least_run = threads * 16, most_runs = 1024;

struct Runs {
    size_t count, length;
};

Runs runs_of(size_t n) {
    const size_t even = (n + most_runs - 1) / most_runs;
    const size_t length = even > least_run ? even : least_run;
    return {(n + length - 1) / length, length};
}

struct Plain {
    __device__ double operator()(float v) const { return double(v); }
};
struct Square {
    __device__ double operator()(float v) const { return double(v) * double(v); }
};

// parts [blocks].
template <class Term>
__global__ void sum_runs(Term term, const float* a, size_t n, size_t length, double* parts) {
    const size_t begin = blockIdx.x * length, end = begin + length < n ? begin + length : n;
    double own = 0;
    size_t i = begin + threadIdx.x;
    for (; i + (sum_batch - 1) * threads < end; i += sum_batch * threads) {
        float v[sum_batch];
        NC_UNROLL
        for (unsigned j = 0; j < sum_batch; ++j) v[j] = a[i + j * threads];
        NC_UNROLL
        for (unsigned j = 0; j < sum_batch; ++j) own += term(v[j]);
    }
    for (; i < end; i += threads) own += term(a[i]);
    const double sum = block_sum<threads>(own);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

template <class Out>
__global__ void sum_parts(const double* parts, size_t count, Out* out) {
    double own = 0;
    for (size_t i = threadIdx.x; i < count; i += threads) own += parts[i];
    const double sum = block_sum<threads>(own);
    if (threadIdx.x == 0) *out = Out(sum);
}

template <class Term, class Out>
void sum_all(Queue& q, Term term, const float* a, Out* out, size_t n) {
    const Runs runs = runs_of(n);
    double* const parts = reinterpret_cast<double*>(q.scratch);
    launch(sum_runs<Term>, dim3(unsigned(runs.count)), dim3(threads), q, term, a, n, runs.length,
           parts);
    launch(sum_parts<Out>, dim3(1), dim3(threads), q, parts, runs.count, out);
}

void sum(Queue& q, const float* a, float* out, size_t n) {
    sum_all(q, Plain{}, a, out, n);
}
void sum_squares(Queue& q, const float* a, double* out, size_t n) {
    sum_all(q, Square{}, a, out, n);
}
size_t sum_scratch(size_t n) {
    return runs_of(n).count * sizeof(double);
}

struct Value {
    const float* a;
    size_t cols;
    __device__ Terms<1> operator()(size_t r, size_t c) const { return {{a[r * cols + c]}}; }
};

void sum_rows(Queue& q, const float* a, float* out, size_t rows, size_t cols) {
    sum_columns<1>(q, Value{a, cols}, StoreColumn{out}, rows, cols);
}
size_t sum_rows_scratch(size_t rows, size_t cols) {
    return column_scratch(rows, cols, 1);
}

// Of equal values the lower column; a row without any above -infinity gives 0.
__global__ void argmax_rows(const float* a, int32_t* out, size_t rows, size_t cols) {
    const unsigned lane = threadIdx.x % warp_size;
    for (size_t r = global_thread() / warp_size; r < rows; r += global_threads() / warp_size) {
        float best = -INFINITY;
        int32_t at = 0;
        for (size_t c = lane; c < cols; c += warp_size) {
            const float v = a[r * cols + c];
            if (v > best) {
                best = v;
                at = int32_t(c);
            }
        }
        for (unsigned with = warp_size / 2; with > 0; with /= 2) {
            const float other = __shfl_xor_sync(all_lanes, best, with);
            const int32_t other_at = __shfl_xor_sync(all_lanes, at, with);
            if (other > best || (other == best && other_at < at)) {
                best = other;
                at = other_at;
            }
        }
        if (lane == 0) out[r] = at;
    }
}

void argmax(Queue& q, const float* a, int32_t* out, size_t rows, size_t cols) {
    launch(argmax_rows, dim3(blocks_for(rows * warp_size, threads)), dim3(threads), q, a, out, rows,
           cols);
}

}  // namespace

Reduce<float> reduce() {
    return {.sum = sum,
            .sum_squares = sum_squares,
            .sum_rows = sum_rows,
            .argmax = argmax,
            .sum_scratch = sum_scratch,
            .sum_rows_scratch = sum_rows_scratch};
}

}  // namespace nc::kernels::NC_CUDA
