// Crop, flip and cutout.
#include "datasets/augment.h"

#include <algorithm>

namespace nc {

kernels::Augment draw_augment(const AugmentOptions& options, const Shape& sample, uint32_t source,
                              Random& random) {
    kernels::Augment out{};
    out.source = int32_t(source);
    // A crop out of the zero-padded image is a translation by up to the padding.
    const int reach = std::max(options.crop, options.shift);
    if (reach > 0) {
        out.y = int32_t(random.below(2 * uint64_t(reach) + 1)) - reach;
        out.x = int32_t(random.below(2 * uint64_t(reach) + 1)) - reach;
    }
    if (options.flip) out.flip = int32_t(random.below(2));
    if (options.cutout > 0) {
        // The square's centre lies in the image, its corners may not (DeVries, Taylor 2017).
        const int32_t side = options.cutout;
        const int32_t y = int32_t(random.below(sample[0])), x = int32_t(random.below(sample[1]));
        out.cut_y0 = y - side / 2;
        out.cut_x0 = x - side / 2;
        out.cut_y1 = out.cut_y0 + side;
        out.cut_x1 = out.cut_x0 + side;
    }
    return out;
}

void crop_bytes(const uint8_t* images, const kernels::Augment& a, const Shape& sample,
                uint8_t* out) {
    const int64_t h = int64_t(sample[0]), w = int64_t(sample[1]);
    const size_t c = sample[2];
    const uint8_t* image = images + size_t(a.source) * sample.elements();
    for (int64_t y = a.y; y < a.y + h; ++y)
        for (int64_t i = 0; i < w; ++i, out += c) {
            const int64_t x = a.x + (a.flip != 0 ? w - 1 - i : i);
            if (y < 0 || y >= h || x < 0 || x >= w)
                std::fill_n(out, c, uint8_t(0));
            else
                std::copy_n(image + size_t(y * w + x) * c, c, out);
        }
}

}  // namespace nc
