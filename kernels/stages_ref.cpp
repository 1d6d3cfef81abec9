// The definition of the stages of a compiled network: events, sums over them, neurons over time.
#include "kernels/families.h"

namespace nc::kernels {
namespace {

// Writes the events of rows [begin, end): value(row, pixel, channel) where it is not zero.
template <class Value>
size_t list_events(const EventRows& to, size_t begin, size_t end, Value value) {
    size_t count = 0;
    for (size_t r = begin; r < end; ++r) {
        size_t at = r * to.slots();
        for (size_t x = 0; x < to.w; ++x) {
            to.start[r * (to.w + 1) + x] = uint32_t(at);
            for (size_t c = 0; c < to.c; ++c) {
                const float v = value(r, x, c);
                if (v == 0) continue;
                to.index[at] = uint32_t(x * to.c + c);
                if (to.value != nullptr) to.value[at] = v;
                ++at;
                ++count;
            }
        }
        to.start[r * (to.w + 1) + to.w] = uint32_t(at);
    }
    return count;
}

bool bit(const uint64_t* words, size_t c) {
    return words[c / 64] >> c % 64 & 1;
}

size_t events(const uint64_t* bits, const EventRows& to, size_t begin, size_t end) {
    const size_t words = (to.c + 63) / 64;
    return list_events(to, begin, end, [&](size_t r, size_t x, size_t c) {
        return bit(bits + (r * to.w + x) * words, c) ? 1.0f : 0.0f;
    });
}

size_t pooled(const uint64_t* bits, const PoolShape& s, const EventRows& to, size_t begin,
              size_t end) {
    const size_t words = (to.c + 63) / 64;
    const float share = 1.0f / float(s.kh * s.kw);
    return list_events(to, begin, end, [&](size_t r, size_t x, size_t c) {
        const size_t step = r / to.h, oy = r % to.h;
        size_t count = 0;
        for (size_t ky = 0; ky < s.kh; ++ky)
            for (size_t kx = 0; kx < s.kw; ++kx) {
                const size_t iy = oy * s.stride_h + ky, ix = x * s.stride_w + kx;
                if (iy < s.pad_h || iy - s.pad_h >= s.h || ix < s.pad_w || ix - s.pad_w >= s.w)
                    continue;
                const size_t pixel = (step * s.h + iy - s.pad_h) * s.w + ix - s.pad_w;
                count += bit(bits + pixel * words, c);
            }
        return float(count) * share;
    });
}

size_t graded(const float* x, const EventRows& to, size_t begin, size_t end) {
    return list_events(to, begin, end, [&](size_t r, size_t at, size_t c) {
        return x[(r * to.w + at) * to.c + c];
    });
}

void expand(const EventRows& from, float* x, size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
        float* const row = x + r * from.w * from.c;
        for (size_t i = 0; i < from.w * from.c; ++i) row[i] = 0;
        for (size_t e = r * from.slots(); e < from.start[r * (from.w + 1) + from.w]; ++e)
            row[from.index[e]] = from.value != nullptr ? from.value[e] : 1.0f;
    }
}

// Where an accumulator starts; adding 0 turns a bias of -0 into +0.
float start(const float* bias, size_t o) {
    return bias != nullptr ? bias[o] + 0.0f : 0.0f;
}

void sums(const EventRows& in, const float* w, const float* bias, size_t width, float* y,
          const ConvShape& s, size_t begin, size_t end, size_t from, size_t to) {
    for (size_t p = begin; p < end; ++p)
        for (size_t t = 0; t < in.steps; ++t)
            for (size_t o = 0; o < width; ++o) {
                float& sum = y[(t * (end - begin) + p - begin) * width + o];
                if (from == 0) sum = start(bias, o);
                for (size_t ky = from; ky < to; ++ky)
                    for (size_t kx = 0; kx < s.kw; ++kx) {
                        const size_t iy = p / s.out_w() * s.stride_h + ky * s.dilation_h;
                        const size_t ix = p % s.out_w() * s.stride_w + kx * s.dilation_w;
                        if (iy < s.pad_h || iy - s.pad_h >= s.h) continue;
                        if (ix < s.pad_w || ix - s.pad_w >= s.w) continue;
                        const size_t x = ix - s.pad_w;
                        const uint32_t* const pixel =
                            in.start + (t * s.h + iy - s.pad_h) * (s.w + 1) + x;
                        for (size_t e = pixel[0]; e < pixel[1]; ++e) {
                            const size_t row = (ky * s.kw + kx) * s.cin + in.index[e] - x * s.cin;
                            const float value = in.value != nullptr ? in.value[e] : 1.0f;
                            const float term = value * w[row * width + o];
                            sum = sum + term;
                        }
                    }
            }
}

void dense(const float* x, const float* w, const float* bias, bool, float* y, const ConvShape& s,
           size_t begin, size_t end, size_t first, size_t last) {
    const size_t cin = s.cin / s.groups, cout = s.cout / s.groups;
    for (size_t p = begin; p < end; ++p)
        for (size_t o = 0; o < s.cout; ++o) {
            if (o % cout < first || o % cout >= last) continue;
            float sum = start(bias, o);
            const size_t n = p / (s.out_h() * s.out_w()), pixel = p % (s.out_h() * s.out_w());
            for (size_t ky = 0; ky < s.kh; ++ky)
                for (size_t kx = 0; kx < s.kw; ++kx) {
                    const size_t iy = pixel / s.out_w() * s.stride_h + ky * s.dilation_h;
                    const size_t ix = pixel % s.out_w() * s.stride_w + kx * s.dilation_w;
                    if (iy < s.pad_h || iy - s.pad_h >= s.h) continue;
                    if (ix < s.pad_w || ix - s.pad_w >= s.w) continue;
                    const float* const in =
                        x + ((n * s.h + iy - s.pad_h) * s.w + ix - s.pad_w) * s.cin +
                        o / cout * cin;
                    for (size_t c = 0; c < cin; ++c) {
                        const float term = in[c] * w[((ky * s.kw + kx) * cin + c) * s.cout + o];
                        sum = sum + term;
                    }
                }
            y[p * s.cout + o] = sum;
        }
}

size_t fire(const NeuronRule<float>& rule, const Firing& f) {
    size_t count = 0;
    for (size_t p = 0; p < f.pixels; ++p)
        for (size_t t = 0; t < f.steps; ++t)
            for (size_t c = 0; c < f.channels; ++c) {
                const size_t word = p * f.bits_pixel + t * f.bits_step + c / 64;
                float x = f.x[p * f.x_pixel + t * f.x_step + c];
                if (f.term != nullptr) x = x + f.term[p * f.term_pixel + t * f.term_step + c];
                if (f.gate != nullptr) x = x + float(f.gate[word] >> c % 64 & 1) * f.gate_scale[c];
                const float theta = f.theta[p * f.theta_pixel + c];
                float& v = f.v[p * f.v_pixel + c];
                v = rule.beta * v + x;
                const bool spike = rule.compare == Compare::greater ? v > theta : v >= theta;
                if (spike) v = rule.reset == Reset::subtract ? v - theta : rule.reset_value;
                if (c % 64 == 0) f.bits[word] = 0;
                f.bits[word] |= uint64_t(spike) << c % 64;
                count += spike;
            }
    return count;
}

}  // namespace

Stages reference_stages() {
    return {.panel = 64,
            .events = events,
            .pooled = pooled,
            .graded = graded,
            .expand = expand,
            .sums = sums,
            .dense = dense,
            .fire = fire};
}

}  // namespace nc::kernels
