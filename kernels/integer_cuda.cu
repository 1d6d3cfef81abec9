// The integer family on CUDA: a thread an element over all its steps, and a thread an output of a
// sum.
#include "kernels/cuda_util.cuh"

namespace nc::kernels::NC_CUDA {
namespace {

constexpr unsigned threads = 256;
constexpr int32_t register_limit = 1 << 23;

// sign(x) * ((|x| * k) >> 12), the product in 64 bits.
__device__ int32_t scaled(int32_t x, int32_t k) {
    const int64_t magnitude = (int64_t(x < 0 ? -int64_t(x) : x) * k) >> 12;
    return int32_t(x < 0 ? -magnitude : magnitude);
}

// Every thread of a warp stays to the end: the ballot needs all of them.
__global__ void scan_kernel(IntegerRule rule, const int32_t* threshold, const int32_t* bias,
                            const int32_t* a, int32_t* u, int32_t* v, uint64_t* bits,
                            int32_t* u_trace, int32_t* v_trace, uint64_t* events, ScanShape s) {
    const size_t words = (s.size + 63) / 64, padded = words * 64;
    for (size_t i = global_thread(); i < padded; i += global_threads()) {
        const bool mine = i < s.size;
        const size_t p = mine ? i % s.params : 0;
        const int32_t level = threshold[p], offset = bias[p];
        int32_t current = mine ? u[i] : 0, voltage = mine ? v[i] : 0;
        unsigned long long wraps = 0, clips = 0;
        for (size_t t = 0; t < s.steps; ++t) {
            const int32_t sum = mine ? a[(s.constant_input ? 0 : t * s.size) + i] : 0;
            current = scaled(current, 4095 - rule.du) + sum * 64;
            if (current > register_limit || current <= -register_limit) {
                current += current > 0 ? -2 * register_limit : 2 * register_limit;
                wraps += mine;
            }
            voltage = scaled(voltage, 4096 - rule.dv) + current + offset;
            if (voltage >= register_limit || voltage <= -register_limit) {
                voltage = voltage > 0 ? register_limit - 1 : 1 - register_limit;
                clips += mine;
            }
            const bool spike =
                rule.compare == Compare::greater ? voltage > level : voltage >= level;
            if (spike) voltage = rule.reset_to_zero ? 0 : voltage - level;
            if (bits != nullptr) {
                const unsigned ballot = __ballot_sync(all_lanes, spike && mine);
                if (i % 32 == 0)
                    memcpy(reinterpret_cast<char*>(bits + t * words) + i / 8, &ballot,
                           sizeof ballot);
            }
            if (!mine) continue;
            if (u_trace != nullptr) u_trace[t * s.size + i] = current;
            if (v_trace != nullptr) v_trace[t * s.size + i] = voltage;
        }
        if (mine) {
            u[i] = current;
            v[i] = voltage;
        }
        // Rare, and integers: their order does not matter.
        if (events != nullptr && wraps > 0)
            atomicAdd(reinterpret_cast<unsigned long long*>(events), wraps);
        if (events != nullptr && clips > 0)
            atomicAdd(reinterpret_cast<unsigned long long*>(events) + 1, clips);
    }
}

void scan(Queue& q, const IntegerRule& rule, const int32_t* threshold, const int32_t* bias,
          const int32_t* a, int32_t* u, int32_t* v, uint64_t* bits, int32_t* u_trace,
          int32_t* v_trace, uint64_t* events, const ScanShape& s) {
    launch(scan_kernel, dim3(blocks_for(s.size, threads)), threads, q, rule, threshold, bias, a, u,
           v, bits, u_trace, v_trace, events, s);
}

// Where inputs come from: packed spikes, or values.
struct Events {
    const uint64_t* bits;
    size_t words;
    __device__ int32_t sum(size_t pixel, size_t, size_t count, const int8_t* w,
                           size_t stride) const {
        int32_t out = 0;
        for (size_t k = 0; k * 64 < count; ++k)
            for (uint64_t word = bits[pixel * words + k]; word != 0; word &= word - 1)
                out += w[(k * 64 + size_t(__ffsll((long long)word)) - 1) * stride];
        return out;
    }
};
struct Graded {
    const int16_t* x;
    size_t channels;
    __device__ int32_t sum(size_t pixel, size_t begin, size_t count, const int8_t* w,
                           size_t stride) const {
        int32_t out = 0;
        for (size_t c = 0; c < count; ++c)
            out += int32_t(x[pixel * channels + begin + c]) * w[c * stride];
        return out;
    }
};

template <class Source>
__global__ void linear_kernel(Source source, const int8_t* w, int32_t* y, size_t rows,
                              size_t groups, size_t channels, size_t out) {
    for (size_t i = global_thread(); i < rows * out; i += global_threads()) {
        const size_t r = i / out, o = i % out;
        int32_t sum = 0;
        for (size_t g = 0; g < groups; ++g)
            sum += source.sum(r * groups + g, 0, channels, w + g * channels * out + o, out);
        y[i] = sum;
    }
}

void linear_event(Queue& q, const uint64_t* bits, const int8_t* w, int32_t* y, size_t rows,
                  size_t groups, size_t channels, size_t out) {
    launch(linear_kernel<Events>, dim3(blocks_for(rows * out, threads)), threads, q,
           Events{bits, (channels + 63) / 64}, w, y, rows, groups, channels, out);
}

void linear_graded(Queue& q, const int16_t* x, const int8_t* w, int32_t* y, size_t rows, size_t in,
                   size_t out) {
    launch(linear_kernel<Graded>, dim3(blocks_for(rows * out, threads)), threads, q, Graded{x, in},
           w, y, rows, size_t(1), in, out);
}

template <class Source>
__global__ void conv_kernel(Source source, const int8_t* w, int32_t* y, ConvShape s) {
    const size_t cin = s.cin / s.groups, per_group = s.cout / s.groups;
    const size_t out_h = s.out_h(), out_w = s.out_w();
    for (size_t i = global_thread(); i < s.n * out_h * out_w * s.cout; i += global_threads()) {
        const size_t o = i % s.cout, pixel = i / s.cout;
        const size_t ox = pixel % out_w, row = pixel / out_w;
        int32_t sum = 0;
        for (size_t ky = 0; ky < s.kh; ++ky) {
            const size_t iy = row % out_h * s.stride_h + ky * s.dilation_h - s.pad_h;
            if (iy >= s.h) continue;  // padding above wraps to beyond the image
            for (size_t kx = 0; kx < s.kw; ++kx) {
                const size_t ix = ox * s.stride_w + kx * s.dilation_w - s.pad_w;
                if (ix >= s.w) continue;
                sum += source.sum((row / out_h * s.h + iy) * s.w + ix, o / per_group * cin, cin,
                                  w + (ky * s.kw + kx) * cin * s.cout + o, s.cout);
            }
        }
        y[i] = sum;
    }
}

template <class Source>
void conv(Queue& q, Source source, const int8_t* w, int32_t* y, const ConvShape& s) {
    if (s.n == 0 || s.cout == 0) return;
    launch(conv_kernel<Source>, dim3(blocks_for(s.n * s.out_h() * s.out_w() * s.cout, threads)),
           threads, q, source, w, y, s);
}

void conv_event(Queue& q, const uint64_t* bits, const int8_t* w, int32_t* y, const ConvShape& s) {
    conv(q, Events{bits, (s.cin + 63) / 64}, w, y, s);
}

void conv_graded(Queue& q, const int16_t* x, const int8_t* w, int32_t* y, const ConvShape& s) {
    conv(q, Graded{x, s.cin}, w, y, s);
}

}  // namespace

Integer integer() {
    return {.scan = scan,
            .linear_event = linear_event,
            .conv_event = conv_event,
            .linear_graded = linear_graded,
            .conv_graded = conv_graded};
}

}  // namespace nc::kernels::NC_CUDA
