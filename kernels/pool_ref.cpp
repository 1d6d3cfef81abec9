// The definition of the pool family: plain loops over windows.
#include "kernels/families.h"

namespace nc::kernels {
namespace {

// Calls visit(out_index, in_index, y * w + x) for every element of every window that is not
// padding: outputs ascending, then rows, then columns of the window.
template <class Visit>
void for_windows(const PoolShape& s, Visit visit) {
    for (size_t n = 0; n < s.n; ++n)
        for (size_t oy = 0; oy < s.out_h(); ++oy)
            for (size_t ox = 0; ox < s.out_w(); ++ox)
                for (size_t ky = 0; ky < s.kh; ++ky)
                    for (size_t kx = 0; kx < s.kw; ++kx) {
                        const size_t y = oy * s.stride_h + ky, x = ox * s.stride_w + kx;
                        if (y < s.pad_h || y >= s.h + s.pad_h) continue;
                        if (x < s.pad_w || x >= s.w + s.pad_w) continue;
                        const size_t at = (y - s.pad_h) * s.w + (x - s.pad_w);
                        for (size_t c = 0; c < s.c; ++c)
                            visit(((n * s.out_h() + oy) * s.out_w() + ox) * s.c + c,
                                  (n * s.h * s.w + at) * s.c + c, at);
                    }
}

template <class F>
void average(Queue&, const F* x, F* y, const PoolShape& s) {
    const size_t outputs = s.n * s.out_h() * s.out_w() * s.c;
    for (size_t i = 0; i < outputs; ++i) y[i] = 0;
    for_windows(s, [&](size_t out, size_t in, size_t) { y[out] += x[in]; });
    const F factor = F(1) / F(s.kh * s.kw);
    for (size_t i = 0; i < outputs; ++i) y[i] *= factor;
}

template <class F>
void average_backward(Queue&, const F* dy, F* dx, const PoolShape& s) {
    for (size_t i = 0; i < s.n * s.h * s.w * s.c; ++i) dx[i] = 0;
    const F factor = F(1) / F(s.kh * s.kw);
    for_windows(s, [&](size_t out, size_t in, size_t) {
        const F term = dy[out] * factor;
        dx[in] += term;
    });
}

// The first NaN of a window wins over everything.
template <class F>
void max(Queue&, const F* x, F* y, int32_t* index, const PoolShape& s) {
    const size_t outputs = s.n * s.out_h() * s.out_w() * s.c;
    for (size_t out = 0; out < outputs; ++out) {
        const size_t c = out % s.c, ox = out / s.c % s.out_w();
        const size_t oy = out / s.c / s.out_w() % s.out_h(), n = out / s.c / s.out_w() / s.out_h();
        bool first = true;
        F best = 0;
        size_t best_at = 0;
        for (size_t ky = 0; ky < s.kh; ++ky)
            for (size_t kx = 0; kx < s.kw; ++kx) {
                const size_t py = oy * s.stride_h + ky, px = ox * s.stride_w + kx;
                if (py < s.pad_h || py >= s.h + s.pad_h) continue;
                if (px < s.pad_w || px >= s.w + s.pad_w) continue;
                const size_t at = (py - s.pad_h) * s.w + (px - s.pad_w);
                const size_t in = (n * s.h * s.w + at) * s.c + c;
                if (first || x[in] > best || (x[in] != x[in] && best == best)) {
                    best = x[in];
                    best_at = at;
                }
                first = false;
            }
        y[out] = best;
        if (index != nullptr) index[out] = int32_t(best_at);
    }
}

template <class F>
void max_backward(Queue&, const F* dy, const int32_t* index, F* dx, const PoolShape& s) {
    for (size_t i = 0; i < s.n * s.h * s.w * s.c; ++i) dx[i] = 0;
    const size_t per_image = s.out_h() * s.out_w() * s.c;
    for (size_t i = 0; i < s.n * per_image; ++i) {
        const size_t n = i / per_image, c = i % s.c;
        dx[(n * s.h * s.w + size_t(index[i])) * s.c + c] += dy[i];
    }
}

}  // namespace

template <class F>
Pool<F> reference_pool() {
    return {.average = average<F>,
            .average_backward = average_backward<F>,
            .max = max<F>,
            .max_backward = max_backward<F>};
}

template Pool<float> reference_pool<float>();
template Pool<double> reference_pool<double>();

}  // namespace nc::kernels
