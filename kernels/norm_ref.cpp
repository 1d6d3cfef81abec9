// The definition of the norm family: batch normalisation in double.
#include <cmath>

#include "kernels/families.h"

namespace nc::kernels {
namespace {

template <class F>
void statistics(Queue&, const F* x, F* mean, F* variance, size_t rows, size_t cols) {
    for (size_t c = 0; c < cols; ++c) {
        double sum = 0, squares = 0;
        for (size_t r = 0; r < rows; ++r) sum += double(x[r * cols + c]);
        const double m = rows > 0 ? sum / double(rows) : 0;
        for (size_t r = 0; r < rows; ++r) {
            const double d = double(x[r * cols + c]) - m;
            squares += d * d;
        }
        mean[c] = F(m);
        variance[c] = F(rows > 0 ? squares / double(rows) : 0);
    }
}

template <class F>
double inverse_deviation(F variance, F eps) {
    return 1 / std::sqrt(double(variance) + double(eps));
}

// One channel's factors.
struct Channel {
    double mean, inverse, gamma, beta;
};
template <class F>
Channel channel(size_t c, const F* mean, const F* variance, const F* gamma, const F* beta, F eps) {
    return {double(mean[c]), inverse_deviation(variance[c], eps), gamma ? double(gamma[c]) : 1,
            beta ? double(beta[c]) : 0};
}
template <class F>
F normal(F x, const Channel& c) {
    return F((double(x) - c.mean) * c.inverse * c.gamma + c.beta);
}

template <class F>
void normalise(Queue&, const F* x, const F* mean, const F* variance, const F* gamma, const F* beta,
               F eps, bool relu, F* y, size_t rows, size_t cols) {
    for (size_t r = 0; r < rows; ++r)
        for (size_t c = 0; c < cols; ++c) {
            const size_t i = r * cols + c;
            y[i] = normal(x[i], channel(c, mean, variance, gamma, beta, eps));
            if (relu && y[i] <= 0) y[i] = 0;
        }
}

template <class F>
void backward_sums(Queue&, const F* x, const F* dy, const F* mean, const F* variance,
                   const F* gamma, const F* beta, F eps, bool relu, F* dgamma, F* dbeta,
                   size_t rows, size_t cols) {
    for (size_t c = 0; c < cols; ++c) {
        const Channel k = channel(c, mean, variance, gamma, beta, eps);
        double with_xhat = 0, plain = 0;
        for (size_t r = 0; r < rows; ++r) {
            const size_t i = r * cols + c;
            if (relu && normal(x[i], k) <= 0) continue;
            with_xhat += double(dy[i]) * (double(x[i]) - k.mean);
            plain += double(dy[i]);
        }
        dgamma[c] = F(with_xhat * k.inverse);
        dbeta[c] = F(plain);
    }
}

template <class F>
void backward_input(Queue&, const F* x, const F* dy, const F* mean, const F* variance,
                    const F* gamma, const F* beta, F eps, bool relu, const F* dgamma,
                    const F* dbeta, F* dx, size_t rows, size_t cols, size_t total_rows) {
    for (size_t r = 0; r < rows; ++r)
        for (size_t c = 0; c < cols; ++c) {
            const size_t i = r * cols + c;
            const Channel k = channel(c, mean, variance, gamma, beta, eps);
            double d = relu && normal(x[i], k) <= 0 ? 0 : double(dy[i]);
            if (total_rows > 0) {
                const double xhat = (double(x[i]) - k.mean) * k.inverse;
                d -= (double(dbeta[c]) + xhat * double(dgamma[c])) / double(total_rows);
            }
            dx[i] = F(k.gamma * k.inverse * d);
        }
}

size_t no_scratch(size_t, size_t) {
    return 0;
}

}  // namespace

template <class F>
Norm<F> reference_norm() {
    return {.statistics = statistics<F>,
            .normalise = normalise<F>,
            .backward_sums = backward_sums<F>,
            .backward_input = backward_input<F>,
            .scratch = no_scratch};
}

template Norm<float> reference_norm<float>();
template Norm<double> reference_norm<double>();

}  // namespace nc::kernels
