// Every kernel's signature, declared once: one struct of function pointers per family, one Table of
// all families per instruction set or device.
//
// Conventions. Pointers come first, outputs last, sizes after them; gradients are named dx, dw.
// Arrays are contiguous and row-major; activations are NHWC, conv weights [kh, kw, cin/groups,
// cout], linear weights [in, out]. Kernels never throw, allocate or print: the caller has checked
// every size, and provides scratch through Queue (see *_scratch). Every output is overwritten
// unless its comment says "accumulates". Outputs may not overlap inputs unless its comment says "in
// place". Sizes of zero are valid everywhere. Results do not depend on Queue::threads.
//
// "bitwise": the same bits on every table (but cuda-vendor). Otherwise the family's comment gives
// the bound.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nc::kernels {

// How gemm and conv of cuda-vendor round what they multiply: not at all, to tf32, or to bf16; sums
// are fp32 in all of them. Other tables have fp32 only.
enum class Precision : int { fp32, tf32, bf16 };

// Where and how a kernel runs. Owned by engine's Compute; one kernel at a time uses a Queue.
struct Queue {
    int threads = 1;           // CPU tables: worker threads a kernel may use
    char* scratch = nullptr;   // 64-byte aligned, at least what the kernel's *_scratch() asked for
    size_t scratch_bytes = 0;  //
    void* stream = nullptr;    // CUDA tables: cudaStream_t
    void* handles = nullptr;   // cuda-vendor: library handles
    int device = 0;            // CUDA tables: which card
    int status = 0;            // CUDA tables: the first error of a launch (cudaError_t)
    Precision precision = Precision::fp32;
};

// ----------------------------------------------------------------------------------------------
// elementwise
enum class Activation : int { relu, leaky_relu, relu6, hard_swish, silu, gelu, sigmoid, tanh };

// add .. add_rows, relu, leaky_relu, relu6, hard_swish (0 up to -3, x from 3, x (x + 3) / 6
// between), prelu: bitwise. silu, gelu (erf form), sigmoid, tanh: at most 4 ulp of the largest
// intermediate from the double reference.
template <class F>
struct Elementwise {
    void (*fill)(Queue&, F value, F* out, size_t n);
    void (*add)(Queue&, const F* a, const F* b, F* out,
                size_t n);  // in place allowed (out == a), here and below to scale
    void (*sub)(Queue&, const F* a, const F* b, F* out, size_t n);
    void (*mul)(Queue&, const F* a, const F* b, F* out, size_t n);
    void (*div)(Queue&, const F* a, const F* b, F* out, size_t n);
    void (*scale)(Queue&, const F* a, F s, F* out, size_t n);  // out = a * s
    void (*add_scaled)(Queue&, const F* a, const F* b, F s, F* out,
                       size_t n);  // out = a + (b * s), rounded twice
    void (*clamp)(Queue&, const F* a, F low, F high, F* out, size_t n);  // in place; NaN stays NaN
    void (*add_row)(Queue&, const F* a, const F* row, F* out, size_t rows,
                    size_t cols);  // in place; row [cols]
    void (*mul_row)(Queue&, const F* a, const F* row, F* out, size_t rows,
                    size_t cols);  // in place
    // param: negative slope of leaky_relu, else ignored.
    void (*activate)(Queue&, Activation, F param, const F* x, F* y, size_t n);
    void (*activate_backward)(Queue&, Activation, F param, const F* x, const F* dy, F* dx,
                              size_t n);
    // slope [cols]; dslope [cols] summed over rows by the fixed tree of Reduce::sum_rows.
    void (*prelu)(Queue&, const F* x, const F* slope, F* y, size_t rows, size_t cols);
    void (*prelu_backward)(Queue&, const F* x, const F* slope, const F* dy, F* dx, F* dslope,
                           size_t rows, size_t cols);
    size_t (*prelu_backward_scratch)(size_t rows, size_t cols);
};

// ----------------------------------------------------------------------------------------------
// reduce Sums use a fixed tree: rows (or elements) in blocks of a constant size, each block in
// order, block results combined in order; so they do not depend on the number of threads. Bound:
// log-free, n * eps * sum |a| at worst; tests use the blocked bound (block + blocks) * eps * sum
// |a|.
template <class F>
struct Reduce {
    void (*sum)(Queue&, const F* a, F* out, size_t n);               // out [1]
    void (*sum_squares)(Queue&, const F* a, double* out, size_t n);  // out [1], double accumulators
    void (*sum_rows)(Queue&, const F* a, F* out, size_t rows, size_t cols);  // out [cols]
    void (*argmax)(Queue&, const F* a, int32_t* out, size_t rows,
                   size_t cols);      // first of equals, NaN is -inf; bitwise
    size_t (*sum_scratch)(size_t n);  // for sum and sum_squares
    size_t (*sum_rows_scratch)(size_t rows, size_t cols);
};

// ----------------------------------------------------------------------------------------------
// gemm c [m, n] = op(a) op(b) (+ bias [n] when not null) (+ c when accumulate). op(a) is [m, k]: a
// is stored [m, k], or [k, m] when transpose_a; b is stored [k, n], or [n, k] when transpose_b.
// Bound: (k + 2) * eps * (|a| |b|), elementwise.
template <class F>
struct Gemm {
    void (*gemm)(Queue&, bool transpose_a, bool transpose_b, const F* a, const F* b, const F* bias,
                 bool accumulate, F* c, size_t m, size_t n, size_t k);
    size_t (*gemm_scratch)(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k,
                           int threads);
};

// ----------------------------------------------------------------------------------------------
// conv
struct ConvShape {
    size_t n, h, w, cin;  // input [n, h, w, cin]
    size_t kh, kw, cout;  // weight [kh, kw, cin / groups, cout]
    size_t stride_h = 1, stride_w = 1;
    size_t pad_h = 0, pad_w = 0;  // on both sides
    size_t dilation_h = 1, dilation_w = 1;
    size_t groups = 1;
    constexpr size_t out_h() const {
        return (h + 2 * pad_h - dilation_h * (kh - 1) - 1) / stride_h + 1;
    }
    constexpr size_t out_w() const {
        return (w + 2 * pad_w - dilation_w * (kw - 1) - 1) / stride_w + 1;
    }
};

// Bound: forward (kh kw cin/groups + 2) eps sum |x||w|; backward likewise with its own number of
// terms. Inputs x that are zero may be left out, also where they would have met an infinity.
template <class F>
struct Conv {
    void (*forward)(Queue&, const F* x, const F* w, const F* bias, F* y,
                    const ConvShape&);  // bias [cout] or null
    void (*backward_input)(Queue&, const F* dy, const F* w, F* dx, const ConvShape&);
    void (*backward_weight)(Queue&, const F* x, const F* dy, F* dw, const ConvShape&);
    size_t (*forward_scratch)(const ConvShape&, int threads);
    size_t (*backward_input_scratch)(const ConvShape&, int threads);
    size_t (*backward_weight_scratch)(const ConvShape&, int threads);
};

// ----------------------------------------------------------------------------------------------
// pool
struct PoolShape {
    size_t n, h, w, c;
    size_t kh, kw, stride_h, stride_w;
    size_t pad_h = 0, pad_w = 0;
    constexpr size_t out_h() const { return (h + 2 * pad_h - kh) / stride_h + 1; }
    constexpr size_t out_w() const { return (w + 2 * pad_w - kw) / stride_w + 1; }
};

// average: the window's values are added by row then column, then multiplied once by F(1 / (kh
// kw)); padding counts as zeros (count_include_pad). Bitwise: float sums in that order. Global
// pooling is a window of h x w. max: padding never wins; index [n, oh, ow, c] = the winning y * w +
// x, the first of equals; the first NaN wins. pad < kernel. Bitwise.
template <class F>
struct Pool {
    void (*average)(Queue&, const F* x, F* y, const PoolShape&);
    void (*average_backward)(Queue&, const F* dy, F* dx, const PoolShape&);
    void (*max)(Queue&, const F* x, F* y, int32_t* index, const PoolShape&);  // index may be null
    void (*max_backward)(Queue&, const F* dy, const int32_t* index, F* dx, const PoolShape&);
};

// ----------------------------------------------------------------------------------------------
// norm Batch normalisation over rows (Ioffe & Szegedy, 2015); rows = batch and space, cols =
// channels. gamma and beta may be null (1 and 0). With relu a ReLU follows in the same pass:
// y <= 0 becomes 0, and the backward passes take dy as 0 there, having computed y again from x with
// the bits of normalise. Bound: derived in the test from rows * eps.
template <class F>
struct Norm {
    // mean [cols] and biased variance [cols], two passes, sums as in Reduce.
    void (*statistics)(Queue&, const F* x, F* mean, F* variance, size_t rows, size_t cols);
    // y = (x - mean) / sqrt(variance + eps) * gamma + beta, computed as x * a + b with a, b per
    // channel.
    void (*normalise)(Queue&, const F* x, const F* mean, const F* variance, const F* gamma,
                      const F* beta, F eps, bool relu, F* y, size_t rows, size_t cols);
    // dgamma = sum dy * xhat and dbeta = sum dy: the first half of the backward pass.
    void (*backward_sums)(Queue&, const F* x, const F* dy, const F* mean, const F* variance,
                          const F* gamma, const F* beta, F eps, bool relu, F* dgamma, F* dbeta,
                          size_t rows, size_t cols);
    // Through batch statistics taken over total_rows rows (of which x holds `rows`):
    // dx = gamma / sqrt(variance + eps) * (dy - dbeta / total_rows - xhat * dgamma / total_rows).
    // With total_rows = 0 the statistics are constants: dx = gamma / sqrt(variance + eps) * dy.
    void (*backward_input)(Queue&, const F* x, const F* dy, const F* mean, const F* variance,
                           const F* gamma, const F* beta, F eps, bool relu, const F* dgamma,
                           const F* dbeta, F* dx, size_t rows, size_t cols, size_t total_rows);
    size_t (*scratch)(size_t rows, size_t cols);  // enough for any of them
};

// ----------------------------------------------------------------------------------------------
// loss labels [rows] in [0, cols), where the logits are: checked by the caller. exp and log within
// 4 ulp.
template <class F>
struct Loss {
    void (*softmax)(Queue&, const F* logits, F* probabilities, size_t rows, size_t cols);
    // loss [rows]: cross-entropy against targets [rows, cols], each row a distribution (>= 0, sum
    // 1), not averaged. dlogits [rows, cols] (may be null) is the gradient of the mean over rows.
    void (*cross_entropy)(Queue&, const F* logits, const F* targets, F* loss, F* dlogits,
                          size_t rows, size_t cols);
};

// ----------------------------------------------------------------------------------------------
// neuron
enum class Compare : int { greater_equal, greater };
enum class Reset : int { subtract, to_value };
enum class Surrogate : int { atan, triangle, rectangle, sigmoid };
// plain: spikes 0 or 1. negative: also emits -1 when v < 0 and more positive than negative spikes
// were sent, then v += theta. exact: the two-phase neuron, clamp(floor(sum_t x_t / theta + 1/2), 0,
// T) spikes, emitted in the first steps.
enum class Spiking : int { plain, negative, exact };

// Per step: v = beta * v + x (beta 1: IF, v = v + x); s = v >= theta (or >); output amplitude * s;
// reset. beta * v is rounded, then x is added and rounded; no fma.
template <class F>
struct NeuronRule {
    F beta = 1;
    Compare compare = Compare::greater_equal;
    Reset reset = Reset::subtract;
    F reset_value = 0;  // for Reset::to_value
    Spiking spiking = Spiking::plain;
    Surrogate surrogate = Surrogate::atan;
    F surrogate_width = 2;     // atan alpha, triangle w, rectangle w, sigmoid k
    bool scale_width = false;  // argument (a - theta) / theta, sigma divided by theta
    bool detach_reset = false;
};

// Sizes of one scan. x is [steps, size] or, when constant_input, [size] presented at every step.
// Element i uses parameter i % params (params = 1: per layer; channels: per channel; size of a
// sample: per neuron).
struct ScanShape {
    size_t steps, size, params;
    bool constant_input = false;
};

// Packed spikes of a scan are flat: bit i of word i / 64 of each step's row of (size + 63) / 64
// words; unused bits are 0. forward and backward: bitwise but for the atan and sigmoid surrogates
// (4 ulp of the slope) and the sums into dtheta.
template <class F>
struct Neuron {
    // theta, v0, amplitude [params]. v [size]: the membrane before the first step when not null,
    // and receives the one after the last; null starts at v0 and discards it. y [steps, size]
    // floats, bits [steps, words]: either may be null (bits must be null unless spiking is plain).
    // Spiking::exact needs v null.
    void (*forward)(Queue&, const NeuronRule<F>&, const F* theta, const F* v0, const F* amplitude,
                    const F* x, F* v, F* y, uint64_t* bits, const ScanShape&);
    // Back-propagation through time; the membrane is recomputed from x, in the
    // forward's arithmetic. Starts from v0. dx like x (constant_input: the sum over steps). dtheta
    // [params] or null; amplitude_is_theta adds g s, v0_is_half_theta adds dv_0 / 2. Plain spiking
    // only.
    void (*backward)(Queue&, const NeuronRule<F>&, const F* theta, const F* v0, const F* amplitude,
                     bool amplitude_is_theta, bool v0_is_half_theta, const F* x,
                     const uint64_t* bits, const F* dy, F* dx, F* dtheta, const ScanShape&);
    size_t (*backward_scratch)(const ScanShape&, bool dtheta, int threads);
    // QCFS (Bu et al., ICLR 2022): y = lambda * floor(levels * clip(x / lambda, 0, 1) + 1/2) /
    // levels, evaluated as (lambda * floor(..)) / levels; lambda [params], element i uses i %
    // params. Bitwise.
    void (*qcfs)(Queue&, const F* x, const F* lambda, int levels, F* y, size_t size, size_t params);
    void (*qcfs_backward)(Queue&, const F* x, const F* lambda, int levels, const F* dy, F* dx,
                          F* dlambda, size_t size,
                          size_t params);  // dlambda may be null
    size_t (*qcfs_backward_scratch)(size_t size, size_t params);
};

// ----------------------------------------------------------------------------------------------
// spike Packed spikes of a layer are [rows, groups, words] with words = (channels + 63) / 64: bit c
// of a group is channel c, unused bits are 0; a linear layer after a flatten has one group per
// pixel. The canonical sum (all bitwise): a float accumulator starts at the bias (none: +0; a bias
// of -0 is +0); inputs are visited by kernel row, kernel column, input channel, ascending; padding
// is skipped; each term is x * w rounded, then added and rounded. Terms that are zero may be
// skipped. binary: every x is 0 or 1, so an fma gives the same bits and may be used.
template <class F>
struct Spike {
    void (*pack)(Queue&, const F* x, uint64_t* bits, size_t rows, size_t channels);  // x != 0
    void (*unpack)(Queue&, const uint64_t* bits, F value, F* x, size_t rows, size_t channels);
    void (*linear_dense)(Queue&, const F* x, const F* w, const F* bias, bool binary, F* y,
                         size_t rows, size_t in, size_t out);
    void (*linear_event)(Queue&, const uint64_t* bits, const F* w, const F* bias, F* y, size_t rows,
                         size_t groups, size_t channels, size_t out);  // in = groups * channels
    void (*conv_dense)(Queue&, const F* x, const F* w, const F* bias, bool binary, F* y,
                       const ConvShape&);
    // Only for cin / groups with groups == 1; bits [n * h * w, 1, words].
    void (*conv_event)(Queue&, const uint64_t* bits, const F* w, const F* bias, F* y,
                       const ConvShape&);
    uint64_t (*count)(Queue&, const uint64_t* bits, size_t words);  // set bits; waits for them
    size_t (*count_scratch)();
    // The event sums in any order, for throughput and training, never for verification. Finite
    // weights only. Bound, with n = kh kw cin or groups * channels inputs, every cin or channels
    // rounded up to 16: (6 n + 8) eps (|bias| + sum of |w| over spikes) + n (2^-39 max |w| of the
    // output + 2^-149). Tables without tensor cores give the event sums.
    void (*linear_split)(Queue&, const uint64_t* bits, const F* w, const F* bias, F* y, size_t rows,
                         size_t groups, size_t channels, size_t out);
    void (*conv_split)(Queue&, const uint64_t* bits, const F* w, const F* bias, F* y,
                       const ConvShape&);
    size_t (*split_scratch)(size_t inputs, size_t out);
};

// ----------------------------------------------------------------------------------------------
// optim One call steps all parameters, each a slice. In place on the parameter and its moments.
// Bitwise. g is multiplied by grad_scale first (gradient clipping, averaging).
template <class F>
struct OptimSlice {
    const F* g;
    F *w, *m;
    F* v;  // adamw only
    size_t n;
    F lr, weight_decay;
    F lowest;  // w is kept >= it after the step; -infinity for none. NaN stays NaN
};

// slices [count] is in host memory for every table and is read before the call returns.
template <class F>
struct Optim {
    // g' = g * grad_scale + weight_decay * w; m = momentum * m + g'; w -= lr * (nesterov ? g' +
    // momentum * m : m)
    void (*sgd)(Queue&, const OptimSlice<F>* slices, size_t count, F grad_scale, F momentum,
                bool nesterov);
    // AdamW (Loshchilov & Hutter, 2019): w -= lr * weight_decay * w, then Adam with step counted
    // from 1.
    void (*adamw)(Queue&, const OptimSlice<F>* slices, size_t count, F grad_scale, F beta1, F beta2,
                  F eps, int64_t step);
};

// ----------------------------------------------------------------------------------------------
// image One sample's augmentation: its crop's corner in source coordinates (may be negative: zero
// padding before normalisation), horizontal flip of the crop, and a cutout box in output
// coordinates set to 0 after normalisation.
struct Augment {
    int32_t source;  // which image
    int32_t y, x;
    int32_t flip;
    int32_t cut_y0, cut_x0, cut_y1, cut_x1;  // empty when y0 >= y1 or x0 >= x1
};

template <class F>
struct Image {
    // images [*, h, w, c] bytes; out [n, h, w, c] = (byte / 255 - mean[c]) / std[c], evaluated as
    // byte * scale[c] + shift[c] with scale and shift given, rounded twice. Bitwise.
    void (*augment)(Queue&, const uint8_t* images, const Augment* samples, const F* scale,
                    const F* shift, F* out, size_t n, size_t h, size_t w, size_t c);
};

// ----------------------------------------------------------------------------------------------
// integer The fixed-point neuron of Loihi 2 (Davies et al., IEEE Micro 2018; the arithmetic of
// Lava's fixed-point process models) and the integer sums of its synapses. All bitwise.
//
// A state x decays by d: rz(x, d) = sign(x) * ((|x| * (4096 - d)) >> 12). Registers have 24 bits, M
// = 2^23: u is wrapped once (u > M: - 2M; u <= -M: + 2M, so +M stays), v is clipped to +-(M - 1).
struct IntegerRule {
    int32_t du = 4095, dv = 0;  // -1 .. 4095; du = 4095, dv = 0: IF
    Compare compare = Compare::greater_equal;
    bool reset_to_zero = false;  // else the threshold is subtracted
};

struct Integer {
    // Per step: u = wrap(rz(u, du + 1) + (a << 6)); v = clip(rz(v, dv) + u + bias); spike: v >=
    // threshold (or >); reset. a [steps, size], or [size] when constant_input: weighted sums of
    // spikes, |a| < 2^24. threshold and bias [params] in the unit of v. u and v [size] are read and
    // written. bits [steps, words] as in Neuron, u_trace and v_trace [steps, size] (v after the
    // reset): null when not wanted. events [2] (null when not wanted) grows by the wraps of u and
    // the clips of v.
    void (*scan)(Queue&, const IntegerRule&, const int32_t* threshold, const int32_t* bias,
                 const int32_t* a, int32_t* u, int32_t* v, uint64_t* bits, int32_t* u_trace,
                 int32_t* v_trace, uint64_t* events, const ScanShape&);
    // Sums of 8-bit weights, [in, out] and [kh, kw, cin / groups, cout]; the caller has checked
    // that they fit int32. Of packed spikes (layout as in Spike; conv_event: groups 1), or of
    // graded events: counts, or signed 8-bit values.
    void (*linear_event)(Queue&, const uint64_t* bits, const int8_t* w, int32_t* y, size_t rows,
                         size_t groups, size_t channels, size_t out);
    void (*conv_event)(Queue&, const uint64_t* bits, const int8_t* w, int32_t* y, const ConvShape&);
    void (*linear_graded)(Queue&, const int16_t* x, const int8_t* w, int32_t* y, size_t rows,
                          size_t in, size_t out);
    void (*conv_graded)(Queue&, const int16_t* x, const int8_t* w, int32_t* y, const ConvShape&);
};

// ----------------------------------------------------------------------------------------------
// stages What a compiled network (neurons/runtime) runs one sample through, all its steps at a
// time: canonical sums and plain neurons in a form made for latency. Not in Table: CPU and float
// only. Every call does one thread's share and starts no threads. Bitwise.

// The inputs of a layer that are not zero, in [steps, h] rows of w pixels with c channels. Pixel x
// of row r has the events start[r * (w + 1) + x] up to (not with) the next start; an event is x * c
// + channel, ascending. Row r's lie from r * slots() on, and kernels may write all those slots.
struct EventRows {
    uint32_t* start;  // [steps * h, w + 1]
    uint32_t* index;  // [steps * h, slots()]
    float* value;     // like index; null: every value is 1
    size_t steps, h, w, c;
    constexpr size_t slots() const { return w * c + 64; }
};

// Neurons of `pixels` pixels and their first `channels` channels. Pointers stand at the first
// pixel, step and channel; a stride is between pixels or steps, 0 for what does not change. Rows of
// floats are read, and v is written, up to the next multiple of 16 channels.
struct Firing {
    size_t pixels, channels, steps;
    const float* x;
    size_t x_pixel, x_step;
    const float* term;  // added to x; may be null
    size_t term_pixel, term_step;
    const uint64_t* gate;     // adds bit * gate_scale [channels]; strides of bits; may be null
    const float* gate_scale;  //
    const float* theta;
    size_t theta_pixel;
    float* v;  // the membrane, read and written
    size_t v_pixel;
    uint64_t* bits;  // receives spikes, in words of 64 channels; a last word's unused bits are 0
    size_t bits_pixel, bits_step;
};

struct Stages {
    size_t panel;  // outputs of a full panel of weights: a multiple of 64
    // Fill rows [begin, end) of all steps * h, and return how many events they have: of spikes
    // [steps, h, w, words]; of their averages over windows, spikes [steps, pool.h, pool.w, words],
    // pool.n = 1; of floats [steps, h, w, c].
    size_t (*events)(const uint64_t* bits, const EventRows&, size_t begin, size_t end);
    size_t (*pooled)(const uint64_t* bits, const PoolShape&, const EventRows&, size_t begin,
                     size_t end);
    size_t (*graded)(const float* x, const EventRows&, size_t begin, size_t end);
    // And back: x [steps, h, w, c].
    void (*expand)(const EventRows&, float* x, size_t begin, size_t end);
    // Canonical sums of one panel of outputs over events: w [kh * kw * cin, width], bias [width],
    // width a multiple of 16; the shape's n = groups = 1. y [steps, end - begin, width] of output
    // pixels [begin, end) starts at the bias when from is 0 and else continues, by kernel rows
    // [from, to).
    void (*sums)(const EventRows&, const float* w, const float* bias, size_t width, float* y,
                 const ConvShape&, size_t begin, size_t end, size_t from, size_t to);
    // Canonical sums over all inputs, as Spike::conv_dense: of pixels [begin, end) of all n * out_h
    // * out_w, and outputs [first, last) of each group.
    void (*dense)(const float* x, const float* w, const float* bias, bool binary, float* y,
                  const ConvShape&, size_t begin, size_t end, size_t first, size_t last);
    // Plain neurons, as Neuron::forward; returns how many spikes there were.
    size_t (*fire)(const NeuronRule<float>&, const Firing&);
};

// ----------------------------------------------------------------------------------------------
// analog A compiled analog network's convolutions (neurons/analog), weights packed or transformed
// once; a linear layer is a 1x1 convolution of single pixels. Not in Table: CPU and float only. A
// call does one part's share and starts no threads; parts and other images change no bit.

// direct: any shape. winograd2, winograd4: F(2x2, 3x3) and F(4x4, 3x3) (Lavin & Gray, 2016) where
// fits_winograd: 2.25 and 4 times fewer products, rounded more coarsely.
enum class ConvMethod : int { direct, winograd2, winograd4 };

constexpr bool fits_winograd(const ConvShape& s) {
    return s.kh == 3 && s.kw == 3 && s.stride_h == 1 && s.stride_w == 1 && s.dilation_h == 1 &&
           s.dilation_w == 1 && s.groups == 1;
}

struct ConvEnd {                  // y = relu(sum + bias + add)
    const float* bias = nullptr;  // [cout] or null
    const float* add = nullptr;   // like y, or null; may not be y
    bool relu = false;            // y <= 0 becomes 0
};

// Bound: direct as Conv::forward with one term more. Winograd, with transforms B, G, A: (cin + 24)
// eps |A|'(sum over cin of |G||w||G|' . |B|'|x||B|)|A|. The reference sums in double always.
struct Analog {
    size_t (*packed_floats)(ConvMethod, const ConvShape&);  // of the weights; any n
    void (*pack)(ConvMethod, const float* w, float* packed, const ConvShape&);
    // Bytes, 64-byte aligned, of each part's own; most for the most n.
    size_t (*scratch)(ConvMethod, const ConvShape&);
    void (*conv)(ConvMethod, const float* x, const float* packed, const ConvEnd&, float* y,
                 const ConvShape&, char* scratch, size_t part, size_t parts);
};

// ----------------------------------------------------------------------------------------------
// tables
template <class F>
struct Table {
    const char* name;  // "reference", "sse2", "avx2", "avx512", "cuda", "cuda-vendor"
    bool cuda;         // pointers are device pointers
    Elementwise<F> elementwise;
    Reduce<F> reduce;
    Gemm<F> gemm;
    Conv<F> conv;
    Pool<F> pool;
    Norm<F> norm;
    Loss<F> loss;
    Neuron<F> neuron;
    Spike<F> spike;
    Optim<F> optim;
    Image<F> image;
    Integer integer;
};

const Table<float>& reference();          // the definition: plain loops, double sums
const Table<double>& reference_double();  // the same loops in double, for gradient checks
const Table<float>* cuda();  // null in a build without CUDA or on a machine without a GPU
const Table<float>* cuda_vendor();

// Tables this machine can run, slowest first; `count` receives how many. The array is static.
const Table<float>* const* usable(size_t* count);

// The table of this name, or null when it does not exist or this machine cannot run it.
const Table<float>* find(const char* name);

// The fastest usable CPU table, or the one NC_ISA names. Returns null when NC_ISA names one that is
// not usable; the caller reports it (see why_unusable).
const Table<float>* best();
const char* why_unusable(const char* name);  // a static sentence; null when usable

// The stages of a CPU table of this name; null where find() gives none, or one of CUDA.
const Stages* stages(const char* name);
const Analog* analog(const char* name);  // likewise

// Multiply-adds on registers alone, to measure a machine's peak: does `rounds` rounds of them on
// the factor *sink (0..1), writes a result that depends on all of them to *sink, and returns how
// many floating-point operations they were. Null for a table whose instruction set has no such
// loop.
using Probe = double (*)(size_t rounds, float* sink);
Probe probe(const char* name);

}  // namespace nc::kernels
