// Gradients against finite differences in double.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "autograd/tape.h"

namespace nc {

// A differentiable function of several f64 inputs, which it receives in order.
using Function = std::function<Var(Compute&, Tape*, const std::vector<Var>&)>;

struct GradientCheck {
    double error = 0;   // largest |tape - difference| / max(1, |difference|)
    std::string where;  // "input 1 at 3: tape 0.5, difference 0.25"
};

// The loss is the sum of the function's outputs under fixed weights of both signs. Each element's
// derivative is the four-point central difference of step h, whose own error is h^4 / 30 times the
// fifth derivative plus rounding of about 1e-16 |loss| / h: near 1e-11 for functions of scale 1 at
// h = 1e-3. Inputs must keep 2 h away from kinks.
GradientCheck check_gradient(Compute&, const Function&, const std::vector<Tensor>& inputs,
                             double h = 1e-3);

}  // namespace nc
