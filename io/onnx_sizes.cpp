// Sizes of ONNX values, what reshapes them, and the table of operations on numbers.
#include <cmath>

#include "io/onnx_constant.h"

namespace nc::onnx {
namespace {

using Dims = std::vector<int64_t>;

Dims reshaped(const NodeProto& node, const Dims& from, const Dims& wanted) {
    const bool zero_is_size = int_attribute(node, "allowzero", 0) != 0;
    Dims dims = wanted;
    size_t open = dims.size();
    for (size_t k = 0; k < dims.size(); ++k) {
        if (dims[k] == 0 && !zero_is_size && k < from.size()) dims[k] = from[k];
        if (dims[k] == -1 && open == dims.size()) open = k;
    }
    const size_t n = elements_of(from);
    if (open < dims.size()) {
        dims[open] = 1;
        const size_t known = elements_of(dims);
        dims[open] = known > 0 ? int64_t(n / known) : 0;
    }
    if (elements_of(dims) != n)
        throw Unsupported{text_of(from) + " cannot become " + text_of(wanted)};
    return dims;
}

Dims squeezed(const Dims& from, const Dims& axes) {
    Dims dims;
    std::vector<bool> drop(from.size());
    for (size_t k = 0; k < drop.size(); ++k) drop[k] = axes.empty() && from[k] == 1;
    for (const int64_t axis : axes) drop[axis_of(axis, drop.size())] = true;
    for (size_t k = 0; k < drop.size(); ++k) {
        if (drop[k] && from[k] != 1) throw Unsupported{"squeezes an axis of " + text_of(from)};
        if (!drop[k]) dims.push_back(from[k]);
    }
    return dims;
}

Dims unsqueezed(const Dims& from, const Dims& axes) {
    Dims dims;
    std::vector<bool> added(from.size() + axes.size());
    for (const int64_t axis : axes) added[axis_of(axis, added.size())] = true;
    size_t at = 0;
    for (const bool one : added) {
        if (!one && at == from.size()) throw Unsupported{"an axis is added twice"};
        dims.push_back(one ? 1 : from[at++]);
    }
    elements_of(dims);
    return dims;
}

Dims flattened(const Dims& from, int64_t axis) {
    // Here the axis may be one past the last.
    const size_t split = axis == int64_t(from.size()) ? from.size() : axis_of(axis, from.size());
    const auto middle = from.begin() + std::ptrdiff_t(split);
    return {int64_t(elements_of(Dims(from.begin(), middle))),
            int64_t(elements_of(Dims(middle, from.end())))};
}

}  // namespace

std::string text_of(const Dims& dims) {
    std::string out = "[";
    for (const int64_t size : dims) out += (out.size() > 1 ? ", " : "") + std::to_string(size);
    return out + "]";
}

size_t elements_of(const Dims& dims) {
    constexpr uint64_t limit = uint64_t(1) << 40;
    uint64_t product = 1, of_those_above_0 = 1;
    if (dims.size() > 8) throw Unsupported{std::to_string(dims.size()) + " axes are too many"};
    for (const int64_t size : dims) {
        if (size < 0) throw Unsupported{"a negative size: " + text_of(dims)};
        const uint64_t factor = size > 0 ? uint64_t(size) : 1;
        if (factor >= limit / of_those_above_0)
            throw Unsupported{"too many elements: " + text_of(dims)};
        of_those_above_0 *= factor;
        product *= uint64_t(size);
    }
    return product;
}

size_t axis_of(int64_t axis, size_t rank) {
    const int64_t from_start = axis < 0 ? axis + int64_t(rank) : axis;
    if (from_start < 0 || from_start >= int64_t(rank))
        throw Unsupported{"axis " + std::to_string(axis) + " of " + std::to_string(rank)};
    return size_t(from_start);
}

bool is_view(const std::string& op) {
    return op == "Reshape" || op == "Flatten" || op == "Squeeze" || op == "Unsqueeze";
}

Dims viewed(const NodeProto& node, const Dims& dims, const Constant* second) {
    if (second && second->dims.size() > 1) throw Unsupported{"sizes that are no list"};
    if (second && !second->integer()) throw Unsupported{"sizes that are no integers"};
    // An input since opset 5 or 13, before that an attribute.
    const auto list = [&](const char* name) {
        return second ? second->ints : ints_attribute(node, name);
    };
    if (node.op_type() == "Reshape") return reshaped(node, dims, list("shape"));
    if (node.op_type() == "Flatten") return flattened(dims, int_attribute(node, "axis", 1));
    if (node.op_type() == "Squeeze") return squeezed(dims, list("axes"));
    return unsqueezed(dims, list("axes"));
}

Unary unary(const std::string& op) {
    if (op == "Neg") return [](double x) { return -x; };
    if (op == "Abs") return [](double x) { return std::fabs(x); };
    if (op == "Sqrt") return [](double x) { return std::sqrt(x); };
    if (op == "Floor") return [](double x) { return std::floor(x); };
    if (op == "Ceil") return [](double x) { return std::ceil(x); };
    if (op == "Exp") return [](double x) { return std::exp(x); };
    if (op == "Erf") return [](double x) { return std::erf(x); };
    if (op == "Tanh") return [](double x) { return std::tanh(x); };
    if (op == "Sigmoid") return [](double x) { return 1 / (1 + std::exp(-x)); };
    if (op == "Reciprocal") return [](double x) { return 1 / x; };
    return nullptr;
}

Binary binary(const std::string& op) {
    if (op == "Add") return [](double a, double b) { return a + b; };
    if (op == "Sub") return [](double a, double b) { return a - b; };
    if (op == "Mul") return [](double a, double b) { return a * b; };
    if (op == "Div") return [](double a, double b) { return a / b; };
    if (op == "Pow") return [](double a, double b) { return std::pow(a, b); };
    if (op == "Min") return [](double a, double b) { return std::min(a, b); };
    if (op == "Max") return [](double a, double b) { return std::max(a, b); };
    if (op == "Equal") return [](double a, double b) { return double(a == b); };
    if (op == "Greater") return [](double a, double b) { return double(a > b); };
    if (op == "Less") return [](double a, double b) { return double(a < b); };
    return nullptr;
}

}  // namespace nc::onnx
