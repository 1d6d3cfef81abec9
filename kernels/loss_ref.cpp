// The definition of the loss family: softmax and cross-entropy in double.
#include <cmath>

#include "kernels/families.h"

namespace nc::kernels {
namespace {

// max over the row, and the sum of exp(z - max).
template <class F>
void row_scale(const F* z, size_t cols, double* top, double* sum) {
    *top = double(z[0]);
    for (size_t c = 1; c < cols; ++c)
        if (double(z[c]) > *top) *top = double(z[c]);
    *sum = 0;
    for (size_t c = 0; c < cols; ++c) *sum += std::exp(double(z[c]) - *top);
}

template <class F>
void softmax(Queue&, const F* logits, F* probabilities, size_t rows, size_t cols) {
    for (size_t r = 0; r < rows && cols > 0; ++r) {
        const F* z = logits + r * cols;
        double top, sum;
        row_scale(z, cols, &top, &sum);
        for (size_t c = 0; c < cols; ++c)
            probabilities[r * cols + c] = F(std::exp(double(z[c]) - top) / sum);
    }
}

template <class F>
void cross_entropy(Queue&, const F* logits, const F* targets, F* loss, F* dlogits, size_t rows,
                   size_t cols) {
    for (size_t r = 0; r < rows && cols > 0; ++r) {
        const F* z = logits + r * cols;
        double top, sum;
        row_scale(z, cols, &top, &sum);
        const double log_sum = top + std::log(sum);
        double total = 0;
        for (size_t c = 0; c < cols; ++c) {
            const double target = double(targets[r * cols + c]);
            if (target != 0) total += target * (log_sum - double(z[c]));
            if (dlogits != nullptr)
                dlogits[r * cols + c] =
                    F((std::exp(double(z[c]) - top) / sum - target) / double(rows));
        }
        loss[r] = F(total);
    }
}

}  // namespace

template <class F>
Loss<F> reference_loss() {
    return {.softmax = softmax<F>, .cross_entropy = cross_entropy<F>};
}

template Loss<float> reference_loss<float>();
template Loss<double> reference_loss<double>();

}  // namespace nc::kernels
