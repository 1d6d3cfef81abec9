// The neuron family on CUDA: all steps of an element in one thread, forward and backward; the
// membrane never leaves its register.
//
// Bytes an element and step: forward 4 in, 4 out (and 1/8 of spikes); backward 8 in and 4 out up to
// `block_steps` steps, where the recomputed membranes stay in registers; beyond, x is read twice. A
// thread reads several steps before it uses the first, 8 forward and 16 of x and dy backward: with
// 768 and 512 threads on a processor about 24 and 64 KiB are on their way there.
#include "kernels/neuron_math.h"
#include "kernels/sum_cuda.cuh"

namespace nc::kernels::NC_CUDA {
namespace {

constexpr unsigned threads = 256;  // a multiple of 64: a block's words of spikes are its own
constexpr unsigned block_steps = 16;
constexpr unsigned ahead = 8;  // steps whose currents are on their way at once

// A warp's 32 spikes into their half of the row's 64-bit word: x86 and CUDA are both little-endian.
__device__ void store_bits(uint64_t* row, size_t i, bool spike) {
    const unsigned ballot = __ballot_sync(all_lanes, spike);
    if (i % 32 == 0) reinterpret_cast<unsigned*>(row)[i / 32] = ballot;
}

// A step to read without asking whether it exists, so that several reads are on their way at once.
__device__ size_t or_last(size_t t, size_t steps) {
    return t < steps ? t : steps - 1;
}

// Every thread of a warp stays to the end: the ballot needs all of them.
template <bool leaky, Compare compare, Reset reset>
__global__ void scan(NeuronRule<float> rule, const float* theta, const float* v0,
                     const float* amplitude, const float* x, float* v, float* y, uint64_t* bits,
                     ScanShape s) {
    const size_t words = (s.size + 63) / 64, padded = words * 64;
    for (size_t i = global_thread(); i < padded; i += global_threads()) {
        const bool mine = i < s.size;
        const float* const own = x + (mine ? i : s.size - 1);
        const size_t p = mine ? i % s.params : 0;
        const float th = theta[p], out = amplitude[p];
        float m = v != nullptr && mine ? v[i] : v0[p];
        for (size_t begin = 0; begin < s.steps; begin += ahead) {
            float current[ahead];
            NC_UNROLL
            for (unsigned j = 0; j < ahead; ++j)
                current[j] = own[s.constant_input ? 0 : or_last(begin + j, s.steps) * s.size];
            NC_UNROLL
            for (unsigned j = 0; j < ahead; ++j) {  // no branch, which reads would wait for
                const size_t t = begin + j;
                const bool now = t < s.steps;
                const float a = update<leaky>(m, current[j], rule.beta);
                const bool spike = threshold<compare>(a, th);
                m = now ? after_reset<reset>(a, spike, th, rule.reset_value) : m;
                if (now && y != nullptr && mine) y[t * s.size + i] = spike ? out : 0.f;
                if (now && bits != nullptr) store_bits(bits + t * words, i, spike && mine);
            }
        }
        if (v != nullptr && mine) v[i] = m;
    }
}

// The neuron that also sends negative spikes.
__global__ void scan_negative(NeuronRule<float> rule, const float* theta, const float* v0,
                              const float* amplitude, const float* x, float* v, float* y,
                              ScanShape s) {
    for (size_t i = global_thread(); i < s.size; i += global_threads()) {
        const size_t p = i % s.params;
        const float th = theta[p], out = amplitude[p];
        float m = v != nullptr ? v[i] : v0[p];
        size_t sent = 0;  // positive minus negative spikes
        for (size_t t = 0; t < s.steps; ++t) {
            m = rule.beta * m + x[(s.constant_input ? 0 : t * s.size) + i];
            const bool up = rule.compare == Compare::greater ? m > th : m >= th;
            const bool down = !up && m < 0 && sent > 0;
            if (up) m = rule.reset == Reset::subtract ? m - th : rule.reset_value;
            if (down) m = m + th;
            sent = up ? sent + 1 : down ? sent - 1 : sent;
            if (y != nullptr) y[t * s.size + i] = up ? out : down ? -out : 0.f;
        }
        if (v != nullptr) v[i] = m;
    }
}

__global__ void scan_exact(const float* theta, const float* amplitude, const float* x, float* y,
                           ScanShape s) {
    for (size_t i = global_thread(); i < s.size; i += global_threads()) {
        const size_t p = i % s.params;
        float sum = 0;
        for (size_t t = 0; t < s.steps; ++t) sum = sum + x[(s.constant_input ? 0 : t * s.size) + i];
        const float wanted = floorf(sum / theta[p] + 0.5f);
        for (size_t t = 0; t < s.steps; ++t)
            y[t * s.size + i] = float(t) < wanted ? amplitude[p] : 0.f;
    }
}

template <bool leaky, Compare compare>
auto scan_for(Reset reset) {
    return reset == Reset::subtract ? scan<leaky, compare, Reset::subtract>
                                    : scan<leaky, compare, Reset::to_value>;
}

void forward(Queue& q, const NeuronRule<float>& rule, const float* theta, const float* v0,
             const float* amplitude, const float* x, float* v, float* y, uint64_t* bits,
             const ScanShape& s) {
    if (s.size == 0 || s.steps == 0) return;
    const dim3 grid(blocks_for(s.size, threads));
    if (rule.spiking == Spiking::exact) {
        if (y != nullptr) launch(scan_exact, grid, threads, q, theta, amplitude, x, y, s);
        return;
    }
    if (rule.spiking == Spiking::negative) {
        launch(scan_negative, grid, threads, q, rule, theta, v0, amplitude, x, v, y, s);
        return;
    }
    const bool leaky = rule.beta != 1;
    const auto kernel = rule.compare == Compare::greater
                            ? (leaky ? scan_for<true, Compare::greater>(rule.reset)
                                     : scan_for<false, Compare::greater>(rule.reset))
                            : (leaky ? scan_for<true, Compare::greater_equal>(rule.reset)
                                     : scan_for<false, Compare::greater_equal>(rule.reset));
    launch(kernel, grid, threads, q, rule, theta, v0, amplitude, x, v, y, bits, s);
}

__device__ bool bit_of(const uint64_t* row, size_t i) {
    return row[i / 64] >> i % 64 & 1;
}

struct BackwardArguments {
    NeuronRule<float> rule;
    SlopeConstants<float> slope;
    const float *theta, *v0, *amplitude, *x;
    const uint64_t* bits;
    const float* dy;
    float* dx;
    bool amplitude_is_theta, v0_is_half_theta;
    float* checkpoints;  // [blocks of steps but the first, size]: the membrane each begins with
    float* dtheta;       // [size], each element's own part; null: not wanted
    ScanShape s;
};

// Steps [begin, begin + block_steps) from membrane m on, in the forward's arithmetic: the membrane
// before each reset, and the spikes as bits; past the last step both mean nothing.
template <bool leaky, Reset reset>
__device__ unsigned rescan(const BackwardArguments& k, size_t i, size_t begin, float th, float& m,
                           float (&membrane)[block_steps]) {
    const ScanShape& s = k.s;
    const size_t words = (s.size + 63) / 64;
    unsigned spikes = 0;
    NC_UNROLL
    for (unsigned j = 0; j < block_steps; ++j) {
        const size_t t = or_last(begin + j, s.steps);
        membrane[j] = k.x[(s.constant_input ? 0 : t * s.size) + i];
        spikes |= unsigned(bit_of(k.bits + t * words, i)) << j;
    }
    NC_UNROLL
    for (unsigned j = 0; j < block_steps; ++j) {
        membrane[j] = update<leaky>(m, membrane[j], k.rule.beta);
        m = after_reset<reset>(membrane[j], spikes >> j & 1, th, k.rule.reset_value);
    }
    return spikes;
}

template <bool leaky, Reset reset, Surrogate surrogate>
__global__ void __launch_bounds__(threads, 2) scan_backward(BackwardArguments k) {
    const ScanShape& s = k.s;
    const size_t blocks = (s.steps + block_steps - 1) / block_steps;
    for (size_t i = global_thread(); i < s.size; i += global_threads()) {
        const size_t p = i % s.params;
        const float th = k.theta[p], out = k.amplitude[p];
        float membrane[block_steps], m = k.v0[p];
        for (size_t block = 0; block + 1 < blocks; ++block) {
            rescan<leaky, reset>(k, i, block * block_steps, th, m, membrane);
            k.checkpoints[block * s.size + i] = m;
        }
        float dv = 0, dx_sum = 0, dtheta = 0;
        for (size_t block = blocks; block-- > 0;) {
            const size_t begin = block * block_steps;
            float dy[block_steps];  // all on their way before the first dx is written
            NC_UNROLL
            for (unsigned j = 0; j < block_steps; ++j)
                dy[j] = k.dy[or_last(begin + j, s.steps) * s.size + i];
            m = block == 0 ? k.v0[p] : k.checkpoints[(block - 1) * s.size + i];
            const unsigned spikes = rescan<leaky, reset>(k, i, begin, th, m, membrane);
            NC_UNROLL
            for (unsigned j = block_steps; j-- > 0;) {
                const size_t t = begin + j;
                if (t >= s.steps) continue;
                const float a = membrane[j], g = dy[j];
                const bool spike = spikes >> j & 1;
                const float sigma = slope<surrogate>(k.slope, a, th);
                // d(v_t) / d(s_t), times what of it the gradient sees.
                const float jump = k.rule.detach_reset        ? 0.f
                                   : reset == Reset::subtract ? -th
                                                              : k.rule.reset_value - a;
                const float keep = reset == Reset::subtract || !spike ? 1.f : 0.f;
                const float da = (g * out) * sigma + dv * (keep + jump * sigma);
                if (k.amplitude_is_theta && spike) dtheta += g;
                dtheta -= sigma * (g * out + jump * dv);
                if (reset == Reset::subtract && spike) dtheta -= dv;
                if (s.constant_input)
                    dx_sum = dx_sum + da;
                else
                    k.dx[t * s.size + i] = da;
                dv = leaky ? k.rule.beta * da : da;
            }
        }
        if (s.constant_input) k.dx[i] = dx_sum;
        if (k.dtheta != nullptr) k.dtheta[i] = k.v0_is_half_theta ? dtheta + dv / 2 : dtheta;
    }
}

template <Surrogate surrogate>
auto backward_for(bool leaky, Reset reset) {
    return leaky ? (reset == Reset::subtract ? scan_backward<true, Reset::subtract, surrogate>
                                             : scan_backward<true, Reset::to_value, surrogate>)
                 : (reset == Reset::subtract ? scan_backward<false, Reset::subtract, surrogate>
                                             : scan_backward<false, Reset::to_value, surrogate>);
}

// Elements seen as rows of one element a parameter; the last row may be short.
size_t rows_of(size_t size, size_t params) {
    return params == 0 ? 0 : (size + params - 1) / params;
}

// Scratch: checkpoints, then each element's part of dtheta, then the sums' own, each 16-byte
// aligned.
struct BackwardScratch {
    size_t checkpoints, dtheta, sums;  // bytes
};
BackwardScratch scratch_of(const ScanShape& s, bool dtheta) {
    const auto aligned = [](size_t bytes) { return (bytes + 15) / 16 * 16; };
    const size_t blocks = (s.steps + block_steps - 1) / block_steps;
    return {.checkpoints = blocks > 1 ? aligned((blocks - 1) * s.size * sizeof(float)) : 0,
            .dtheta = dtheta ? aligned(s.size * sizeof(float)) : 0,
            .sums = dtheta ? column_scratch(rows_of(s.size, s.params), s.params, 1) : 0};
}

size_t backward_scratch(const ScanShape& s, bool dtheta, int) {
    const BackwardScratch b = scratch_of(s, dtheta);
    return b.checkpoints + b.dtheta + b.sums;
}

struct ThetaTerm {
    const float* parts;
    size_t size, params;
    __device__ Terms<1> operator()(size_t r, size_t c) const {
        const size_t i = r * params + c;
        return {{i < size ? parts[i] : 0.f}};
    }
};

void backward(Queue& q, const NeuronRule<float>& rule, const float* theta, const float* v0,
              const float* amplitude, bool amplitude_is_theta, bool v0_is_half_theta,
              const float* x, const uint64_t* bits, const float* dy, float* dx, float* dtheta,
              const ScanShape& s) {
    const BackwardScratch bytes = scratch_of(s, dtheta != nullptr);
    float* const parts =
        dtheta != nullptr ? reinterpret_cast<float*>(q.scratch + bytes.checkpoints) : nullptr;
    const float width = rule.surrogate_width, pi = 3.14159265358979323846f;
    const BackwardArguments k = {.rule = rule,
                                 .slope = {.width = width,
                                           .half_width = width / 2,
                                           .inverse_width = 1 / width,
                                           .atan_scale = pi / 2 * width,
                                           .scale = rule.scale_width},
                                 .theta = theta,
                                 .v0 = v0,
                                 .amplitude = amplitude,
                                 .x = x,
                                 .bits = bits,
                                 .dy = dy,
                                 .dx = dx,
                                 .amplitude_is_theta = amplitude_is_theta,
                                 .v0_is_half_theta = v0_is_half_theta,
                                 .checkpoints = reinterpret_cast<float*>(q.scratch),
                                 .dtheta = parts,
                                 .s = s};
    const bool leaky = rule.beta != 1;
    const auto kernel = rule.surrogate == Surrogate::atan
                            ? backward_for<Surrogate::atan>(leaky, rule.reset)
                        : rule.surrogate == Surrogate::triangle
                            ? backward_for<Surrogate::triangle>(leaky, rule.reset)
                        : rule.surrogate == Surrogate::rectangle
                            ? backward_for<Surrogate::rectangle>(leaky, rule.reset)
                            : backward_for<Surrogate::sigmoid>(leaky, rule.reset);
    launch(kernel, dim3(blocks_for(s.size, threads)), threads, q, k);
    if (dtheta == nullptr) return;
    Queue rest = q;
    rest.scratch = q.scratch + bytes.checkpoints + bytes.dtheta;
    sum_columns<1>(rest, ThetaTerm{parts, s.size, s.params}, StoreColumn{dtheta},
                   rows_of(s.size, s.params), s.params);
    q.status = rest.status;
}

// y = lambda * floor(levels * clip(x / lambda, 0, 1) + 1/2) / levels.
__device__ float level(float x, float lambda, int levels) {
    const float q = x / lambda;
    const float clipped = q < 0 ? 0.f : q > 1 ? 1.f : q;
    return lambda * floorf(float(levels) * clipped + 0.5f) / float(levels);
}

__global__ void quantise(const float* x, const float* lambda, int levels, float* y, size_t size,
                         size_t params) {
    for (size_t i = global_thread(); i < size; i += global_threads())
        y[i] = level(x[i], lambda[i % params], levels);
}

__global__ void quantise_backward(const float* x, const float* lambda, const float* dy, float* dx,
                                  size_t size, size_t params) {
    for (size_t i = global_thread(); i < size; i += global_threads()) {
        const float q = x[i] / lambda[i % params];
        dx[i] = q >= 0 && q <= 1 ? dy[i] : 0.f;
    }
}

struct LambdaTerm {
    const float *x, *lambda, *dy;
    int levels;
    size_t size, params;
    __device__ Terms<1> operator()(size_t r, size_t c) const {
        const size_t i = r * params + c;
        if (i >= size) return {{0.f}};
        const float q = x[i] / lambda[c];
        const bool inside = q >= 0 && q <= 1;
        return {{dy[i] * (level(x[i], lambda[c], levels) / lambda[c] - (inside ? q : 0.f))}};
    }
};

void qcfs(Queue& q, const float* x, const float* lambda, int levels, float* y, size_t size,
          size_t params) {
    launch(quantise, dim3(blocks_for(size, threads)), threads, q, x, lambda, levels, y, size,
           params);
}

void qcfs_backward(Queue& q, const float* x, const float* lambda, int levels, const float* dy,
                   float* dx, float* dlambda, size_t size, size_t params) {
    launch(quantise_backward, dim3(blocks_for(size, threads)), threads, q, x, lambda, dy, dx, size,
           params);
    if (dlambda == nullptr) return;
    sum_columns<1>(q, LambdaTerm{x, lambda, dy, levels, size, params}, StoreColumn{dlambda},
                   rows_of(size, params), params);
}

size_t qcfs_backward_scratch(size_t size, size_t params) {
    return column_scratch(rows_of(size, params), params, 1);
}

}  // namespace

Neuron<float> neuron() {
    return {.forward = forward,
            .backward = backward,
            .backward_scratch = backward_scratch,
            .qcfs = qcfs,
            .qcfs_backward = qcfs_backward,
            .qcfs_backward_scratch = qcfs_backward_scratch};
}

}  // namespace nc::kernels::NC_CUDA
