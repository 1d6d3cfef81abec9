// The tape: records closures, and walks them in reverse.
#include "autograd/tape.h"

#include <algorithm>
#include <utility>

#include "engine/ops.h"

namespace nc {
namespace {

[[noreturn]] void refuse(const std::string& what) {
    throw Error("[tape] " + what);
}

}  // namespace

Var Tape::push(const Shape& shape, Backward backward, bool leaf) {
    if (walked_) refuse("recording after backward(): a tape is walked once");
    entries_.push_back({std::move(backward), shape, {}, leaf});
    return Var({}, int(entries_.size() - 1));
}

Var Tape::leaf(const Tensor& value) {
    if (!value.defined()) refuse("a leaf without a value");
    Var v = push(value.shape(), nullptr, true);
    v.value = value;
    return v;
}

Var Tape::record(Tensor value, Backward backward) {
    if (!value.defined()) refuse("a recorded result without a value");
    Var v = push(value.shape(), std::move(backward), false);
    v.value = std::move(value);
    return v;
}

Var Tape::record(const Shape& shape, Backward backward) {
    return push(shape, std::move(backward), false);
}

size_t Tape::index(const Var& v) const {
    if (!v.tracked() || size_t(v.id) >= entries_.size())
        refuse("a value that is not on this tape: id " + std::to_string(v.id) + " of " +
               std::to_string(entries_.size()));
    return size_t(v.id);
}

void Tape::accumulate(const Var& input, Tensor gradient) {
    if (!input.tracked()) return;
    Entry& entry = entries_[index(input)];
    if (!gradient.defined() || !(gradient.shape() == entry.shape))
        refuse("a gradient " + (gradient.defined() ? gradient.shape().str() : "undefined") +
               " for a value " + entry.shape.str());
    if (!entry.gradient.defined())
        entry.gradient = std::move(gradient);
    else if (entry.gradient.exclusive())
        ops::add_into(compute_, entry.gradient, gradient);
    else
        entry.gradient = ops::add(compute_, entry.gradient, gradient);
}

void Tape::backward(const Var& loss) {
    if (walked_) refuse("backward() a second time: a tape is walked once");
    const size_t last = index(loss);
    if (loss.value.elements() != 1)
        refuse("backward() of a loss that is not one element: " +
               (loss.value.defined() ? loss.value.shape().str() : "undefined"));
    walked_ = true;
    entries_[last].gradient = ops::full(compute_, loss.shape(), loss.value.dtype(), 1);
    for (size_t i = entries_.size(); i-- > 0;) {
        if (entries_[i].leaf) continue;
        // Both die at the end of this turn, with what the closure kept.
        const Backward run = std::exchange(entries_[i].backward, nullptr);
        const Tensor dy = std::exchange(entries_[i].gradient, Tensor());
        if (dy.defined()) run(*this, dy);
    }
}

Tensor Tape::gradient(const Var& leaf) const {
    const Entry& entry = entries_[index(leaf)];
    if (!entry.leaf) refuse("gradient() of a value that is not a leaf");
    if (!walked_) refuse("gradient() before backward()");
    return entry.gradient;
}

bool recording(const Tape* tape, std::initializer_list<const Var*> inputs) {
    return tape != nullptr &&
           std::any_of(inputs.begin(), inputs.end(), [](const Var* v) { return v->tracked(); });
}

}  // namespace nc
