// Convolutions of a compiled analog network, the definition: plain loops, double sums, whatever the
// method.
#include "kernels/families.h"

namespace nc::kernels {
namespace {

size_t packed_floats(ConvMethod, const ConvShape& s) {
    return s.kh * s.kw * (s.cin / s.groups) * s.cout;
}

void pack(ConvMethod method, const float* w, float* packed, const ConvShape& s) {
    for (size_t i = 0; i < packed_floats(method, s); ++i) packed[i] = w[i];
}

size_t scratch(ConvMethod, const ConvShape&) {
    return 0;
}

void conv(ConvMethod, const float* x, const float* w, const ConvEnd& end, float* y,
          const ConvShape& s, char*, size_t part, size_t parts) {
    const size_t oh = s.out_h(), ow = s.out_w(), pixels = s.n * oh * ow;
    const size_t gin = s.cin / s.groups, gout = s.cout / s.groups;
    for (size_t pixel = pixels * part / parts; pixel < pixels * (part + 1) / parts; ++pixel) {
        const size_t image = pixel / (oh * ow), oy = pixel / ow % oh, ox = pixel % ow;
        for (size_t o = 0; o < s.cout; ++o) {
            double sum = end.bias != nullptr ? double(end.bias[o]) : 0;
            if (end.add != nullptr) sum += double(end.add[pixel * s.cout + o]);
            for (size_t ky = 0; ky < s.kh; ++ky)
                for (size_t kx = 0; kx < s.kw; ++kx) {
                    const size_t py = oy * s.stride_h + ky * s.dilation_h;
                    const size_t px = ox * s.stride_w + kx * s.dilation_w;
                    if (py < s.pad_h || py >= s.h + s.pad_h) continue;
                    if (px < s.pad_w || px >= s.w + s.pad_w) continue;
                    const float* from = x + o / gout * gin +
                                        ((image * s.h + py - s.pad_h) * s.w + px - s.pad_w) * s.cin;
                    const float* weight = w + (ky * s.kw + kx) * gin * s.cout + o;
                    for (size_t i = 0; i < gin; ++i)
                        sum += double(from[i]) * double(weight[i * s.cout]);
                }
            y[pixel * s.cout + o] = end.relu && sum <= 0 ? 0.0f : float(sum);
        }
    }
}

}  // namespace

Analog reference_analog() {
    return {.packed_floats = packed_floats, .pack = pack, .scratch = scratch, .conv = conv};
}

}  // namespace nc::kernels
