// The tiled matrix product that gemm_cuda and conv_cuda share; what differs is where an element of
// an operand lies, which a small struct says.
//
// A block computes a tile of c, `depth` terms at a time: both operands' parts go through registers
// into one of two pairs of shared arrays while the other pair is multiplied, so a step has one
// barrier and its loads have a step's products to hide behind. A thread holds tm x tn sums; for
// each term it reads tm + tn floats of shared memory, 16 bytes a read, for tm tn fma.
//
// A tile of R x C reads (R + C) floats for 2 R C flops of every term: 128 x 128 is 32 flops a byte,
// 64 x 64 is 16, 32 x 32 is 8. An H200 (67 TFLOP/s in fp32, 4.8 TB/s, second-level cache about
// twice that) needs 14 from memory and 7 from the cache, where neighbouring tiles find each other's
// operands. In flight a multiprocessor has two blocks of (128 + 128) 8 floats: 16 KB against a step
// of 2048 cycles.
//
// Where a result has too few tiles to fill the card its terms are divided too: the parts are
// written to scratch, and a second kernel adds them in order. All of it depends on the sizes alone.
#pragma once

#include "kernels/cuda_util.cuh"

// Unrolled further, the reads of later terms would want registers that the sums need.
#ifdef NC_CUDA_EMULATED
#define NC_UNROLL_BY_2
#else
#define NC_UNROLL_BY_2 _Pragma("unroll 2")
#endif

namespace nc::kernels::NC_CUDA {

// A block's work. Lanes of a warp are 4 along rows, 8 along columns; warps wm x wn.
template <unsigned tm_, unsigned tn_, unsigned wm, unsigned wn_, unsigned depth_>
struct Tile {
    static constexpr unsigned tm = tm_, tn = tn_, wn = wn_, depth = depth_;
    static constexpr unsigned rows = wm * 4 * tm, cols = wn * 8 * tn, threads = wm * wn * warp_size;
};
using BigTile = Tile<8, 8, 4, 2, 8>;      // 128 x 128
using TallTile = Tile<8, 4, 4, 1, 8>;     // 128 x 32
using MiddleTile = Tile<8, 4, 2, 2, 16>;  // 64 x 64
using SmallTile = Tile<4, 4, 2, 1, 16>;   // 32 x 32
constexpr unsigned resident_threads =
    512;  // of each multiprocessor: so up to 128 registers a thread

// Exact n / divisor for n < 2^31 by a multiplication (Granlund & Montgomery, 1994).
struct Divider {
    unsigned divisor, magic, shift;
    explicit Divider(size_t d) : divisor(d == 0 ? 1 : unsigned(d)), shift(31) {
        while ((uint64_t(1) << (shift - 31)) < divisor) ++shift;
        magic = unsigned(((uint64_t(1) << shift) + divisor - 1) / divisor);
    }
    __device__ unsigned operator()(unsigned n) const {
        return unsigned(uint64_t(n) * magic >> shift);
    }
};

// An operand is seen as lines (rows of a, columns of b) of k terms. It says which of the two lies
// contiguous, so that lanes walk along it, and gives an element as at(base(group), line(i),
// term(k)): what depends on one index alone is computed once for all elements that share it.
template <bool along_terms_>
struct Matrix {
    static constexpr bool along_terms = along_terms_;
    using Line = unsigned;
    const float* p;
    unsigned stride, group_stride;
    __device__ const float* base(unsigned group) const { return p + size_t(group) * group_stride; }
    __device__ unsigned line(unsigned i) const { return i; }
    __device__ unsigned term(unsigned k) const { return k; }
    __device__ float at(const float* base, unsigned line, unsigned term) const {
        return along_terms ? base[size_t(line) * stride + term]
                           : base[size_t(term) * stride + line];
    }
};

// The thread's share of one operand's tile: `count` elements, of one term when lanes walk along
// terms, else of one line.
template <class Operand, unsigned extent, unsigned depth, unsigned threads>
struct Share {
    static constexpr bool along = Operand::along_terms;
    static constexpr unsigned count = extent * depth / threads;
    static constexpr unsigned step = along ? threads / depth : threads / extent;
    static constexpr unsigned stride = extent + 4;  // of a term's lines in shared memory
    static_assert(count * threads == extent * depth && step * count == (along ? extent : depth));

    unsigned first_line, first_term;
    const float* base;
    typename Operand::Line lines[along ? count : 1];
    float values[count];

    __device__ __forceinline__ Share(const Operand& operand, unsigned thread, unsigned group,
                                     unsigned first, unsigned end)
        : first_line(along ? thread / depth : thread % extent),
          first_term(along ? thread % depth : thread / extent),
          base(operand.base(group)) {
        NC_UNROLL
        for (unsigned i = 0; i < (along ? count : 1); ++i)
            lines[i] = operand.line(min(first + first_line + i * step, end - 1));
    }

    // Terms beyond the end are zero; lines beyond the end repeat the last: nobody asks for their
    // sums.
    __device__ __forceinline__ void load(const Operand& operand, unsigned k, unsigned end) {
        if constexpr (along) {
            const bool inside = k + first_term < end;
            const auto term = operand.term(k + first_term);
            NC_UNROLL
            for (unsigned i = 0; i < count; ++i)
                values[i] = inside ? operand.at(base, lines[i], term) : 0.f;
        } else {
            NC_UNROLL
            for (unsigned i = 0; i < count; ++i) {
                const unsigned at = k + first_term + i * step;
                values[i] = at < end ? operand.at(base, lines[0], operand.term(at)) : 0.f;
            }
        }
    }

    __device__ __forceinline__ void store(float* shared) const {
        NC_UNROLL
        for (unsigned i = 0; i < count; ++i) {
            const unsigned line = first_line + (along ? i * step : 0);
            const unsigned term = first_term + (along ? 0 : i * step);
            shared[term * stride + line] = values[i];
        }
    }
};

// Where row `row` of a group's result lies.
struct PlainRows {
    unsigned stride;
    __device__ size_t operator()(unsigned row) const { return size_t(row) * stride; }
};

// c [groups, m, n] = a b, or with more than one split the parts [splits, groups, m, n] of it.
template <class A, class B, class Rows>
struct Product {
    A a;
    B b;
    Rows rows;
    float* c;
    const float* bias;  // [groups * n] or null
    float* parts;
    bool accumulate;
    unsigned m, n, k, groups;
    unsigned tiles_m, tiles_n, splits, chunk;  // terms of a split
};

__device__ __forceinline__ void read4(const float* from, float* to) {
    const float4 v = *reinterpret_cast<const float4*>(from);
    to[0] = v.x;
    to[1] = v.y;
    to[2] = v.z;
    to[3] = v.w;
}

// sums[0..3] to out, of which `left` exist; 16 bytes at once where that is aligned.
__device__ __forceinline__ void write4(float* out, const float* sums, unsigned left,
                                       const float* bias, bool accumulate) {
    float v[4];
    NC_UNROLL
    for (unsigned j = 0; j < 4; ++j) {
        v[j] = sums[j];
        if (j >= left) continue;
        if (bias != nullptr) v[j] += bias[j];
        if (accumulate) v[j] += out[j];
    }
    if (left >= 4 && reinterpret_cast<uintptr_t>(out) % sizeof(float4) == 0) {
        *reinterpret_cast<float4*>(out) = make_float4(v[0], v[1], v[2], v[3]);
        return;
    }
    NC_UNROLL
    for (unsigned j = 0; j < 4; ++j)
        if (j < left) out[j] = v[j];
}

template <class T, class A, class B, class Rows>
__global__ void __launch_bounds__(T::threads, resident_threads / T::threads)
    multiply_tiles(Product<A, B, Rows> p) {
    using ShareA = Share<A, T::rows, T::depth, T::threads>;
    using ShareB = Share<B, T::cols, T::depth, T::threads>;
    constexpr unsigned size_a = ShareA::stride * T::depth, size_b = ShareB::stride * T::depth;
    NC_SHARED(float, shared_a, 2 * size_a);
    NC_SHARED(float, shared_b, 2 * size_b);

    unsigned block = blockIdx.x;
    const unsigned col0 = block % p.tiles_n * T::cols;
    block /= p.tiles_n;
    const unsigned row0 = block % p.tiles_m * T::rows;
    block /= p.tiles_m;
    const unsigned group = block % p.groups, split = block / p.groups;
    const unsigned begin = split * p.chunk, end = min(begin + p.chunk, p.k);

    const unsigned thread = threadIdx.x, lane = thread % warp_size, warp = thread / warp_size;
    // Rows and columns of the thread come in fours, 4 and 8 lanes side by side.
    const unsigned row = warp / T::wn * (4 * T::tm) + lane / 8 * 4;
    const unsigned col = warp % T::wn * (8 * T::tn) + lane % 8 * 4;

    ShareA a(p.a, thread, group, row0, p.m);
    ShareB b(p.b, thread, group, col0, p.n);
    a.load(p.a, begin, end);
    b.load(p.b, begin, end);
    a.store(shared_a);
    b.store(shared_b);
    __syncthreads();

    float sums[T::tm][T::tn];
    NC_UNROLL
    for (unsigned i = 0; i < T::tm; ++i) {
        NC_UNROLL
        for (unsigned j = 0; j < T::tn; ++j) sums[i][j] = 0;
    }
    unsigned now = 0;
    for (unsigned k = begin; k < end; k += T::depth) {
        const bool more = k + T::depth < end;
        if (more) {
            a.load(p.a, k + T::depth, end);
            b.load(p.b, k + T::depth, end);
        }
        const float* const from_a = shared_a + now * size_a + row;
        const float* const from_b = shared_b + now * size_b + col;
        NC_UNROLL_BY_2
        for (unsigned t = 0; t < T::depth; ++t) {
            float va[T::tm], vb[T::tn];
            NC_UNROLL
            for (unsigned i = 0; i < T::tm; i += 4)
                read4(from_a + t * ShareA::stride + i * 4, va + i);
            NC_UNROLL
            for (unsigned j = 0; j < T::tn; j += 4)
                read4(from_b + t * ShareB::stride + j * 8, vb + j);
            NC_UNROLL
            for (unsigned i = 0; i < T::tm; ++i) {
                NC_UNROLL
                for (unsigned j = 0; j < T::tn; ++j) sums[i][j] += va[i] * vb[j];
            }
        }
        now ^= 1;
        if (more) {
            a.store(shared_a + now * size_a);
            b.store(shared_b + now * size_b);
        }
        __syncthreads();
    }

    const bool whole = p.splits == 1;
    NC_UNROLL
    for (unsigned i = 0; i < T::tm; ++i) {
        const unsigned r = row0 + row + i / 4 * 16 + i % 4;
        if (r >= p.m) continue;
        float* const out = whole ? p.c + size_t(group) * p.n + p.rows(r)
                                 : p.parts + ((size_t(split) * p.groups + group) * p.m + r) * p.n;
        NC_UNROLL
        for (unsigned j = 0; j < T::tn; j += 4) {
            const unsigned c = col0 + col + j * 8;
            if (c < p.n)
                write4(out + c, sums[i] + j, p.n - c,
                       whole && p.bias != nullptr ? p.bias + size_t(group) * p.n + c : nullptr,
                       whole && p.accumulate);
        }
    }
}

template <class A, class B, class Rows>
__global__ void add_parts(Product<A, B, Rows> p) {
    const size_t whole = size_t(p.groups) * p.m * p.n;
    for (size_t i = global_thread(); i < whole; i += global_threads()) {
        const size_t line = i / p.n, group = line / p.m, col = group * p.n + i % p.n;
        float sum = p.parts[i];
        for (unsigned s = 1; s < p.splits; ++s) sum += p.parts[s * whole + i];
        if (p.bias != nullptr) sum += p.bias[col];
        float* const out = p.c + p.rows(unsigned(line % p.m)) + col;
        *out = p.accumulate ? *out + sum : sum;
    }
}

// ----------------------------------------------------------------------------------------------
// the choice of tile and splits

enum class TileKind { big, tall, middle, small };
struct ProductPlan {
    TileKind kind;
    size_t tiles_m, tiles_n, splits, chunk;
};

// Aims at cards of about this many multiprocessors; a function of the sizes, so that results are
// too.
constexpr size_t processors = 132;
constexpr size_t wanted_blocks = 4 * processors, most_splits = 256, shortest_chunk = 128;

static inline size_t pieces(size_t n, size_t length) {
    return (n + length - 1) / length;
}

template <class T>
static inline ProductPlan plan_tiles(TileKind kind, size_t m, size_t n, size_t k, size_t groups) {
    ProductPlan plan = {kind, pieces(m, T::rows), pieces(n, T::cols), 1, k};
    const size_t blocks = plan.tiles_m * plan.tiles_n * groups;
    if (blocks == 0 || blocks * 2 > wanted_blocks || k < 2 * shortest_chunk) return plan;
    size_t splits = wanted_blocks / blocks;
    if (splits > most_splits) splits = most_splits;
    if (splits > k / shortest_chunk) splits = k / shortest_chunk;
    plan.chunk = pieces(pieces(k, splits), T::depth) * T::depth;
    plan.splits = pieces(k, plan.chunk);
    return plan;
}

static inline ProductPlan plan_product(size_t m, size_t n, size_t k, size_t groups) {
    const size_t big = pieces(m, 128) * pieces(n, 128), middle = pieces(m, 64) * pieces(n, 64);
    if (big * groups >= processors && 4 * big * 4 <= middle * 5)  // at most a quarter idle
        return plan_tiles<BigTile>(TileKind::big, m, n, k, groups);
    if (n <= 32 && pieces(m, 128) * groups >= processors)
        return plan_tiles<TallTile>(TileKind::tall, m, n, k, groups);
    if (m > 32 && n > 32) return plan_tiles<MiddleTile>(TileKind::middle, m, n, k, groups);
    return plan_tiles<SmallTile>(TileKind::small, m, n, k, groups);
}

// Bytes of scratch of multiply().
static inline size_t product_scratch(size_t m, size_t n, size_t k, size_t groups) {
    const ProductPlan plan = plan_product(m, n, k, groups);
    return plan.splits == 1 ? 0 : plan.splits * groups * m * n * sizeof(float);
}

// c = a b (+ bias) (+ c), group by group; row r of a group begins at c + group n + rows(r). Sizes
// from 2^31 are refused: m, n, k, and the number of tiles.
template <class A, class B, class Rows>
static inline void multiply(Queue& queue, const A& a, const B& b, const Rows& rows,
                            const float* bias, bool accumulate, float* c, size_t m, size_t n,
                            size_t k, size_t groups) {
    const ProductPlan plan = plan_product(m, n, k, groups);
    const size_t blocks = plan.tiles_m * plan.tiles_n * groups * plan.splits;
    constexpr size_t most = size_t(1) << 31;
    if (m >= most || n >= most || k >= most || blocks >= most) {
        if (queue.status == cudaSuccess) queue.status = cudaErrorInvalidValue;
        return;
    }
    const Product<A, B, Rows> p = {.a = a,
                                   .b = b,
                                   .rows = rows,
                                   .c = c,
                                   .bias = bias,
                                   .parts = reinterpret_cast<float*>(queue.scratch),
                                   .accumulate = accumulate,
                                   .m = unsigned(m),
                                   .n = unsigned(n),
                                   .k = unsigned(k),
                                   .groups = unsigned(groups),
                                   .tiles_m = unsigned(plan.tiles_m),
                                   .tiles_n = unsigned(plan.tiles_n),
                                   .splits = unsigned(plan.splits),
                                   .chunk = unsigned(plan.chunk)};
    const auto start = [&]<class T>(T) {
        launch(multiply_tiles<T, A, B, Rows>, dim3(unsigned(blocks)), dim3(T::threads), queue, p);
    };
    if (plan.kind == TileKind::big) start(BigTile());
    if (plan.kind == TileKind::tall) start(TallTile());
    if (plan.kind == TileKind::middle) start(MiddleTile());
    if (plan.kind == TileKind::small) start(SmallTile());
    if (plan.splits > 1)
        launch(add_parts<A, B, Rows>, dim3(blocks_for(groups * m * n, 256)), dim3(256), queue, p);
}

}  // namespace nc::kernels::NC_CUDA
