// The definition of the image family: one output pixel at a time.
#include "kernels/families.h"

namespace nc::kernels {
namespace {

template <class F>
void augment(Queue&, const uint8_t* images, const Augment* samples, const F* scale, const F* shift,
             F* out, size_t n, size_t h, size_t w, size_t c) {
    const int64_t height = int64_t(h), width = int64_t(w);
    for (size_t i = 0; i < n; ++i) {
        const Augment& a = samples[i];
        const uint8_t* image = images + size_t(a.source) * h * w * c;
        for (int64_t oy = 0; oy < height; ++oy)
            for (int64_t ox = 0; ox < width; ++ox) {
                const bool cut = oy >= a.cut_y0 && oy < a.cut_y1 && ox >= a.cut_x0 && ox < a.cut_x1;
                const int64_t y = a.y + oy, x = a.x + (a.flip != 0 ? width - 1 - ox : ox);
                const bool inside = y >= 0 && y < height && x >= 0 && x < width;
                for (size_t k = 0; k < c; ++k) {
                    const F byte = inside ? F(image[size_t(y * width + x) * c + k]) : F(0);
                    const F scaled = byte * scale[k];
                    *out++ = cut ? F(0) : scaled + shift[k];
                }
            }
    }
}

}  // namespace

template <class F>
Image<F> reference_image() {
    return {.augment = augment<F>};
}

template Image<float> reference_image<float>();
template Image<double> reference_image<double>();

}  // namespace nc::kernels
