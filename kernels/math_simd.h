// Exponential, erf, tanh and the logistic function of a vector, each within 2 ulp (logistic 3)
// where the result is normal; NaN stays NaN.
#pragma once

#include "kernels/isa.h"

namespace nc::kernels::NC_ISA {

// 2^n for integers |n| <= 126, given as floats.
static inline Vec power_of_two(Vec n) {
    using Int = xsimd::batch<int32_t, Arch>;
    const Int bits = (xsimd::to_int(n) + Int(127)) << 23;
    return xsimd::bitwise_cast<Vec>(bits);
}

// x = n ln 2 + r, |r| <= ln 2 / 2; a polynomial for e^r (Cephes expf); two factors for 2^n, so that
// denormal results and the last step before infinity come out right.
static inline Vec exp(Vec x) {
    const Vec big = Vec(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    x = xsimd::max(Vec(-104.0f), xsimd::min(Vec(89.0f), x));  // in this order NaN passes
    const Vec n = (x * Vec(1.44269504f) + big) - big;
    Vec r = fma(n, Vec(-0.693359375f), x);
    r = fma(n, Vec(2.12194440e-4f), r);
    Vec p = Vec(1.9875691500e-4f);
    p = fma(p, r, Vec(1.3981999507e-3f));
    p = fma(p, r, Vec(8.3334519073e-3f));
    p = fma(p, r, Vec(4.1665795894e-2f));
    p = fma(p, r, Vec(1.6666665459e-1f));
    p = fma(p, r, Vec(5.0000001201e-1f));
    p = fma(p, r * r, r) + Vec(1.0f);
    const Vec half = (n * Vec(0.5f) + big) - big;
    return (p * power_of_two(half)) * power_of_two(n - half);
}

// Polynomials of N. Juffa (2016): odd in x near 0, 1 - exp of a polynomial beyond.
static inline Vec erf(Vec x) {
    const Vec t = xsimd::abs(x), s = x * x;
    Vec near = Vec(-5.96761703e-4f);
    near = fma(near, s, Vec(4.99119423e-3f));
    near = fma(near, s, Vec(-2.67681349e-2f));
    near = fma(near, s, Vec(1.12819925e-1f));
    near = fma(near, s, Vec(-3.76125336e-1f));
    near = fma(near, s, Vec(1.28379166e-1f));
    near = fma(near, x, x);
    const Vec u = xsimd::min(Vec(10.0f), t), su = u * u;
    Vec far = fma(fma(Vec(-1.72853470e-5f), u, Vec(3.83197126e-4f)), su,
                  fma(Vec(-3.88396438e-3f), u, Vec(2.42546219e-2f)));
    far = fma(far, u, Vec(-1.06777877e-1f));
    far = fma(far, u, Vec(-6.34846687e-1f));
    far = fma(far, u, Vec(-1.28717512e-1f));
    far = Vec(1.0f) - exp(fma(far, u, -u));
    far = far | (x & Vec(-0.0f));
    return select(t > Vec(0.927734375f), far, near);
}

// Cephes tanhf: odd polynomial near 0, 1 - 2 / (e^2|x| + 1) beyond.
static inline Vec tanh(Vec x) {
    const Vec t = xsimd::abs(x), s = x * x;
    Vec near = Vec(-5.70498872745e-3f);
    near = fma(near, s, Vec(2.06390887954e-2f));
    near = fma(near, s, Vec(-5.37397155531e-2f));
    near = fma(near, s, Vec(1.33314422036e-1f));
    near = fma(near, s, Vec(-3.33332819422e-1f));
    near = fma(near * s, x, x);
    Vec far = Vec(1.0f) - Vec(2.0f) / (exp(t + t) + Vec(1.0f));
    far = far | (x & Vec(-0.0f));
    return select(t > Vec(0.625f), far, near);
}

// 1 / (1 + e^-x) and its complement 1 / (1 + e^x), neither by a difference.
static inline Vec logistic(Vec x, Vec* complement) {
    const Vec e = exp(-xsimd::abs(x)), inverse = Vec(1.0f) / (Vec(1.0f) + e);
    const Mask positive = x >= Vec(0.0f);
    *complement = select(positive, e, Vec(1.0f)) * inverse;
    return select(positive, Vec(1.0f), e) * inverse;
}

}  // namespace nc::kernels::NC_ISA
