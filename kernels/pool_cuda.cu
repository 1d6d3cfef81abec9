// The pool family on CUDA: every output is gathered by one thread, so nothing is added by two.
//
// A block walks one row of the output (or, backward, of the input); a thread takes pixel and
// channel of it, channels fastest, so reads and writes are coalesced where there are channels.
// Windows of 2 and 3 are unrolled: all their reads are in flight at once. Bytes an output of
// average 2x2: 16 read, 4 written; backward 1 read (each dy by four threads), 4 written. Bitwise:
// the reference visits what one element takes part in by ascending output, so do these.
#include "kernels/cuda_util.cuh"

namespace nc::kernels::NC_CUDA {
namespace {

// Where a thread is: element i of row `row` (n * height + y) of a [n, height, width, c] array.
template <class Body>
__device__ void for_row(size_t rows, size_t height, size_t width, size_t c, Body body) {
    const unsigned length = unsigned(width * c), channels = unsigned(c);
    for (size_t row = blockIdx.x; row < rows; row += gridDim.x)
        for (unsigned i = threadIdx.x; i < length; i += blockDim.x)
            body(row / height, row % height, size_t(i / channels), size_t(i % channels),
                 row * length + i);
}

// kernel(arguments...) with a block for every row.
template <class... Parameters, class... Arguments>
void over_rows(Queue& q, void (*kernel)(Parameters...), size_t rows, size_t length,
               Arguments... arguments) {
    if (length == 0) return;
    const unsigned threads =
        length < 256 ? unsigned((length + warp_size - 1) / warp_size) * warp_size : 256;
    launch(kernel, dim3(blocks_for(rows, 1)), dim3(threads), q, arguments...);
}

// Calls visit(in, y * w + x) for the elements of channel c in the window of (n, oy, ox), without
// padding. size: that of a square window that meets no padding, or 0.
template <unsigned size, class Visit>
__device__ void for_window(const PoolShape& s, size_t n, size_t oy, size_t ox, size_t c,
                           Visit visit) {
    const size_t kh = size > 0 ? size : s.kh, kw = size > 0 ? size : s.kw;
    NC_UNROLL
    for (size_t ky = 0; ky < kh; ++ky) NC_UNROLL
    for (size_t kx = 0; kx < kw; ++kx) {
        const size_t y = oy * s.stride_h + ky - s.pad_h, x = ox * s.stride_w + kx - s.pad_w;
        const size_t at = y * s.w + x;
        if (size > 0 || (y < s.h && x < s.w))  // before the first they wrap to huge ones
            visit((n * s.h * s.w + at) * s.c + c, at);
    }
}
bool is_plain(const PoolShape& s, size_t size) {
    return s.kh == size && s.kw == size && s.pad_h == 0 && s.pad_w == 0;
}

// The outputs whose windows cover coordinate `at` of one axis: [begin, end).
struct Covering {
    size_t begin, end;
};
__device__ Covering covering(size_t at, size_t pad, size_t window, size_t stride, size_t outputs) {
    const unsigned from = unsigned(at + pad), k = unsigned(window), step = unsigned(stride);
    const size_t begin = from < k ? 0 : (from - k) / step + 1, end = from / step + 1;
    return {begin, end < outputs ? end : outputs};
}

// Calls visit(out) for the outputs whose windows cover (n, y, x), of channel c, ascending.
template <class Visit>
__device__ void for_windows_over(const PoolShape& s, size_t n, size_t y, size_t x, size_t c,
                                 Visit visit) {
    const Covering down = covering(y, s.pad_h, s.kh, s.stride_h, s.out_h());
    const Covering across = covering(x, s.pad_w, s.kw, s.stride_w, s.out_w());
    for (size_t oy = down.begin; oy < down.end; ++oy)
        for (size_t ox = across.begin; ox < across.end; ++ox)
            visit(((n * s.out_h() + oy) * s.out_w() + ox) * s.c + c);
}

template <unsigned size>
__global__ void average_windows(const float* x, float* y, float factor, PoolShape s) {
    for_row(s.n * s.out_h(), s.out_h(), s.out_w(), s.c,
            [&](size_t n, size_t oy, size_t ox, size_t c, size_t out) {
                float sum = 0;
                for_window<size>(s, n, oy, ox, c, [&](size_t in, size_t) { sum += x[in]; });
                y[out] = sum * factor;
            });
}

__global__ void spread_average(const float* dy, float* dx, float factor, PoolShape s) {
    for_row(s.n * s.h, s.h, s.w, s.c, [&](size_t n, size_t y, size_t x, size_t c, size_t in) {
        float sum = 0;
        for_windows_over(s, n, y, x, c, [&](size_t out) { sum += dy[out] * factor; });
        dx[in] = sum;
    });
}

// The first NaN of a window wins over everything.
template <unsigned size>
__global__ void max_windows(const float* x, float* y, int32_t* index, PoolShape s) {
    for_row(s.n * s.out_h(), s.out_h(), s.out_w(), s.c,
            [&](size_t n, size_t oy, size_t ox, size_t c, size_t out) {
                bool first = true;
                float best = 0;
                size_t best_at = 0;
                for_window<size>(s, n, oy, ox, c, [&](size_t in, size_t at) {
                    const float v = x[in];
                    if (first || v > best || (v != v && best == best)) {
                        best = v;
                        best_at = at;
                    }
                    first = false;
                });
                y[out] = best;
                if (index != nullptr) index[out] = int32_t(best_at);
            });
}

__global__ void return_max(const float* dy, const int32_t* index, float* dx, PoolShape s) {
    for_row(s.n * s.h, s.h, s.w, s.c, [&](size_t n, size_t y, size_t x, size_t c, size_t in) {
        float sum = 0;
        for_windows_over(s, n, y, x, c, [&](size_t out) {
            if (size_t(index[out]) == y * s.w + x) sum += dy[out];
        });
        dx[in] = sum;
    });
}

float average_factor(const PoolShape& s) {
    return 1.0f / float(s.kh * s.kw);
}

void average(Queue& q, const float* x, float* y, const PoolShape& s) {
    const auto kernel = is_plain(s, 2) ? average_windows<2> : average_windows<0>;
    over_rows(q, kernel, s.n * s.out_h(), s.out_w() * s.c, x, y, average_factor(s), s);
}
void average_backward(Queue& q, const float* dy, float* dx, const PoolShape& s) {
    over_rows(q, spread_average, s.n * s.h, s.w * s.c, dy, dx, average_factor(s), s);
}
void max_pool(Queue& q, const float* x, float* y, int32_t* index, const PoolShape& s) {
    const auto kernel = is_plain(s, 2) ? max_windows<2> : max_windows<0>;
    over_rows(q, kernel, s.n * s.out_h(), s.out_w() * s.c, x, y, index, s);
}
void max_backward(Queue& q, const float* dy, const int32_t* index, float* dx, const PoolShape& s) {
    over_rows(q, return_max, s.n * s.h, s.w * s.c, dy, index, dx, s);
}

}  // namespace

Pool<float> pool() {
    return {.average = average,
            .average_backward = average_backward,
            .max = max_pool,
            .max_backward = max_backward};
}

}  // namespace nc::kernels::NC_CUDA
