// Convolutions of a compiled analog network: every instruction set against the reference, directly
// and by both of Winograd's transforms.
#include "tests/check.h"

using namespace nc::kernels;
using namespace nc::test;

namespace {

using Matrix = std::vector<std::vector<double>>;

// |B'|, |G| and |A'| of F(m x m, 3x3), from the paper's matrices.
struct Transforms {
    Matrix b, g, a;
};
Transforms absolute_transforms(ConvMethod method) {
    if (method == ConvMethod::winograd2)
        return {{{1, 0, 1, 0}, {0, 1, 1, 0}, {0, 1, 1, 0}, {0, 1, 0, 1}},
                {{1, 0, 0}, {.5, .5, .5}, {.5, .5, .5}, {0, 0, 1}},
                {{1, 1, 1, 0}, {0, 1, 1, 1}}};
    return {{{4, 0, 5, 0, 1, 0},
             {0, 4, 4, 1, 1, 0},
             {0, 4, 4, 1, 1, 0},
             {0, 2, 1, 2, 1, 0},
             {0, 2, 1, 2, 1, 0},
             {0, 4, 0, 5, 0, 1}},
            {{1 / 4., 0, 0},
             {1 / 6., 1 / 6., 1 / 6.},
             {1 / 6., 1 / 6., 1 / 6.},
             {1 / 24., 1 / 12., 1 / 6.},
             {1 / 24., 1 / 12., 1 / 6.},
             {0, 0, 1}},
            {{1, 1, 1, 1, 1, 0}, {0, 1, 1, 2, 2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, 1, 8, 8, 1}}};
}

// t x t', of a square x given row by row.
std::vector<double> both_sides(const Matrix& t, const std::vector<double>& x) {
    const size_t n = t.size(), k = t[0].size();
    std::vector<double> out(n * n);
    for (size_t i = 0; i < n; ++i)
        for (size_t j = 0; j < n; ++j)
            for (size_t a = 0; a < k; ++a)
                for (size_t b = 0; b < k; ++b) out[i * n + j] += t[i][a] * x[a * k + b] * t[j][b];
    return out;
}

// The sums of absolute values that roundings are measured in, [n, oh, ow, cout].
std::vector<double> direct_size(const ConvShape& s, const std::vector<float>& x,
                                const std::vector<float>& w) {
    const size_t gin = s.cin / s.groups, gout = s.cout / s.groups;
    std::vector<double> out(s.n * s.out_h() * s.out_w() * s.cout);
    for (size_t i = 0; i < out.size(); ++i) {
        const size_t o = i % s.cout, ox = i / s.cout % s.out_w();
        const size_t oy = i / s.cout / s.out_w() % s.out_h();
        const size_t n = i / s.cout / s.out_w() / s.out_h();
        for (size_t ky = 0; ky < s.kh; ++ky)
            for (size_t kx = 0; kx < s.kw; ++kx) {
                const size_t iy = oy * s.stride_h + ky * s.dilation_h - s.pad_h;
                const size_t ix = ox * s.stride_w + kx * s.dilation_w - s.pad_w;
                if (iy >= s.h || ix >= s.w) continue;  // also what wrapped around below 0
                for (size_t c = 0; c < gin; ++c)
                    out[i] += std::fabs(
                        double(x[((n * s.h + iy) * s.w + ix) * s.cin + o / gout * gin + c]) *
                        double(w[((ky * s.kw + kx) * gin + c) * s.cout + o]));
            }
    }
    return out;
}

std::vector<double> winograd_size(ConvMethod method, const ConvShape& s,
                                  const std::vector<float>& x, const std::vector<float>& w) {
    const Transforms t = absolute_transforms(method);
    const size_t m = t.a.size(), edge = t.b.size(), oh = s.out_h(), ow = s.out_w();
    std::vector<std::vector<double>> u(s.cin * s.cout);
    for (size_t c = 0; c < s.cin; ++c)
        for (size_t o = 0; o < s.cout; ++o) {
            std::vector<double> g(9);
            for (size_t k = 0; k < 9; ++k)
                g[k] = std::fabs(double(w[(k * s.cin + c) * s.cout + o]));
            u[c * s.cout + o] = both_sides(t.g, g);
        }
    std::vector<double> out(s.n * oh * ow * s.cout);
    for (size_t n = 0; n < s.n; ++n)
        for (size_t y = 0; y < oh; y += m)
            for (size_t z = 0; z < ow; z += m) {
                std::vector<std::vector<double>> v(s.cin);
                for (size_t c = 0; c < s.cin; ++c) {
                    std::vector<double> d(edge * edge);
                    for (size_t i = 0; i < edge * edge; ++i) {
                        const size_t iy = y + i / edge - s.pad_h, ix = z + i % edge - s.pad_w;
                        if (iy < s.h && ix < s.w)
                            d[i] = std::fabs(double(x[((n * s.h + iy) * s.w + ix) * s.cin + c]));
                    }
                    v[c] = both_sides(t.b, d);
                }
                for (size_t o = 0; o < s.cout; ++o) {
                    std::vector<double> sum(edge * edge);
                    for (size_t c = 0; c < s.cin; ++c)
                        for (size_t i = 0; i < sum.size(); ++i)
                            sum[i] += v[c][i] * u[c * s.cout + o][i];
                    const auto tile = both_sides(t.a, sum);
                    for (size_t i = 0; i < m * m; ++i)
                        if (y + i / m < oh && z + i % m < ow)
                            out[((n * oh + y + i / m) * ow + z + i % m) * s.cout + o] = tile[i];
                }
            }
    return out;
}

std::vector<float> run(const Analog& analog, ConvMethod method, const ConvShape& s,
                       const std::vector<float>& x, const std::vector<float>& w, const ConvEnd& end,
                       size_t parts) {
    Guarded<float> packed(analog.packed_floats(method, s));
    analog.pack(method, w.data(), packed, s);
    CHECK(packed.ok());
    Guarded<float> y(s.n * s.out_h() * s.out_w() * s.cout);
    // Guarded memory is 64-byte aligned only by chance: scratch is taken from within.
    const size_t bytes = analog.scratch(method, s);
    for (size_t part = parts; part-- > 0;) {
        Guarded<char> memory(bytes + 64);
        char* own = memory + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
        analog.conv(method, x.data(), packed, end, y, s, own, part, parts);
        for (size_t i = size_t(own - memory) + bytes; i < memory.size(); ++i)
            CHECK(memory[i] == char(0xff));
        CHECK(memory.ok());
    }
    CHECK(y.ok());
    return y.values();
}

// Bound. direct: a product and a sum for each of k = kh kw cin / groups terms, one more sum a block
// of k, the bias, `add`, the reference's rounding: at most 2 k + k / 256 + 3 roundings of eps / 2.
// Winograd: the weight once; B' x B, a line of it at most 4 operations deep, two lines; cin
// products and sums, one more a block; A' m A, at most 4 deep twice; bias, `add`, the reference: 2
// cin + cin / 256 + 1 + 16 + 3 roundings of eps / 2, each in what |G|, |B| and |A| make of the
// absolute values, for they are applied to values no larger. Those are at most (k + 3) and (cin +
// 24) eps with room. Where numbers are denormal only products lose, half of the smallest each,
// which A' multiplies by at most 19 * 19; the transformed weight's own loss by its input, at most
// 100 times the largest.
void check_shape(const ConvShape& s, uint64_t seed) {
    const auto x = hard_values(s.n * s.h * s.w * s.cin, seed);
    const auto w = hard_values(s.kh * s.kw * (s.cin / s.groups) * s.cout, seed + 1);
    const auto bias = hard_values(s.cout, seed + 2);
    const auto add = hard_values(s.n * s.out_h() * s.out_w() * s.cout, seed + 3);
    double largest = 0;
    for (const float value : x) largest = std::max(largest, std::fabs(double(value)));
    INFO("n " << s.n << " h " << s.h << " w " << s.w << " cin " << s.cin << " k " << s.kh << " "
              << s.kw << " cout " << s.cout << " groups " << s.groups);
    const double eps = double(std::numeric_limits<float>::epsilon());
    const double tiny = double(std::numeric_limits<float>::denorm_min());
    size_t count = 0;
    const Table<float>* const* tables = usable(&count);
    for (const ConvMethod method :
         {ConvMethod::direct, ConvMethod::winograd2, ConvMethod::winograd4}) {
        const bool is_direct = method == ConvMethod::direct;
        if (!is_direct && !fits_winograd(s)) continue;
        const auto size = is_direct ? direct_size(s, x, w) : winograd_size(method, s, x, w);
        const double terms = double(is_direct ? s.kh * s.kw * s.cin / s.groups + 3 : s.cin + 24);
        const double loss = tiny * terms * (is_direct ? 1 : 361 * (1 + 100 * largest));
        for (size_t table = 0; table < count; ++table) {
            if (tables[table]->cuda) continue;
            const Analog& analog = *nc::kernels::analog(tables[table]->name);
            INFO("table " << std::string(tables[table]->name) << " method " << int(method));
            for (int variant = 0; variant < 4; ++variant) {
                ConvEnd end;
                if (variant & 1) end.bias = bias.data();
                if (variant & 2) end.add = add.data(), end.relu = true;
                const auto want = run(*nc::kernels::analog("reference"), method, s, x, w, end, 1);
                const auto got = run(analog, method, s, x, w, end, 1);
                size_t wrong = 0;
                for (size_t i = 0; i < got.size(); ++i) {
                    double magnitude = size[i];
                    if (end.bias != nullptr) magnitude += std::fabs(double(bias[i % s.cout]));
                    if (end.add != nullptr) magnitude += std::fabs(double(add[i]));
                    const double far = std::fabs(double(got[i]) - double(want[i]));
                    wrong += !(far <= terms * eps * magnitude + loss);
                    wrong += end.relu && !(got[i] >= 0);
                }
                CHECK(wrong == 0);
                for (const size_t parts : {2, 3, 7})
                    CHECK(run(analog, method, s, x, w, end, parts) == got);
            }
        }
    }
}

ConvShape square(size_t n, size_t h, size_t cin, size_t k, size_t cout, size_t stride, size_t pad) {
    return {.n = n,
            .h = h,
            .w = h,
            .cin = cin,
            .kh = k,
            .kw = k,
            .cout = cout,
            .stride_h = stride,
            .stride_w = stride,
            .pad_h = pad,
            .pad_w = pad};
}

}  // namespace

TEST_CASE("kernels analog: every method against the reference") {
    // Tiles that fit and that are cut short, all paddings, channels that fill no vector, more tiles
    // than a round has, more input channels than a block.
    for (const ConvShape& s : {square(2, 8, 16, 3, 32, 1, 1), square(1, 7, 3, 3, 5, 1, 0),
                               square(3, 5, 17, 3, 33, 1, 1), square(1, 6, 20, 3, 70, 1, 2),
                               square(1, 4, 600, 3, 16, 1, 1), square(1, 33, 4, 3, 8, 1, 1),
                               square(1, 1, 9, 3, 40, 1, 1), square(2, 2, 40, 3, 16, 1, 1)})
        check_shape(s, 1 + s.cin);
    ConvShape uneven = square(2, 9, 12, 3, 20, 1, 1);
    uneven.w = 6;
    uneven.pad_w = 0;
    check_shape(uneven, 7);
}

TEST_CASE("kernels analog: shapes that are only summed directly") {
    for (const ConvShape& s : {square(2, 9, 16, 3, 32, 2, 1), square(1, 8, 20, 1, 40, 1, 0),
                               square(2, 8, 20, 1, 24, 2, 0), square(1, 9, 3, 5, 6, 1, 2),
                               square(5, 1, 784, 1, 10, 1, 0), square(1, 1, 700, 1, 100, 1, 0),
                               square(90, 1, 5, 1, 3, 1, 0)})
        check_shape(s, 1 + s.cin);
    ConvShape grouped = square(2, 7, 12, 3, 24, 1, 1);
    grouped.groups = 4;
    check_shape(grouped, 3);
    ConvShape dilated = square(1, 9, 6, 3, 10, 1, 2);
    dilated.dilation_h = dilated.dilation_w = 2;
    check_shape(dilated, 4);
}

TEST_CASE("kernels analog: nothing in, nothing out") {
    for (const ConvShape& s :
         {square(0, 5, 3, 3, 4, 1, 1), square(2, 5, 0, 3, 4, 1, 1), square(2, 5, 3, 3, 0, 1, 1)})
        check_shape(s, 1);
}

TEST_CASE("kernels analog: NaN passes a ReLU") {
    const ConvShape s = square(1, 8, 16, 3, 16, 1, 1);
    auto x = normal_values(s.h * s.w * s.cin, 1);
    x[0] = std::numeric_limits<float>::quiet_NaN();
    const auto w = normal_values(9 * s.cin * s.cout, 2);
    size_t count = 0;
    const Table<float>* const* tables = usable(&count);
    for (size_t table = 0; table < count; ++table)
        for (const ConvMethod method :
             {ConvMethod::direct, ConvMethod::winograd2, ConvMethod::winograd4}) {
            if (tables[table]->cuda) continue;
            const auto y = run(*analog(tables[table]->name), method, s, x, w, {.relu = true}, 1);
            CHECK(std::isnan(y[0]));
        }
}
