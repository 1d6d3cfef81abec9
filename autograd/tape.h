// Reverse-mode differentiation on a tape: nodes in execution order, walked in reverse without
// recursion.
#pragma once

#include <functional>
#include <initializer_list>
#include <vector>

#include "engine/compute.h"

namespace nc {

// A tensor and its place on a tape; id < 0: a constant.
struct Var {
    Tensor value;
    int id = -1;
    Var() = default;
    Var(Tensor constant) : value(std::move(constant)) {}
    Var(Tensor v, int tape_id) : value(std::move(v)), id(tape_id) {}
    bool tracked() const { return id >= 0; }
    const Shape& shape() const { return value.shape(); }
    Var place() const { return Var({}, id); }  // what a closure keeps that needs no value
};

// Holds closures and what they captured, nothing else: a value no closure kept is freed when its
// Var goes. backward() frees each node, and the gradient that reached it, as soon as it has run.
class Tape {
 public:
    // Receives dL/d(output) and calls tape.accumulate for its inputs.
    using Backward = std::function<void(Tape&, const Tensor& dy)>;

    explicit Tape(Compute& compute) : compute_(compute) {}
    Compute& compute() { return compute_; }

    Var leaf(const Tensor& value);  // gradient kept for gradient()
    Var record(Tensor value, Backward backward);
    // A value of this shape that nobody holds as floats (packed spikes): a place for its gradient.
    Var record(const Shape& shape, Backward backward);

    // Ignores constants; takes the first gradient of an input, adds the others to it, in place
    // where the tape alone holds it.
    void accumulate(const Var& input, Tensor gradient);
    void backward(const Var& loss);          // a one-element loss; once per tape
    Tensor gradient(const Var& leaf) const;  // undefined when nothing reached it

 private:
    struct Entry {
        Backward backward;  // empty: leaf, or already run
        Shape shape;
        Tensor gradient;
        bool leaf = false;
    };
    Var push(const Shape& shape, Backward backward, bool leaf);
    size_t index(const Var& v) const;  // Error when it is not on this tape

    Compute& compute_;
    std::vector<Entry> entries_;
    bool walked_ = false;
};

// Whether a function of these inputs is to be recorded.
bool recording(const Tape* tape, std::initializer_list<const Var*> inputs);

}  // namespace nc
