// The AutoAugment policy for CIFAR-10 and its operations on bytes.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "datasets/augment.h"

namespace nc {
namespace {

using Lut = std::array<uint8_t, 256>;
using Histogram = std::array<uint32_t, 256>;
constexpr uint8_t grey = 128;

struct Picture {
    const uint8_t* in;  // [h, w, 3]
    size_t h, w;
    uint8_t* out;
    size_t pixels() const { return h * w; }
    size_t bytes() const { return h * w * 3; }
};

// out(x, y) = in(floor(a (x + 1/2) + b (y + 1/2) + c), floor(d (x + 1/2) + e (y + 1/2) + f)), in
// 16-bit fixed point.
void affine(const Picture& p, double a, double b, double c, double d, double e, double f) {
    const auto fixed = [](double v) { return int64_t(std::floor(v * 65536 + 0.5)); };
    const int64_t ax = fixed(a), bx = fixed(b), ay = fixed(d), by = fixed(e);
    int64_t row_x = fixed(c + a * 0.5 + b * 0.5), row_y = fixed(f + d * 0.5 + e * 0.5);
    const int64_t w = int64_t(p.w), h = int64_t(p.h);
    uint8_t* out = p.out;
    for (int64_t y = 0; y < h; ++y, row_x += bx, row_y += by) {
        int64_t fx = row_x, fy = row_y;
        for (int64_t x = 0; x < w; ++x, fx += ax, fy += ay, out += 3) {
            const int64_t sx = fx >> 16, sy = fy >> 16;
            if (sx < 0 || sx >= w || sy < 0 || sy >= h)
                std::memset(out, grey, 3);
            else
                std::memcpy(out, p.in + size_t(sy * w + sx) * 3, 3);
        }
    }
}

// Counter-clockwise about the centre.
void turn(const Picture& p, double degrees) {
    const double angle = -degrees * std::numbers::pi / 180;
    const double cosine = std::cos(angle), sine = std::sin(angle);
    const double x = double(p.w) / 2, y = double(p.h) / 2;
    affine(p, cosine, sine, x - (cosine * x + sine * y), -sine, cosine,
           y - (-sine * x + cosine * y));
}

void map(const Picture& p, const Lut& lut) {
    for (size_t i = 0; i < p.bytes(); ++i) p.out[i] = lut[p.in[i]];
}

// A table a channel, made from the channel's histogram.
template <class Make>
void map_by_histogram(const Picture& p, Make make) {
    Histogram histogram[3] = {};
    for (size_t i = 0; i < p.bytes(); i += 3)
        for (size_t c = 0; c < 3; ++c) ++histogram[c][p.in[i + c]];
    Lut lut[3];
    for (size_t c = 0; c < 3; ++c) {
        for (size_t i = 0; i < 256; ++i) lut[c][i] = uint8_t(i);
        make(histogram[c], lut[c]);
    }
    for (size_t i = 0; i < p.bytes(); i += 3)
        for (size_t c = 0; c < 3; ++c) p.out[i + c] = lut[c][p.in[i + c]];
}

// Stretches the channel's range to 0 .. 255.
void stretch(const Histogram& histogram, Lut& lut) {
    int low = 0, high = 255;
    while (low < 255 && histogram[size_t(low)] == 0) ++low;
    while (high > 0 && histogram[size_t(high)] == 0) --high;
    if (high <= low) return;
    const double scale = 255.0 / (high - low), offset = -low * scale;
    for (int i = 0; i < 256; ++i)
        lut[size_t(i)] = uint8_t(std::clamp(int(i * scale + offset), 0, 255));
}

// Spreads the values so that each takes an equal share of the pixels, the greatest aside.
void level_out(const Histogram& histogram, Lut& lut) {
    uint32_t total = 0, last = 0;
    for (const uint32_t count : histogram) {
        total += count;
        if (count > 0) last = count;
    }
    const uint32_t step = (total - last) / 255;
    if (step == 0) return;
    uint32_t below = step / 2;
    for (size_t i = 0; i < 256; ++i) {
        lut[i] = uint8_t(std::min(below / step, 255u));
        below += histogram[i];
    }
}

uint8_t luminance(const uint8_t* rgb) {
    return uint8_t((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 0x8000u) >> 16);
}

// from + factor (to - from) in float, clipped and truncated.
uint8_t blend(int from, int to, float factor) {
    const float v = float(from) + factor * float(to - from);
    return uint8_t(std::clamp(v, 0.0f, 255.0f));
}

void blend_color(const Picture& p, float factor) {
    for (size_t i = 0; i < p.bytes(); i += 3) {
        const uint8_t from = luminance(p.in + i);
        for (size_t c = 0; c < 3; ++c) p.out[i + c] = blend(from, p.in[i + c], factor);
    }
}

void blend_contrast(const Picture& p, float factor) {
    uint64_t sum = 0;
    for (size_t i = 0; i < p.bytes(); i += 3) sum += luminance(p.in + i);
    const int mean = int(double(sum) / double(p.pixels()) + 0.5);
    Lut lut;
    for (int i = 0; i < 256; ++i) lut[size_t(i)] = blend(mean, i, factor);
    map(p, lut);
}

void blend_brightness(const Picture& p, float factor) {
    Lut lut;
    for (int i = 0; i < 256; ++i) lut[size_t(i)] = blend(0, i, factor);
    map(p, lut);
}

// Away from or towards the picture smoothed by (1 1 1; 1 5 1; 1 1 1) / 13; the border stays.
void blend_sharpness(const Picture& p, float factor) {
    std::memcpy(p.out, p.in, p.bytes());
    const size_t row = p.w * 3;
    for (size_t y = 1; y + 1 < p.h; ++y)
        for (size_t i = y * row + 3; i < (y + 1) * row - 3; ++i) {
            const uint8_t *up = p.in + i - row, *at = p.in + i, *down = p.in + i + row;
            const int sum =
                up[-3] + up[0] + up[3] + at[-3] + 5 * at[0] + at[3] + down[-3] + down[0] + down[3];
            p.out[i] = blend((2 * sum + 13) / 26, at[0], factor);
        }
}

template <class Value>
Lut table_of(Value value) {
    Lut lut;
    for (int i = 0; i < 256; ++i) lut[size_t(i)] = uint8_t(value(i));
    return lut;
}

struct Step {
    double probability;
    ImageOp op;
    int level;  // 0 where the operation has none
};

// Table 7 of the paper.
using enum ImageOp;
constexpr Step policy[25][2] = {
    {{0.1, invert, 0}, {0.2, contrast, 6}},
    {{0.7, rotate, 2}, {0.3, translate_x, 9}},
    {{0.8, sharpness, 1}, {0.9, sharpness, 3}},
    {{0.5, shear_y, 8}, {0.7, translate_y, 9}},
    {{0.5, auto_contrast, 0}, {0.9, equalize, 0}},
    {{0.2, shear_y, 7}, {0.3, posterize, 7}},
    {{0.4, color, 3}, {0.6, brightness, 7}},
    {{0.3, sharpness, 9}, {0.7, brightness, 9}},
    {{0.6, equalize, 0}, {0.5, equalize, 0}},
    {{0.6, contrast, 7}, {0.6, sharpness, 5}},
    {{0.7, color, 7}, {0.5, translate_x, 8}},
    {{0.3, equalize, 0}, {0.4, auto_contrast, 0}},
    {{0.4, translate_y, 3}, {0.2, sharpness, 6}},
    {{0.9, brightness, 6}, {0.2, color, 8}},
    {{0.5, solarize, 2}, {0.0, invert, 0}},
    {{0.2, equalize, 0}, {0.6, auto_contrast, 0}},
    {{0.2, equalize, 0}, {0.6, equalize, 0}},
    {{0.9, color, 9}, {0.6, equalize, 0}},
    {{0.8, auto_contrast, 0}, {0.2, solarize, 8}},
    {{0.1, brightness, 3}, {0.7, color, 0}},
    {{0.4, solarize, 5}, {0.9, auto_contrast, 0}},
    {{0.9, translate_y, 9}, {0.7, translate_y, 9}},
    {{0.9, auto_contrast, 0}, {0.8, solarize, 3}},
    {{0.8, equalize, 0}, {0.1, invert, 0}},
    {{0.7, translate_y, 9}, {0.9, auto_contrast, 0}},
};

}  // namespace

void apply_image_op(ImageOp op, int level, bool negative, const uint8_t* image, const Shape& sample,
                    uint8_t* out) {
    const Picture p = {image, sample[0], sample[1], out};
    const double share = (negative ? -1.0 : 1.0) * level / 9;
    const double slant = 0.3 * share, way = 150.0 / 331 * share;
    const float factor = float(1 + 0.9 * share);
    switch (op) {
        case shear_x:
            return affine(p, 1, slant, 0, 0, 1, 0);
        case shear_y:
            return affine(p, 1, 0, 0, slant, 1, 0);
        case translate_x:
            return affine(p, 1, 0, way * double(p.w), 0, 1, 0);
        case translate_y:
            return affine(p, 1, 0, 0, 0, 1, way * double(p.h));
        case rotate:
            return turn(p, 30 * share);
        case color:
            return blend_color(p, factor);
        case contrast:
            return blend_contrast(p, factor);
        case brightness:
            return blend_brightness(p, factor);
        case sharpness:
            return blend_sharpness(p, factor);
        case posterize: {
            const int bits = 8 - int(std::lround(level * 4.0 / 9));
            return map(p, table_of([=](int v) { return v & ~((1 << (8 - bits)) - 1); }));
        }
        case solarize: {
            const double threshold = 256 - 256.0 * level / 9;
            return map(p, table_of([=](int v) { return v < threshold ? v : 255 - v; }));
        }
        case invert:
            return map(p, table_of([](int v) { return 255 - v; }));
        case auto_contrast:
            return map_by_histogram(p, stretch);
        case equalize:
            return map_by_histogram(p, level_out);
    }
}

void auto_augment(const uint8_t* image, const Shape& sample, Random& random, uint8_t* out) {
    const auto& steps = policy[random.below(25)];
    std::vector<uint8_t> between;
    const uint8_t* in = image;
    for (const Step& step : steps) {
        const bool applies = random.uniform() < step.probability;
        const bool negative = random.below(2) == 1;
        if (!applies) continue;
        if (in == out) {
            between.assign(out, out + sample.elements());
            in = between.data();
        }
        apply_image_op(step.op, step.level, negative, in, sample, out);
        in = out;
    }
    if (in == image) std::memcpy(out, image, sample.elements());
}

}  // namespace nc
