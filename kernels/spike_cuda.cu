// Packed spikes and the canonical sums on CUDA: threads divide outputs only, each sum is one
// register that walks its inputs upwards.
//
// Packing reads 4 bytes a value and writes 1/8, unpacking the reverse: bound by memory, no
// arithmetic. Events: an addition per set bit and output. With many pixels, slabs of 64 weight rows
// lie in shared memory, where each is read by the set bits of 32 pixels: 4 bytes from L2 for 32
// pixels' weight. With few pixels only the rows that fire are read, from L2, 128 bytes a warp,
// eight of them at once. Dense: 2 operations (binary: one fma) per input and output; tiles of 128
// pixels by 64 outputs, 8 by 4 in a thread's registers, so 12 floats are read from shared memory
// for 64 (32) operations; half as many pixels where that leaves too few tiles.
#include "kernels/spike_cuda.cuh"

namespace nc::kernels::NC_CUDA {
namespace {

constexpr unsigned threads = 256, warps = threads / warp_size;
constexpr size_t enough = 128;  // blocks that keep a card busy

// ----------------------------------------------------------------------------------------------
// packing
constexpr unsigned at_once = 4;  // halves of words a warp has in flight

// Halves of words, 32 bits each, [rows, halves]: x86 and CUDA are both little-endian.
__global__ void pack_halves(const float* x, unsigned* bits, size_t rows, size_t channels,
                            size_t halves) {
    const unsigned lane = threadIdx.x % warp_size;
    const size_t all = rows * halves, step = global_threads() / warp_size * at_once;
    for (size_t first = global_thread() / warp_size * at_once; first < all; first += step) {
        bool spike[at_once];
        NC_UNROLL
        for (unsigned k = 0; k < at_once; ++k) {
            const size_t half = first + k, row = rows == 1 ? 0 : half / halves;
            const size_t c = (half - row * halves) * 32 + lane;
            spike[k] = half < all && c < channels && x[row * channels + c] != 0;
        }
        unsigned own = 0;
        NC_UNROLL
        for (unsigned k = 0; k < at_once; ++k) {
            const unsigned ballot = __ballot_sync(all_lanes, spike[k]);
            if (lane == k) own = ballot;
        }
        if (lane < at_once && first + lane < all) bits[first + lane] = own;
    }
}

__global__ void unpack_bits(const uint64_t* bits, float value, float* x, size_t rows,
                            size_t channels) {
    const size_t words = (channels + 63) / 64, n = rows * channels;
    for (size_t i = global_thread(); i < n; i += global_threads()) {
        const size_t row = rows == 1 ? 0 : i / channels, c = i - row * channels;
        x[i] = bits[row * words + c / 64] >> c % 64 & 1 ? value : 0.f;
    }
}

// Rows that fill their words are one long row.
void join_rows(size_t& rows, size_t& channels) {
    if (channels % 64 != 0) return;
    channels *= rows;
    rows = 1;
}

void pack(Queue& q, const float* x, uint64_t* bits, size_t rows, size_t channels) {
    join_rows(rows, channels);
    const size_t halves = (channels + 63) / 64 * 2;
    launch(pack_halves, dim3(blocks_for((rows * halves + at_once - 1) / at_once, warps)), threads,
           q, x, reinterpret_cast<unsigned*>(bits), rows, channels, halves);
}

void unpack(Queue& q, const uint64_t* bits, float value, float* x, size_t rows, size_t channels) {
    join_rows(rows, channels);
    launch(unpack_bits, dim3(blocks_for(rows * channels, threads)), threads, q, bits, value, x,
           rows, channels);
}

using Sum = unsigned long long;  // what atomicAdd takes

__global__ void count_bits(const uint64_t* bits, size_t words, Sum* total) {
    Sum n = 0;
    for (size_t i = global_thread(); i < words; i += global_threads()) n += __popcll(bits[i]);
    n = block_sum<threads>(n);
    if (threadIdx.x == 0) atomicAdd(total, n);
}

uint64_t count(Queue& q, const uint64_t* bits, size_t words) {
    Sum* const total = reinterpret_cast<Sum*>(q.scratch);
    uint64_t result = 0;
    const auto ask = [&](cudaError_t error) {
        if (q.status == cudaSuccess) q.status = int(error);
    };
    if (words == 0 || q.status != cudaSuccess) return 0;
    ask(cudaMemsetAsync(total, 0, sizeof *total, stream_of(q)));
    launch(count_bits, dim3(blocks_for(words, threads, 2048)), threads, q, bits, words, total);
    ask(cudaMemcpyAsync(&result, total, sizeof result, cudaMemcpyDefault, stream_of(q)));
    ask(cudaStreamSynchronize(stream_of(q)));
    return q.status == cudaSuccess ? result : 0;
}

size_t count_scratch() {
    return sizeof(Sum);
}

// ----------------------------------------------------------------------------------------------
// sums over events, many pixels
constexpr unsigned slab_rows = 64;
constexpr int pixels = 4;  // of a warp

// sum[j] += the rows of w, `stride` apart, of word's set bits, at column 32 j.
template <int per>
__device__ void add_rows(uint64_t word, const float* w, unsigned stride, float* sum) {
    while (word != 0) {
        const float* const row = w + unsigned(__ffsll((long long)word) - 1) * stride;
        word &= word - 1;
        NC_UNROLL
        for (int j = 0; j < per; ++j) sum[j] = sum[j] + row[unsigned(j) * warp_size];
    }
}

// A warp's lanes hold `per` outputs each, 32 apart, of its pixels; the block's warps share slabs of
// weights.
template <int per>
__global__ void __launch_bounds__(threads, 3)
    add_events(const uint64_t* bits, const float* w, const float* bias, float* y, ConvShape s,
               size_t out_h, size_t out_w) {
    constexpr unsigned width = per * warp_size;
    NC_SHARED(float, slab, slab_rows* width);
    const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
    const size_t all = s.n * out_h * out_w, words = (s.cin + 63) / 64;
    const size_t first = (size_t(blockIdx.x) * warps + warp) * pixels;
    const size_t o0 = size_t(blockIdx.y) * width;
    float sum[pixels][per];
    Corner at[pixels];
    NC_UNROLL
    for (int p = 0; p < pixels; ++p) {
        at[p] = corner_of(s, out_h, out_w, first + unsigned(p));
        if (first + unsigned(p) >= all) at[p].y = nowhere;
        NC_UNROLL
        for (int j = 0; j < per; ++j) {
            const size_t o = o0 + lane + unsigned(j) * warp_size;
            sum[p][j] = start(o < s.cout ? bias : nullptr, o);
        }
    }
    // Slabs are words of a tap, or as many whole taps as they hold.
    const unsigned taps = unsigned(s.kh * s.kw);
    const unsigned most = words == 1 ? slab_rows / unsigned(s.cin) : 1;
    unsigned ky = 0, kx = 0;
    for (unsigned tap = 0; tap < taps;) {
        const unsigned here = most < taps - tap ? most : taps - tap, slab_ky = ky, slab_kx = kx;
        for (size_t k = 0; k < words; ++k) {
            const size_t row = tap * s.cin + k * 64, left = here * s.cin - k * 64;
            const unsigned rows = left < slab_rows ? unsigned(left) : slab_rows;
            __syncthreads();
            for (unsigned i = threadIdx.x; i < rows * width; i += threads) {
                const size_t o = o0 + i % width;
                slab[i] = o < s.cout ? w[(row + i / width) * s.cout + o] : 0.f;
            }
            __syncthreads();
            ky = slab_ky, kx = slab_kx;
            for (unsigned t = 0; t < here; ++t) {
                uint64_t word[pixels];
                NC_UNROLL
                for (int p = 0; p < pixels; ++p) {
                    size_t pixel;
                    word[p] = under(s, at[p], ky, kx, pixel) ? bits[pixel * words + k] : 0;
                }
                NC_UNROLL
                for (int p = 0; p < pixels; ++p)
                    add_rows<per>(word[p], slab + t * unsigned(s.cin) * width + lane, width,
                                  sum[p]);
                if (++kx == s.kw) kx = 0, ++ky;
            }
        }
        tap += here;
    }
    NC_UNROLL
    for (int p = 0; p < pixels; ++p) {
        NC_UNROLL
        for (int j = 0; j < per; ++j) {
            const size_t pixel = first + unsigned(p), o = o0 + lane + unsigned(j) * warp_size;
            if (pixel < all && o < s.cout) y[pixel * s.cout + o] = sum[p][j];
        }
    }
}

// ----------------------------------------------------------------------------------------------
// sums over events, few pixels
constexpr unsigned list_warps = 4;

// A warp for 32 outputs of a pixel. Each lane takes a word under the window and appends its events
// to the warp's list, in order; then all walk the list, with several rows of weights on their way.
__global__ void __launch_bounds__(list_warps* warp_size)
    add_listed_events(const uint64_t* bits, const float* w, const float* bias, float* y,
                      ConvShape s, size_t out_h, size_t out_w) {
    constexpr unsigned capacity = warp_size * 64, batch = 8;
    NC_SHARED(unsigned, lists, list_warps* capacity);
    const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
    unsigned* const list = lists + warp * capacity;
    const size_t all = s.n * out_h * out_w, words = (s.cin + 63) / 64;
    const size_t pixel = size_t(blockIdx.x) * list_warps + warp;
    const size_t o = size_t(blockIdx.y) * warp_size + lane;
    Corner at = corner_of(s, out_h, out_w, pixel);
    if (pixel >= all) at.y = nowhere;
    float sum = start(o < s.cout ? bias : nullptr, o);
    const float* const own = w + (o < s.cout ? o : s.cout - 1);  // of lanes without output: any
    const unsigned units = unsigned(s.kh * s.kw * words);        // words under the window
    for (unsigned begin = 0; begin < units; begin += warp_size) {
        const unsigned unit = begin + lane, tap = unit / unsigned(words);
        const unsigned k = unit - tap * unsigned(words), ky = tap / unsigned(s.kw);
        size_t from;
        uint64_t word = 0;
        if (unit < units && under(s, at, ky, tap - ky * unsigned(s.kw), from))
            word = bits[from * words + k];
        const unsigned events = unsigned(__popcll(word));
        unsigned end = events;  // of this lane's in the list: the sum over the lanes up to it
        for (unsigned by = 1; by < warp_size; by *= 2) {
            const unsigned before = __shfl_up_sync(all_lanes, end, by);
            if (lane >= by) end += before;
        }
        __syncwarp();  // the list before this one has been read
        const unsigned row = tap * unsigned(s.cin) + k * 64;
        for (unsigned e = end - events; e < end; ++e, word &= word - 1)
            list[e] = row + unsigned(__ffsll((long long)word) - 1);
        const unsigned listed = __shfl_sync(all_lanes, end, warp_size - 1);
        __syncwarp();
        for (unsigned e = 0; e < listed; e += batch) {
            float value[batch];
            NC_UNROLL
            for (unsigned j = 0; j < batch; ++j)
                value[j] = e + j < listed ? own[list[e + j] * s.cout] : 0.f;
            NC_UNROLL
            for (unsigned j = 0; j < batch; ++j) sum = sum + value[j];
        }
    }
    if (pixel < all && o < s.cout) y[pixel * s.cout + o] = sum;
}

void conv_event(Queue& q, const uint64_t* bits, const float* w, const float* bias, float* y,
                const ConvShape& s) {
    if (s.n == 0 || s.cout == 0) return;
    const size_t out_h = s.out_h(), out_w = s.out_w(), all = s.n * out_h * out_w;
    const auto grid = [&](size_t block_pixels, size_t width) {
        return dim3(unsigned((all + block_pixels - 1) / block_pixels),
                    unsigned((s.cout + width - 1) / width));
    };
    const size_t width = s.cout <= 32 ? 32 : s.cout <= 64 ? 64 : 128;
    const dim3 slabs = grid(warps * pixels, width);
    if (size_t(slabs.x) * slabs.y < enough)
        launch(add_listed_events, grid(list_warps, 32), list_warps * warp_size, q, bits, w, bias, y,
               s, out_h, out_w);
    else
        launch(width == 32   ? add_events<1>
               : width == 64 ? add_events<2>
                             : add_events<4>,
               slabs, threads, q, bits, w, bias, y, s, out_h, out_w);
}

// A linear layer is a convolution over a column of its groups by a kernel just as high.
void linear_event(Queue& q, const uint64_t* bits, const float* w, const float* bias, float* y,
                  size_t rows, size_t groups, size_t channels, size_t out) {
    conv_event(
        q, bits, w, bias, y,
        {.n = rows, .h = groups, .w = 1, .cin = channels, .kh = groups, .kw = 1, .cout = out});
}

// ----------------------------------------------------------------------------------------------
// sums over all inputs
template <bool fused>
__device__ float multiply_add(float x, float w, float sum) {
    if constexpr (fused) return __fmaf_rn(x, w, sum);
    return sum + x * w;
}

constexpr unsigned own_outputs = 4;
constexpr unsigned tile_outputs = 16 * own_outputs, tile_inputs = 16;

// A tile of outputs a block, groups == 1. Threads are 16 x 16: outputs 16 apart, pixels side by
// side, 4 or 8 of them.
template <bool fused, unsigned own_pixels>
__global__ void __launch_bounds__(threads, 3)
    add_tiles(const float* x, const float* w, const float* bias, float* y, ConvShape s,
              size_t out_h, size_t out_w) {
    constexpr unsigned tile_pixels = 16 * own_pixels;
    constexpr unsigned x_stride = tile_pixels + 4;    // 4: an input's values start in other banks
    NC_SHARED(float, xs, tile_inputs* x_stride);      // [inputs, pixels]
    NC_SHARED(float, ws, tile_inputs* tile_outputs);  // [inputs, outputs]
    NC_SHARED(Corner, corners, tile_pixels);
    const unsigned tid = threadIdx.x, tx = tid % 16, ty = tid / 16;
    const size_t all = s.n * out_h * out_w;
    const size_t first = size_t(blockIdx.x) * tile_pixels, o0 = size_t(blockIdx.y) * tile_outputs;
    if (tid < tile_pixels) {
        Corner at = corner_of(s, out_h, out_w, first + tid);
        if (first + tid >= all) at.y = nowhere;
        corners[tid] = at;
    }
    float sum[own_pixels][own_outputs];
    NC_UNROLL
    for (unsigned j = 0; j < own_outputs; ++j) {
        const size_t o = o0 + tx + j * 16;
        const float from = start(o < s.cout ? bias : nullptr, o);
        NC_UNROLL
        for (unsigned p = 0; p < own_pixels; ++p) sum[p][j] = from;
    }
    const unsigned cin = unsigned(s.cin), inputs = unsigned(s.kh * s.kw) * cin;
    for (unsigned begin = 0; begin < inputs; begin += tile_inputs) {
        __syncthreads();
        {  // x: a thread's values are of one input, those of 16 threads side by side
            const unsigned k = begin + tx, tap = k / cin, ky = tap / unsigned(s.kw);
            const unsigned kx = tap - ky * unsigned(s.kw), c = k - tap * cin;
            NC_UNROLL
            for (unsigned i = 0; i < tile_pixels / 16; ++i) {
                size_t pixel;
                const bool in = under(s, corners[ty + i * 16], ky, kx, pixel) && k < inputs;
                xs[tx * x_stride + ty + i * 16] = in ? x[pixel * cin + c] : 0.f;
            }
        }
        NC_UNROLL
        for (unsigned i = 0; i < tile_inputs * tile_outputs / threads; ++i) {
            const unsigned at = tid + i * threads, k = begin + at / tile_outputs;
            const size_t o = o0 + at % tile_outputs;
            ws[at] = k < inputs && o < s.cout ? w[k * s.cout + o] : 0.f;
        }
        __syncthreads();
        NC_UNROLL
        for (unsigned k = 0; k < tile_inputs; ++k) {
            float own_x[own_pixels], own_w[own_outputs];
            NC_UNROLL
            for (unsigned p = 0; p < own_pixels; p += 4) {
                const float4 four =
                    *reinterpret_cast<const float4*>(xs + k * x_stride + ty * own_pixels + p);
                own_x[p] = four.x, own_x[p + 1] = four.y;
                own_x[p + 2] = four.z, own_x[p + 3] = four.w;
            }
            NC_UNROLL
            for (unsigned j = 0; j < own_outputs; ++j)
                own_w[j] = ws[k * tile_outputs + tx + j * 16];
            NC_UNROLL
            for (unsigned p = 0; p < own_pixels; ++p) {
                NC_UNROLL
                for (unsigned j = 0; j < own_outputs; ++j)
                    sum[p][j] = multiply_add<fused>(own_x[p], own_w[j], sum[p][j]);
            }
        }
    }
    NC_UNROLL
    for (unsigned p = 0; p < own_pixels; ++p) {
        NC_UNROLL
        for (unsigned j = 0; j < own_outputs; ++j) {
            const size_t pixel = first + ty * own_pixels + p, o = o0 + tx + j * 16;
            if (pixel < all && o < s.cout) y[pixel * s.cout + o] = sum[p][j];
        }
    }
}

// A thread an output, for few pixels and for groups.
template <bool fused>
__global__ void __launch_bounds__(threads)
    add_each(const float* x, const float* w, const float* bias, float* y, ConvShape s, size_t out_h,
             size_t out_w) {
    const size_t all = s.n * out_h * out_w * s.cout, cin = s.cin / s.groups;
    for (size_t i = global_thread(); i < all; i += global_threads()) {
        const size_t pixel = i / s.cout, o = i - pixel * s.cout;
        const Corner at = corner_of(s, out_h, out_w, pixel);
        const float* const first = x + o / (s.cout / s.groups) * cin;
        const float* row = w + o;
        float sum = start(bias, o);
        for (unsigned ky = 0; ky < s.kh; ++ky)
            for (unsigned kx = 0; kx < s.kw; ++kx, row += cin * s.cout) {
                size_t from;
                if (!under(s, at, ky, kx, from)) continue;
                for (size_t c = 0; c < cin; ++c)
                    sum = multiply_add<fused>(first[from * s.cin + c], row[c * s.cout], sum);
            }
        y[i] = sum;
    }
}

void conv_dense(Queue& q, const float* x, const float* w, const float* bias, bool binary, float* y,
                const ConvShape& s) {
    if (s.n == 0 || s.cout == 0) return;
    const size_t out_h = s.out_h(), out_w = s.out_w(), all = s.n * out_h * out_w;
    const auto tiles = [&](auto kernel, size_t tile_pixels) {
        launch(kernel,
               dim3(unsigned((all + tile_pixels - 1) / tile_pixels),
                    unsigned((s.cout + tile_outputs - 1) / tile_outputs)),
               threads, q, x, w, bias, y, s, out_h, out_w);
    };
    if (s.groups == 1 && all * s.cout >= enough * 128 * tile_outputs)
        tiles(binary ? add_tiles<true, 8> : add_tiles<false, 8>, 128);
    else if (s.groups == 1 && all >= 32)
        tiles(binary ? add_tiles<true, 4> : add_tiles<false, 4>, 64);
    else
        launch(binary ? add_each<true> : add_each<false>, dim3(blocks_for(all * s.cout, threads)),
               threads, q, x, w, bias, y, s, out_h, out_w);
}

void linear_dense(Queue& q, const float* x, const float* w, const float* bias, bool binary,
                  float* y, size_t rows, size_t in, size_t out) {
    conv_dense(q, x, w, bias, binary, y,
               {.n = rows, .h = 1, .w = 1, .cin = in, .kh = 1, .kw = 1, .cout = out});
}

}  // namespace

Spike<float> spike() {
    return {.pack = pack,
            .unpack = unpack,
            .linear_dense = linear_dense,
            .linear_event = linear_event,
            .conv_dense = conv_dense,
            .conv_event = conv_event,
            .count = count,
            .count_scratch = count_scratch,
            .linear_split = linear_split,
            .conv_split = conv_split,
            .split_scratch = split_scratch};
}

}  // namespace nc::kernels::NC_CUDA
