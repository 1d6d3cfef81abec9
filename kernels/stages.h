// What else the inference runtime asks of a CPU table: the stages of a quantised network, in
// integers, and what its sums cost. Apart from kernels.h, for few files need it.
#pragma once

#include "kernels/kernels.h"

namespace nc::kernels {

// As EventRows without values: an input is listed as often as it counts, at most `repeats` times,
// by pixel; within a pixel in any order.
struct SpikeRows {
    uint32_t* start;  // [steps * h, w + 1]
    uint32_t* index;  // [steps * h, slots()]
    size_t steps, h, w, c, repeats;
    constexpr size_t slots() const { return w * c * repeats + 64; }
};

// As Firing. theta and v are in the unit of x, or in 1/64 of it where neurons leak.
struct IntegerFiring {
    size_t pixels, channels, steps;
    const int32_t* x;
    size_t x_pixel, x_step;
    const int32_t* term;  // may be null
    size_t term_pixel, term_step;
    const uint64_t* gate;  // may be null
    const int32_t* gate_scale;
    const int32_t* theta;
    size_t theta_pixel;
    int32_t* v;
    size_t v_pixel;
    uint64_t* bits;
    size_t bits_pixel, bits_step;
};

// The caller has checked that sums and membranes fit; weights are within +-127. Bitwise.
struct IntegerStages {
    // Lists the spikes [steps, pool.h, pool.w, words] under each window, pool.n = 1, rows [begin,
    // end) of all steps * h; returns how many there are.
    size_t (*list)(const uint64_t* bits, const PoolShape&, const SpikeRows&, size_t begin,
                   size_t end);
    // x [steps, h, w, c rounded up to 4] receives how often each is listed: at most 255 times.
    void (*count)(const SpikeRows&, uint8_t* x, size_t begin, size_t end);
    // As Stages::sums.
    void (*sums)(const SpikeRows&, const int16_t* w, const int32_t* bias, size_t width, int32_t* y,
                 const ConvShape&, size_t begin, size_t end, size_t from, size_t to);
    // As Stages::dense, of one group: x as count gives it, each value <= most <= 128; w [kh * kw,
    // cin / 4, width, 4], bias [width] and y [pixels, width], width = cout rounded up to 16 and cin
    // to 4, zeros where there is no input or output; first and last are multiples of 16.
    void (*dense)(const uint8_t* x, const int8_t* w, const int32_t* bias, size_t most, int32_t* y,
                  const ConvShape&, size_t begin, size_t end, size_t first, size_t last);
    // IF and LIF as Integer::scan, but for its registers' widths; du does not matter. Returns how
    // many spikes there were.
    size_t (*fire)(const IntegerRule&, const IntegerFiring&);
};

// What is added up: weights of spikes, weights times values, or integers.
enum class Adding { spikes, values, integers };

// What a layer's sums of some steps take, in nanoseconds of the machine that they were measured on,
// to tell which is faster: over `events` events, or over all inputs (made of events first).
struct StageCosts {
    double (*sums)(const ConvShape&, Adding, size_t steps, size_t events);
    double (*dense)(const ConvShape&, Adding, size_t steps, size_t events);
};

// Of a CPU table of this name; null where stages() gives none.
const IntegerStages* integer_stages(const char* name);
const StageCosts* stage_costs(const char* name);

IntegerStages reference_integer_stages();
StageCosts reference_stage_costs();
namespace sse2 {
IntegerStages integer_stages();
StageCosts stage_costs();
}  // namespace sse2
namespace avx2 {
IntegerStages integer_stages();
StageCosts stage_costs();
}  // namespace avx2
namespace avx512 {
IntegerStages integer_stages();
StageCosts stage_costs();
}  // namespace avx512

}  // namespace nc::kernels
