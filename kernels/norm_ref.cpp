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

template <class F>
void normalise(Queue&, const F* x, const F* mean, const F* variance, const F* gamma, const F* beta,
               F eps, F* y, size_t rows, size_t cols) {
    for (size_t r = 0; r < rows; ++r)
        for (size_t c = 0; c < cols; ++c) {
            const size_t i = r * cols + c;
            const double xhat =
                (double(x[i]) - double(mean[c])) * inverse_deviation(variance[c], eps);
            y[i] = F(xhat * (gamma ? double(gamma[c]) : 1) + (beta ? double(beta[c]) : 0));
        }
}

template <class F>
void backward_sums(Queue&, const F* x, const F* dy, const F* mean, const F* variance, F eps,
                   F* dgamma, F* dbeta, size_t rows, size_t cols) {
    for (size_t c = 0; c < cols; ++c) {
        double with_xhat = 0, plain = 0;
        for (size_t r = 0; r < rows; ++r) {
            const size_t i = r * cols + c;
            with_xhat += double(dy[i]) * (double(x[i]) - double(mean[c]));
            plain += double(dy[i]);
        }
        dgamma[c] = F(with_xhat * inverse_deviation(variance[c], eps));
        dbeta[c] = F(plain);
    }
}

template <class F>
void backward_input(Queue&, const F* x, const F* dy, const F* mean, const F* variance,
                    const F* gamma, F eps, const F* dgamma, const F* dbeta, F* dx, size_t rows,
                    size_t cols, size_t total_rows) {
    for (size_t r = 0; r < rows; ++r)
        for (size_t c = 0; c < cols; ++c) {
            const size_t i = r * cols + c;
            const double inverse = inverse_deviation(variance[c], eps);
            double d = double(dy[i]);
            if (total_rows > 0) {
                const double xhat = (double(x[i]) - double(mean[c])) * inverse;
                d -= (double(dbeta[c]) + xhat * double(dgamma[c])) / double(total_rows);
            }
            dx[i] = F((gamma ? double(gamma[c]) : 1) * inverse * d);
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
