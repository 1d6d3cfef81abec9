// The norm family of one instruction set: batch normalisation with per-channel factors repeated to
// wide rows; the sums' trees are those of loops_simd.h, so all sets give the same bits.
#include "kernels/families.h"
#include "kernels/loops_simd.h"

namespace nc::kernels::NC_ISA {

constexpr static size_t grain = 32768;  // elements worth a thread

static void statistics(Queue& q, const float* x, float* mean, float* variance, size_t rows,
                       size_t cols) {
    if (cols == 0) return;
    float* scratch = reinterpret_cast<float*>(q.scratch);
    const double inverse = rows > 0 ? 1 / double(rows) : 0;
    sum_over_rows<1>(
        q.threads, rows, cols, scratch,
        [=](auto io, size_t i, size_t, Vec* v) { v[0] = io.load(x + i); },
        [=](size_t, size_t c, double total) { mean[c] = float(total * inverse); });
    const WideRow wide(mean, cols);
    const float* m = wide.data();
    sum_over_rows<1>(
        q.threads, rows, cols, scratch,
        [=](auto io, size_t i, size_t j, Vec* v) {
            const Vec d = io.load(x + i) - io.load(m + j);
            v[0] = d * d;
        },
        [=](size_t, size_t c, double total) { variance[c] = float(total * inverse); });
}

static inline double inverse_deviation(float variance, float eps) {
    return 1 / sqrt(double(variance) + double(eps));
}

// `count` rows [cols] of per-channel factors at the start of scratch; the sums come after them.
static inline float* factors(Queue& q, size_t cols, size_t which) {
    return reinterpret_cast<float*>(q.scratch) + which * cols;
}
constexpr static size_t factor_rows = 3;

static size_t scratch(size_t rows, size_t cols) {
    return factor_rows * cols * sizeof(float) + row_sums_scratch(rows, cols, 2);
}

static void normalise(Queue& q, const float* x, const float* mean, const float* variance,
                      const float* gamma, const float* beta, float eps, float* y, size_t rows,
                      size_t cols) {
    if (cols == 0) return;
    float *a = factors(q, cols, 0), *b = factors(q, cols, 1);
    for (size_t c = 0; c < cols; ++c) {
        const double factor = (gamma ? double(gamma[c]) : 1) * inverse_deviation(variance[c], eps);
        a[c] = float(factor);
        b[c] = float((beta ? double(beta[c]) : 0) - double(mean[c]) * double(a[c]));
    }
    const WideRow wide_a(a, cols), wide_b(b, cols);
    const float *pa = wide_a.data(), *pb = wide_b.data();
    parallel_rows(q.threads, rows, cols, grain, [=](auto io, size_t i, size_t j) {
        io.store(y + i, io.load(x + i) * io.load(pa + j) + io.load(pb + j));
    });
}

static void backward_sums(Queue& q, const float* x, const float* dy, const float* mean,
                          const float* variance, float eps, float* dgamma, float* dbeta,
                          size_t rows, size_t cols) {
    if (cols == 0) return;
    const WideRow wide(mean, cols);
    const float* m = wide.data();
    sum_over_rows<2>(
        q.threads, rows, cols, reinterpret_cast<float*>(q.scratch),
        [=](auto io, size_t i, size_t j, Vec* v) {
            const Vec d = io.load(dy + i);
            v[0] = d * (io.load(x + i) - io.load(m + j));
            v[1] = d;
        },
        [=](size_t k, size_t c, double total) {
            if (k == 0)
                dgamma[c] = float(total * inverse_deviation(variance[c], eps));
            else
                dbeta[c] = float(total);
        });
}

// dx = p dy + (r (x - mean) + s), p, r and s per channel.
static void backward_input(Queue& q, const float* x, const float* dy, const float* mean,
                           const float* variance, const float* gamma, float eps,
                           const float* dgamma, const float* dbeta, float* dx, size_t rows,
                           size_t cols, size_t total_rows) {
    if (cols == 0) return;
    float *p = factors(q, cols, 0), *r = factors(q, cols, 1), *s = factors(q, cols, 2);
    for (size_t c = 0; c < cols; ++c) {
        const double inverse = inverse_deviation(variance[c], eps);
        const double factor = (gamma ? double(gamma[c]) : 1) * inverse;
        p[c] = float(factor);
        if (total_rows == 0) continue;
        r[c] = float(-factor * inverse * double(dgamma[c]) / double(total_rows));
        s[c] = float(-factor * double(dbeta[c]) / double(total_rows));
    }
    const WideRow wide_p(p, cols);
    const float* pp = wide_p.data();
    if (total_rows == 0) {
        parallel_rows(q.threads, rows, cols, grain, [=](auto io, size_t i, size_t j) {
            io.store(dx + i, io.load(dy + i) * io.load(pp + j));
        });
        return;
    }
    const WideRow wide_r(r, cols), wide_s(s, cols), wide_mean(mean, cols);
    const float *pr = wide_r.data(), *ps = wide_s.data(), *pm = wide_mean.data();
    parallel_rows(q.threads, rows, cols, grain, [=](auto io, size_t i, size_t j) {
        const Vec through = (io.load(x + i) - io.load(pm + j)) * io.load(pr + j) + io.load(ps + j);
        io.store(dx + i, io.load(dy + i) * io.load(pp + j) + through);
    });
}

Norm<float> norm() {
    return {.statistics = statistics,
            .normalise = normalise,
            .backward_sums = backward_sums,
            .backward_input = backward_input,
            .scratch = scratch};
}

}  // namespace nc::kernels::NC_ISA
