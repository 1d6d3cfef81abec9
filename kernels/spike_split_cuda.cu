// Sums of packed spikes on tensor cores, in any order: throughput and training, never verification.
//
// A weight is two fp16 numbers, w s = hi + lo, where s is the power of two that takes the largest
// weight of the output to [2^14, 2^15); spikes are fp16 0 and 1, products are exact, accumulators
// fp32.
//
// The bound, eps = 2^-24, S = |bias| + the sum of |w| over spikes, n inputs with every pixel's
// rounded up to 16. Splitting: hi misses at most 2^-11 |w s|; lo misses 2^-11 of that, or half of
// fp16's smallest number, 2^-25: 4 eps |w| + 2^-25 / s, and 2^-25 / s <= 2^-39 max |w|, or, where s
// is at its limit of 2^126, below 2^-150. Adding: one operation adds 16 products to the
// accumulator, in four steps or fewer of at least four; a step aligns its five addends to the
// largest and cuts each, then their sum, at 2^-23 of it: 6 * 2^-23 S. Two operations for 16 inputs:
// 2 * n / 16 * 4 * 6 * 2^-23 S = 6 n eps S. Scaling back is exact but among denormals (2^-150), the
// bias is added once (eps S). What is left of 8 eps S pays for |hi| + |lo| <= (1 + 2^-10) |w s|.
// Weights of any finite size fit; others give NaN.
//
// 4 operations per input and output (two products); a block of 128 pixels by 64 outputs reads 4
// bytes a weight and 1/8 a spike. Spikes go through shared memory packed and are expanded in
// registers: a bit is copied into 16 only where it is multiplied.
#include "kernels/spike_cuda.cuh"

namespace nc::kernels::NC_CUDA {
namespace {

// ----------------------------------------------------------------------------------------------
// one warp's step, and fp16
#ifndef NC_CUDA_EMULATED
__device__ unsigned half_of(float x) {  // to nearest
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
__device__ float value_of(unsigned half) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"((unsigned short)(half)));
    return x;
}

// c [16, 8] += a [16, 16] b [16, 8]; the lanes hold pieces of each. Of lane l, q = l % 4, g = l /
// 4: a: rows g, g + 8, g, g + 8 at columns 2 q (+1), the last two 8 further; b: column g at rows 2
// q (+1), then 8 further; c: row g at columns 2 q, 2 q + 1, then row g + 8.
__device__ void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
unsigned half_of(float x) {
    if (!std::isfinite(x)) return x != x ? 0x7e00u : x < 0 ? 0xfc00u : 0x7c00u;
    const int exponent = x == 0 ? -14 : std::max(std::ilogb(x), -14);
    const float digits = std::nearbyint(std::ldexp(std::fabs(x), 10 - exponent));  // up to 2048
    return unsigned((exponent + 14) << 10) + unsigned(digits) + (std::signbit(x) ? 0x8000u : 0u);
}
float value_of(unsigned half) {
    if ((half & 0x7c00) == 0x7c00) return half & 0x3ff ? NAN : half & 0x8000 ? -INFINITY : INFINITY;
    const float size = std::bit_cast<float>((half & 0x7fffu) << 13) * 0x1p112f;
    return half & 0x8000 ? -size : size;
}

void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    struct Pieces {
        unsigned a[4], b[2];
    };
    const auto* all = emulation::exchange_value(
        all_lanes, Pieces{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, __LINE__);
    const unsigned lane = emulation::here().lane;
    for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 16; ++k) {
            const auto left = emulation::slot_value<Pieces>(all[row % 8 * 4 + k % 8 / 2]);
            const unsigned x = left.a[row / 8 + k / 8 * 2] >> k % 2 * 16 & 0xffff;
            if (x == 0) continue;
            const auto right = emulation::slot_value<Pieces>(all[column * 4 + k % 8 / 2]);
            c[i] += value_of(x) * value_of(right.b[k / 8] >> k % 2 * 16 & 0xffff);
        }
    }
}
#endif

// ----------------------------------------------------------------------------------------------
// the weights' scales
constexpr unsigned threads = 256;
constexpr unsigned scale_rows = 256;  // of w that a block looks at

// largest [cols], zero before: the bits of the largest |w| of each column, which order as the
// numbers do.
__global__ void largest_weights(const float* w, size_t rows, size_t cols, unsigned* largest) {
    const size_t c = size_t(blockIdx.x) * warp_size + threadIdx.x;
    const size_t begin = size_t(blockIdx.y) * scale_rows;
    const size_t end = begin + scale_rows < rows ? begin + scale_rows : rows;
    if (c >= cols) return;
    unsigned most = 0;
    for (size_t r = begin + threadIdx.y; r < end; r += threads / warp_size) {
        const unsigned bits = __float_as_uint(w[r * cols + c]) & 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    atomicMax(largest + c, most);
}

// The biased exponent of s.
__device__ unsigned scale_exponent(unsigned largest) {
    const unsigned exponent = 127 + 14 - ((largest >> 23) - 127);
    return exponent < 253 ? exponent : 253;
}
__device__ float power_of_two(unsigned biased_exponent) {
    return __uint_as_float(biased_exponent << 23);
}

// ----------------------------------------------------------------------------------------------
// the sums
constexpr unsigned tile_pixels = 128, tile_outputs = 64;
constexpr unsigned steps = 4;                    // of 16 inputs of one tap each, in a slab
constexpr unsigned w_stride = tile_outputs + 4;  // 4: a fragment's rows lie in other banks
constexpr unsigned warp_pixels = 32, warp_outputs = 32;
constexpr unsigned pixel_tiles = warp_pixels / 16, output_tiles = warp_outputs / 8;

// Two bits as two fp16 numbers.
__device__ unsigned expand(unsigned bits) {
    return ((bits | bits << 15) & 0x10001u) * 0x3c00u;
}

// Warps are 4 along pixels by 2 along outputs.
__global__ void __launch_bounds__(threads, 2)
    add_split(const uint64_t* bits, const float* w, const float* bias, const unsigned* largest,
              float* y, ConvShape s, size_t out_h, size_t out_w) {
    NC_SHARED(unsigned, spikes, tile_pixels * 2);         // [pixels, 2], 16 bits a step
    NC_SHARED(unsigned, weights, steps * 16 * w_stride);  // [inputs, outputs], hi and lo << 16
    const unsigned tid = threadIdx.x, lane = tid % warp_size, warp = tid / warp_size;
    const unsigned q = lane % 4, g = lane / 4;
    const size_t all = s.n * out_h * out_w, words = (s.cin + 63) / 64;
    const size_t first = size_t(blockIdx.x) * tile_pixels, o0 = size_t(blockIdx.y) * tile_outputs;
    // What the thread brings: two steps of a pixel's spikes, every fourth row of an output's
    // weights.
    const unsigned my_pixel = tid / 2, my_output = tid % tile_outputs;
    Corner at = corner_of(s, out_h, out_w, first + my_pixel);
    if (first + my_pixel >= all) at.y = nowhere;
    const auto* const all_pieces = reinterpret_cast<const uint16_t*>(bits);
    const bool output_exists = o0 + my_output < s.cout;
    const float* const my_w = w + o0 + my_output;
    const float scale = output_exists ? power_of_two(scale_exponent(largest[o0 + my_output])) : 1.f;
    float sum[pixel_tiles][output_tiles][4] = {};
    const unsigned tap_steps = unsigned((s.cin + 15) / 16);
    const unsigned all_steps = unsigned(s.kh * s.kw) * tap_steps;
    for (unsigned begin = 0; begin < all_steps; begin += steps) {
        __syncthreads();
        unsigned pieces = 0;
        NC_UNROLL
        for (unsigned i = 0; i < 2; ++i) {
            const unsigned step = begin + tid % 2 * 2 + i, tap = step / tap_steps;
            const unsigned ky = tap / unsigned(s.kw);
            size_t pixel;
            if (under(s, at, ky, tap - ky * unsigned(s.kw), pixel) && step < all_steps)
                pieces |= unsigned(all_pieces[pixel * words * 4 + step - tap * tap_steps])
                          << i * 16;
        }
        spikes[tid] = pieces;
        NC_UNROLL
        for (unsigned k = 0; k < steps; ++k) {
            const unsigned step = begin + k, tap = step / tap_steps;
            NC_UNROLL
            for (unsigned i = 0; i < 4; ++i) {
                const unsigned row = tid / tile_outputs + i * 4;
                const unsigned c = (step - tap * tap_steps) * 16 + row;
                const bool in = output_exists && step < all_steps && c < s.cin;
                const float x = in ? my_w[(tap * s.cin + c) * s.cout] * scale : 0.f;
                const unsigned hi = half_of(x), lo = half_of(x - value_of(hi));
                weights[(k * 16 + row) * w_stride + my_output] = hi | lo << 16;
            }
        }
        __syncthreads();
        NC_UNROLL
        for (unsigned k = 0; k < steps; ++k) {
            unsigned a[pixel_tiles][4];
            NC_UNROLL
            for (unsigned i = 0; i < 4 * pixel_tiles; ++i) {
                const unsigned pixel = warp / 2 * warp_pixels + i / 4 * 16 + i % 2 * 8 + g;
                const unsigned row = spikes[pixel * 2 + k / 2] >> (k % 2 * 16 + 2 * q);
                a[i / 4][i % 4] = expand(row >> i % 4 / 2 * 8 & 3u);
            }
            NC_UNROLL
            for (unsigned o = 0; o < output_tiles; ++o) {
                const unsigned* const from =
                    weights + (k * 16 + 2 * q) * w_stride + warp % 2 * warp_outputs + o * 8 + g;
                unsigned hi[2], lo[2];
                NC_UNROLL
                for (unsigned i = 0; i < 2; ++i) {
                    const unsigned even = from[i * 8 * w_stride],
                                   odd = from[(i * 8 + 1) * w_stride];
                    hi[i] = (even & 0xffffu) | odd << 16;
                    lo[i] = even >> 16 | (odd & 0xffff0000u);
                }
                NC_UNROLL
                for (unsigned p = 0; p < pixel_tiles; ++p) {
                    mma(sum[p][o], a[p], hi);
                    mma(sum[p][o], a[p], lo);
                }
            }
        }
    }
    NC_UNROLL
    for (unsigned o = 0; o < output_tiles; ++o) {
        NC_UNROLL
        for (unsigned j = 0; j < 2; ++j) {
            const size_t output = o0 + warp % 2 * warp_outputs + o * 8 + 2 * q + j;
            if (output >= s.cout) continue;
            const float back = power_of_two(254 - scale_exponent(largest[output]));
            const float from = start(bias, output);
            NC_UNROLL
            for (unsigned p = 0; p < pixel_tiles; ++p) {
                NC_UNROLL
                for (unsigned i = 0; i < 2; ++i) {
                    const size_t pixel = first + warp / 2 * warp_pixels + p * 16 + i * 8 + g;
                    if (pixel < all)
                        y[pixel * s.cout + output] = from + sum[p][o][i * 2 + j] * back;
                }
            }
        }
    }
}

}  // namespace

void conv_split(Queue& q, const uint64_t* bits, const float* w, const float* bias, float* y,
                const ConvShape& s) {
    if (s.n == 0 || s.cout == 0 || q.status != cudaSuccess) return;
    const size_t out_h = s.out_h(), out_w = s.out_w(), all = s.n * out_h * out_w;
    const size_t rows = s.kh * s.kw * s.cin;
    unsigned* const largest = reinterpret_cast<unsigned*>(q.scratch);
    q.status = int(cudaMemsetAsync(largest, 0, s.cout * sizeof *largest, stream_of(q)));
    launch(largest_weights,
           dim3(unsigned((s.cout + warp_size - 1) / warp_size),
                unsigned((rows + scale_rows - 1) / scale_rows)),
           dim3(warp_size, threads / warp_size), q, w, rows, s.cout, largest);
    launch(add_split,
           dim3(unsigned((all + tile_pixels - 1) / tile_pixels),
                unsigned((s.cout + tile_outputs - 1) / tile_outputs)),
           threads, q, bits, w, bias, largest, y, s, out_h, out_w);
}

// A linear layer is a convolution over a column of its groups by a kernel just as high.
void linear_split(Queue& q, const uint64_t* bits, const float* w, const float* bias, float* y,
                  size_t rows, size_t groups, size_t channels, size_t out) {
    conv_split(
        q, bits, w, bias, y,
        {.n = rows, .h = groups, .w = 1, .cin = channels, .kh = groups, .kw = 1, .cout = out});
}

// The largest weight of each output.
size_t split_scratch(size_t, size_t out) {
    return out * sizeof(unsigned);
}

}  // namespace nc::kernels::NC_CUDA
