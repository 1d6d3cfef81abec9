// Gradients against four-point central differences.
#include "autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "autograd/functions.h"

namespace nc {
namespace {

// Weights that no symmetry of a function hides behind: fractions of multiples of the golden ratio.
Tensor weights(const Shape& shape) {
    Tensor out(shape, DType::f64);
    for (size_t i = 0; i < out.elements(); ++i) {
        const double turn = 0.6180339887498949 * double(i + 1);
        out.data<double>()[i] = 2 * (turn - std::floor(turn)) - 1;
    }
    return out;
}

Var loss_of(Compute& compute, Tape* tape, const Function& function,
            const std::vector<Var>& inputs) {
    const Var y = function(compute, tape, inputs);
    return fn::sum(compute, tape, fn::mul(compute, tape, y, weights(y.shape())));
}

}  // namespace

GradientCheck check_gradient(Compute& compute, const Function& function,
                             const std::vector<Tensor>& inputs, double h) {
    Tape tape(compute);
    std::vector<Var> leaves;
    for (const Tensor& input : inputs) leaves.push_back(tape.leaf(input));
    tape.backward(loss_of(compute, &tape, function, leaves));

    GradientCheck out;
    for (size_t i = 0; i < inputs.size(); ++i) {
        const Tensor gradient = tape.gradient(leaves[i]);
        for (size_t j = 0; j < inputs[i].elements(); ++j) {
            const auto loss_at = [&](double step) {
                std::vector<Var> moved(inputs.begin(), inputs.end());
                moved[i].value = inputs[i].clone();
                moved[i].value.data<double>()[j] += step;
                return loss_of(compute, nullptr, function, moved).value.item();
            };
            const double difference =
                (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h);
            const double found = gradient.defined() ? gradient.data<double>()[j] : 0.0;
            const double error = std::abs(found - difference) / std::max(1.0, std::abs(difference));
            if (std::isnan(out.error) || error <= out.error) continue;  // a NaN stays
            out.error = error;
            out.where = "input " + std::to_string(i) + " at " + std::to_string(j) + ": tape " +
                        std::to_string(found) + ", difference " + std::to_string(difference);
        }
    }
    return out;
}

}  // namespace nc
