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

// Rows [cols] of per-channel factors at the start of scratch; the sums come after them.
static inline float* factors(Queue& q, size_t cols, size_t which) {
    return reinterpret_cast<float*>(q.scratch) + which * cols;
}
constexpr static size_t factor_rows = 5;

static size_t scratch(size_t rows, size_t cols) {
    return factor_rows * cols * sizeof(float) + row_sums_scratch(rows, cols, 2);
}

// y = x * a + b of a matrix [rows, cols], a and b [cols] made in the first two factor rows.
class Affine {
 public:
    Affine(Queue& q, const float* x, const float* mean, const float* variance, const float* gamma,
           const float* beta, float eps, size_t cols)
        : x_(x),
          a_(fill(q, mean, variance, gamma, beta, eps, cols), cols),
          b_(factors(q, cols, 1), cols) {}

    // y of vector i, at j in the wide row.
    auto y() const {
        return [x = x_, a = a_.data(), b = b_.data()](auto io, size_t i, size_t j) {
            return io.load(x + i) * io.load(a + j) + io.load(b + j);
        };
    }

 private:
    static const float* fill(Queue& q, const float* mean, const float* variance, const float* gamma,
                             const float* beta, float eps, size_t cols) {
        float *a = factors(q, cols, 0), *b = factors(q, cols, 1);
        for (size_t c = 0; c < cols; ++c) {
            a[c] = float((gamma ? double(gamma[c]) : 1) * inverse_deviation(variance[c], eps));
            b[c] = float((beta ? double(beta[c]) : 0) - double(mean[c]) * double(a[c]));
        }
        return a;
    }

    const float* x_;
    WideRow a_, b_;
};

// run(dy), or with relu run(dy where y > 0), each a function of (io, i, j).
template <class Run>
static inline void with_slope(const Affine& affine, const float* dy, bool relu, Run run) {
    if (relu)
        run([y = affine.y(), dy](auto io, size_t i, size_t j) {
            return select(y(io, i, j) <= broadcast(0), broadcast(0), io.load(dy + i));
        });
    else
        run([dy](auto io, size_t i, size_t) { return io.load(dy + i); });
}

static void normalise(Queue& q, const float* x, const float* mean, const float* variance,
                      const float* gamma, const float* beta, float eps, bool relu, float* out,
                      size_t rows, size_t cols) {
    if (cols == 0) return;
    const Affine affine(q, x, mean, variance, gamma, beta, eps, cols);
    const auto y = affine.y();
    if (relu)
        parallel_rows(q.threads, rows, cols, grain, [=](auto io, size_t i, size_t j) {
            const Vec v = y(io, i, j);
            io.store(out + i, select(v <= broadcast(0), broadcast(0), v));
        });
    else
        parallel_rows(q.threads, rows, cols, grain,
                      [=](auto io, size_t i, size_t j) { io.store(out + i, y(io, i, j)); });
}

static void backward_sums(Queue& q, const float* x, const float* dy, const float* mean,
                          const float* variance, const float* gamma, const float* beta, float eps,
                          bool relu, float* dgamma, float* dbeta, size_t rows, size_t cols) {
    if (cols == 0) return;
    const Affine affine(q, x, mean, variance, gamma, beta, eps, cols);
    const WideRow wide(mean, cols);
    const float* m = wide.data();
    with_slope(affine, dy, relu, [&](auto slope) {
        sum_over_rows<2>(
            q.threads, rows, cols, factors(q, cols, factor_rows),
            [=](auto io, size_t i, size_t j, Vec* v) {
                const Vec d = slope(io, i, j);
                v[0] = d * (io.load(x + i) - io.load(m + j));
                v[1] = d;
            },
            [=](size_t k, size_t c, double total) {
                if (k == 0)
                    dgamma[c] = float(total * inverse_deviation(variance[c], eps));
                else
                    dbeta[c] = float(total);
            });
    });
}

// dx = p dy + (r (x - mean) + s), p, r and s per channel.
static void backward_input(Queue& q, const float* x, const float* dy, const float* mean,
                           const float* variance, const float* gamma, const float* beta, float eps,
                           bool relu, const float* dgamma, const float* dbeta, float* dx,
                           size_t rows, size_t cols, size_t total_rows) {
    if (cols == 0) return;
    const Affine affine(q, x, mean, variance, gamma, beta, eps, cols);
    float *p = factors(q, cols, 2), *r = factors(q, cols, 3), *s = factors(q, cols, 4);
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
        with_slope(affine, dy, relu, [&](auto slope) {
            parallel_rows(q.threads, rows, cols, grain, [=](auto io, size_t i, size_t j) {
                io.store(dx + i, slope(io, i, j) * io.load(pp + j));
            });
        });
        return;
    }
    const WideRow wide_r(r, cols), wide_s(s, cols), wide_mean(mean, cols);
    const float *pr = wide_r.data(), *ps = wide_s.data(), *pm = wide_mean.data();
    with_slope(affine, dy, relu, [&](auto slope) {
        parallel_rows(q.threads, rows, cols, grain, [=](auto io, size_t i, size_t j) {
            const Vec through =
                (io.load(x + i) - io.load(pm + j)) * io.load(pr + j) + io.load(ps + j);
            io.store(dx + i, slope(io, i, j) * io.load(pp + j) + through);
        });
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
