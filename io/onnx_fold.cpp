// Constant folding: what exporters compute at run time from sizes and weights alone.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "io/onnx_constant.h"

namespace nc::onnx {
namespace {

using Dims = std::vector<int64_t>;
using Inputs = std::vector<ConstantPtr>;

const Constant& need(const Inputs& inputs, size_t i) {
    if (i >= inputs.size() || !inputs[i])
        throw Unsupported{"input " + std::to_string(i) + " is missing"};
    return *inputs[i];
}

const Constant* given(const Inputs& inputs, size_t i) {
    return i < inputs.size() ? inputs[i].get() : nullptr;
}

// An empty result of these sizes whose elements are then taken, one by one, from elsewhere.
Constant sized(Dims dims, int type, Budget& budget) {
    Constant out;
    out.dims = std::move(dims);
    out.type = type;
    const size_t n = elements_of(out.dims);
    budget.spend(out.integer() ? 2 * n : n);
    if (out.integer())
        out.ints.resize(n);
    else
        out.floats.resize(n);
    return out;
}

void copy_element(Constant& to, size_t i, const Constant& from, size_t j) {
    if (to.integer())
        to.ints[i] = from.ints[j];
    else
        to.floats[i] = from.floats[j];
}

Dims strides_of(const Dims& dims) {
    Dims out(dims.size(), 1);
    for (size_t k = dims.size(); k-- > 1;) out[k - 1] = out[k] * std::max<int64_t>(dims[k], 1);
    return out;
}

// visit(output element, offset) for each element of `dims` in order, where the offset is start plus
// the sum of index times step: any strided view.
void walk(const Dims& dims, int64_t start, const Dims& steps,
          const std::function<void(size_t, size_t)>& visit) {
    const size_t n = elements_of(dims);
    Dims index(dims.size(), 0);
    int64_t at = start;
    for (size_t i = 0; i < n; ++i) {
        visit(i, size_t(at));
        for (size_t k = dims.size(); k-- > 0;) {
            at += steps[k];
            if (++index[k] < dims[k]) break;
            at -= steps[k] * dims[k];
            index[k] = 0;
        }
    }
}

Constant view(const Constant& x, Dims dims, int64_t start, const Dims& steps, Budget& budget) {
    Constant out = sized(std::move(dims), x.type, budget);
    walk(out.dims, start, steps, [&](size_t i, size_t from) { copy_element(out, i, x, from); });
    return out;
}

Dims broadcast(const Dims& a, const Dims& b) {
    Dims out(std::max(a.size(), b.size()), 1);
    for (size_t k = 0; k < out.size(); ++k) {
        const int64_t x = k < a.size() ? a[a.size() - 1 - k] : 1;
        const int64_t y = k < b.size() ? b[b.size() - 1 - k] : 1;
        if (x != y && x != 1 && y != 1)
            throw Unsupported{"sizes " + text_of(a) + " and " + text_of(b) + " do not go together"};
        out[out.size() - 1 - k] = x == 1 ? y : x;
    }
    return out;
}

Constant expand(const Constant& x, const Dims& dims, Budget& budget) {
    const Dims out = broadcast(x.dims, dims), strides = strides_of(x.dims);
    Dims steps(out.size(), 0);
    for (size_t k = 0; k < x.dims.size(); ++k)
        if (x.dims[k] != 1) steps[out.size() - x.dims.size() + k] = strides[k];
    return view(x, out, 0, steps, budget);
}

Constant cast(const Constant& x, int type, Budget& budget) {
    Constant out = sized(x.dims, type, budget);
    for (size_t i = 0; i < x.size(); ++i) {
        if (!out.integer())
            out.floats[i] = float(x.at(i));
        else if (type == boolean)
            out.ints[i] = x.at(i) != 0;
        else if (x.integer())
            out.ints[i] = x.ints[i];
        else if (std::abs(x.floats[i]) < 9e18f)
            out.ints[i] = int64_t(x.floats[i]);
        else
            throw Unsupported{"a number too large for an integer"};
    }
    return out;
}

int64_t integer_result(const std::string& op, int64_t a, int64_t b) {
    // In unsigned arithmetic, where overflow wraps.
    if (op == "Add") return int64_t(uint64_t(a) + uint64_t(b));
    if (op == "Sub") return int64_t(uint64_t(a) - uint64_t(b));
    if (op == "Mul") return int64_t(uint64_t(a) * uint64_t(b));
    if (op == "Div") {
        if (b == 0 || (b == -1 && a == std::numeric_limits<int64_t>::min()))
            throw Unsupported{"division of " + std::to_string(a) + " by " + std::to_string(b)};
        return a / b;
    }
    if (op == "Min") return std::min(a, b);
    if (op == "Max") return std::max(a, b);
    if (op == "Equal") return a == b;
    if (op == "Greater") return a > b;
    if (op == "Less") return a < b;
    throw Unsupported{"not supported on integers"};
}

Constant arithmetic(const std::string& op, const Constant& a, const Constant& b, Budget& budget) {
    const Dims dims = broadcast(a.dims, b.dims);
    const Constant x = expand(a, dims, budget), y = expand(b, dims, budget);
    const bool compare = op == "Equal" || op == "Greater" || op == "Less";
    Constant out = sized(dims, compare ? int(boolean) : a.type, budget);
    const Binary f = binary(op);
    for (size_t i = 0; i < out.size(); ++i) {
        if (a.integer() && b.integer())
            out.ints[i] = integer_result(op, x.ints[i], y.ints[i]);
        else if (out.integer())
            out.ints[i] = f(x.at(i), y.at(i)) != 0;
        else
            out.floats[i] = float(f(x.at(i), y.at(i)));
    }
    return out;
}

Constant with_dims(const Constant& x, Dims dims, Budget& budget) {
    budget.spend(x.integer() ? 2 * x.size() : x.size());
    Constant out = x;
    out.dims = std::move(dims);
    return out;
}

Constant transpose(const Constant& x, Dims axes, Budget& budget) {
    if (axes.empty())
        for (size_t k = x.dims.size(); k-- > 0;) axes.push_back(int64_t(k));
    if (axes.size() != x.dims.size()) throw Unsupported{"transposes other axes than it has"};
    const Dims strides = strides_of(x.dims);
    Dims dims, steps;
    std::vector<bool> seen(axes.size());
    for (const int64_t axis : axes) {
        const size_t k = axis_of(axis, axes.size());
        if (seen[k]) throw Unsupported{"transposes an axis twice"};
        seen[k] = true;
        dims.push_back(x.dims[k]);
        steps.push_back(strides[k]);
    }
    return view(x, dims, 0, steps, budget);
}

Constant concat(const Inputs& inputs, int64_t wanted_axis, Budget& budget) {
    const Constant& first = need(inputs, 0);
    const size_t axis = axis_of(wanted_axis, first.dims.size());
    Dims dims = first.dims;
    dims[axis] = 0;
    size_t outer = 1;
    for (size_t k = 0; k < axis; ++k) outer *= size_t(dims[k]);
    for (size_t i = 0; i < inputs.size(); ++i) {
        const Constant& x = need(inputs, i);
        if (x.dims.size() != dims.size() || x.integer() != first.integer())
            throw Unsupported{"puts unlike things together"};
        for (size_t k = 0; k < dims.size(); ++k)
            if (k != axis && x.dims[k] != dims[k])
                throw Unsupported{"puts " + text_of(first.dims) + " and " + text_of(x.dims) +
                                  " together"};
        dims[axis] += x.dims[axis];
        elements_of(dims);
    }
    Constant out = sized(dims, first.type, budget);
    size_t at = 0;
    for (size_t o = 0; o < outer; ++o)
        for (const ConstantPtr& x : inputs) {
            const size_t run = x->size() / outer;
            for (size_t i = 0; i < run; ++i) copy_element(out, at++, *x, o * run + i);
        }
    return out;
}

Constant gather(const Constant& x, const Constant& indices, int64_t wanted_axis, Budget& budget) {
    const size_t axis = axis_of(wanted_axis, x.dims.size());
    size_t inner = 1, outer = 1;
    Dims dims(x.dims.begin(), x.dims.begin() + std::ptrdiff_t(axis));
    for (const int64_t size : dims) outer *= size_t(size);
    dims.insert(dims.end(), indices.dims.begin(), indices.dims.end());
    for (size_t k = axis + 1; k < x.dims.size(); ++k) {
        dims.push_back(x.dims[k]);
        inner *= size_t(x.dims[k]);
    }
    Constant out = sized(dims, x.type, budget);
    const int64_t size = x.dims[axis];
    size_t at = 0;
    if (out.size() == 0) return out;
    for (size_t o = 0; o < outer; ++o)
        for (const int64_t index : indices.ints) {
            const int64_t i = index < 0 ? index + size : index;
            if (i < 0 || i >= size)
                throw Unsupported{"index " + std::to_string(index) + " of " + std::to_string(size)};
            for (size_t k = 0; k < inner; ++k)
                copy_element(out, at++, x, (o * size_t(size) + size_t(i)) * inner + k);
        }
    return out;
}

Constant slice(const NodeProto& node, const Inputs& inputs, Budget& budget) {
    const Constant& x = need(inputs, 0);
    const auto list = [&](size_t i, const char* name) {
        const Constant* c = given(inputs, i);
        return c ? c->ints : ints_attribute(node, name);
    };
    const Dims starts = list(1, "starts"), ends = list(2, "ends");
    Dims axes = list(3, "axes"), steps = list(4, "steps");
    for (size_t k = axes.size(); k < starts.size(); ++k) axes.push_back(int64_t(k));
    steps.resize(starts.size(), 1);
    if (ends.size() != starts.size() || axes.size() != starts.size())
        throw Unsupported{"starts and ends differ in number"};
    Dims dims = x.dims, moves = strides_of(x.dims);
    int64_t start = 0;
    for (size_t k = 0; k < starts.size(); ++k) {
        const size_t axis = axis_of(axes[k], dims.size());
        const int64_t size = dims[axis], step = steps[k];
        if (step == 0 || step < -size - 1 || step > size + 1) throw Unsupported{"a step too wide"};
        const auto within = [&](int64_t value, int64_t low, int64_t high) {
            return std::clamp(value < 0 ? value + size : value, low, high);
        };
        // Far-off ends are written as the largest and smallest integers.
        const int64_t from =
            step > 0 ? within(starts[k], 0, size) : within(starts[k], -1, size - 1);
        const int64_t to = step > 0 ? within(ends[k], 0, size) : within(ends[k], -1, size - 1);
        const int64_t count =
            step > 0 ? (to - from + step - 1) / step : (to - from + step + 1) / step;
        dims[axis] = std::max<int64_t>(count, 0);
        start += from * moves[axis];
        moves[axis] *= step;
    }
    return view(x, dims, elements_of(dims) > 0 ? start : 0, moves, budget);
}

double round_to_even(double x) {
    return std::nearbyint(x);
}

// y = clip(round(x / scale) + zero point), and back; scale and zero point per tensor or per axis.
Constant quantized(const NodeProto& node, const Inputs& inputs, bool back, Budget& budget) {
    const Constant& x = need(inputs, 0);
    const Constant& scale = need(inputs, 1);
    const Constant* zero = given(inputs, 2);
    if (scale.integer() || (zero && (!zero->integer() || zero->size() != scale.size())))
        throw Unsupported{"the scale and the zero point do not go together"};
    const int type = back ? int(float32) : zero ? zero->type : int(uint8);
    size_t inner = 1, channels = 1;
    if (scale.size() != 1) {
        const size_t axis = axis_of(int_attribute(node, "axis", 1), x.dims.size());
        channels = size_t(x.dims[axis]);
        for (size_t k = axis + 1; k < x.dims.size(); ++k) inner *= size_t(x.dims[k]);
        if (scale.size() != channels)
            throw Unsupported{"scales " + text_of(scale.dims) + " for values " + text_of(x.dims)};
    }
    const bool is_signed = type == int8 || type == int16;
    const double top = type == int8 || type == uint8 ? 256 : 65536;
    const double low = is_signed ? -top / 2 : 0, high = low + top - 1;
    if (!back && type != int8 && type != uint8 && type != int16 && type != uint16)
        throw Unsupported{"quantises to something else than 8 or 16 bits"};
    Constant out = sized(x.dims, type, budget);
    for (size_t i = 0; i < x.size(); ++i) {
        const size_t c = i / inner % channels;
        const double z = zero ? double(zero->ints[c]) : 0;
        if (back)
            out.floats[i] = float(x.at(i) - z) * scale.floats[c];
        else
            out.ints[i] = int64_t(
                std::clamp(round_to_even(double(float(x.at(i)) / scale.floats[c])) + z, low, high));
    }
    return out;
}

Constant constant_node(const NodeProto& node, Tensors& tensors) {
    if (const auto* a = find_attribute(node, "value")) return *tensors.decode(a->t());
    Constant out;
    if (const auto* f = find_attribute(node, "value_float")) {
        out.floats = {f->f()};
    } else if (const auto* fs = find_attribute(node, "value_floats")) {
        out.floats.assign(fs->floats().begin(), fs->floats().end());
        out.dims = {int64_t(out.floats.size())};
    } else if (const auto* i = find_attribute(node, "value_int")) {
        out.type = int64;
        out.ints = {i->i()};
    } else if (const auto* is = find_attribute(node, "value_ints")) {
        out.type = int64;
        out.ints.assign(is->ints().begin(), is->ints().end());
        out.dims = {int64_t(out.ints.size())};
    } else {
        throw Unsupported{"a constant that is neither numbers nor a tensor"};
    }
    return out;
}

Constant constant_of_shape(const NodeProto& node, const Inputs& inputs, Tensors& tensors,
                           Budget& budget) {
    Constant value;
    value.floats = {0};
    if (const auto* a = find_attribute(node, "value")) value = *tensors.decode(a->t());
    if (value.size() != 1) throw Unsupported{"fills with more than one value"};
    value.dims.clear();
    const Constant& dims = need(inputs, 0);
    if (!dims.integer()) throw Unsupported{"sizes that are no integers"};
    return expand(value, dims.ints, budget);
}

Constant shape_of(const NodeProto& node, const Dims& dims) {
    const int64_t rank = int64_t(dims.size());
    const auto within = [&](int64_t value) {
        return std::clamp<int64_t>(value < 0 ? value + rank : value, 0, rank);
    };
    const int64_t from = within(int_attribute(node, "start", 0));
    const int64_t to = within(int_attribute(node, "end", rank));
    Constant out;
    out.type = int64;
    for (int64_t k = from; k < to; ++k) out.ints.push_back(dims[size_t(k)]);
    out.dims = {int64_t(out.ints.size())};
    return out;
}

Constant product(const Constant& x) {
    if (!x.integer()) throw Unsupported{"a product of numbers that are no sizes"};
    Constant out;
    out.type = x.type;
    uint64_t value = 1;
    for (const int64_t i : x.ints) value *= uint64_t(i);
    out.ints = {int64_t(value)};
    return out;
}

Constant select(const Inputs& inputs, Budget& budget) {
    const Constant &which = need(inputs, 0), &yes = need(inputs, 1), &no = need(inputs, 2);
    const Dims dims = broadcast(which.dims, broadcast(yes.dims, no.dims));
    const Constant w = expand(which, dims, budget), a = expand(yes, dims, budget),
                   b = expand(no, dims, budget);
    if (!w.integer() || a.integer() != b.integer())
        throw Unsupported{"chooses between unlike things"};
    Constant out = a;
    for (size_t i = 0; i < out.size(); ++i)
        if (!w.ints[i]) copy_element(out, i, b, i);
    return out;
}

Constant mapped(const Constant& x, Unary f, Budget& budget) {
    Constant out = sized(x.dims, x.type, budget);
    for (size_t i = 0; i < x.size(); ++i) {
        if (!out.integer())
            out.floats[i] = float(f(x.at(i)));
        else if (std::abs(f(x.at(i))) < 9e18)
            out.ints[i] = int64_t(f(x.at(i)));
        else
            throw Unsupported{"a number too large for an integer"};
    }
    return out;
}

const Constant& integers(const Inputs& inputs, size_t i) {
    const Constant& c = need(inputs, i);
    if (!c.integer()) throw Unsupported{"input " + std::to_string(i) + " holds no integers"};
    return c;
}

}  // namespace

bool is_foldable(const std::string& op) {
    static const char* const others[] = {
        "Cast",       "CastLike", "Concat", "Constant",       "ConstantOfShape",
        "Dropout",    "Expand",   "Gather", "Identity",       "Shape",
        "Size",       "Slice",    "Where",  "QuantizeLinear", "DequantizeLinear",
        "ReduceProd", "Transpose"};
    return unary(op) || binary(op) || is_view(op) ||
           std::any_of(std::begin(others), std::end(others),
                       [&](const char* other) { return op == other; });
}

ConstantPtr fold(const NodeProto& node, const Inputs& inputs, Tensors& tensors, Budget& budget) {
    const std::string& op = node.op_type();
    if (op == "Identity" || op == "Dropout") {
        need(inputs, 0);
        return inputs[0];
    }
    const auto result = [&]() -> Constant {
        if (op == "Constant") return constant_node(node, tensors);
        if (op == "ConstantOfShape") return constant_of_shape(node, inputs, tensors, budget);
        if (op == "Concat") return concat(inputs, int_attribute(node, "axis", 0), budget);
        if (op == "Slice") return slice(node, inputs, budget);
        if (op == "Where") return select(inputs, budget);
        const Constant& x = need(inputs, 0);
        if (op == "Shape") return shape_of(node, x.dims);
        if (op == "Size") return product(shape_of(NodeProto(), x.dims));
        if (op == "ReduceProd") return product(x);
        if (op == "Cast") return cast(x, int(int_attribute(node, "to", float32)), budget);
        if (op == "CastLike") return cast(x, need(inputs, 1).type, budget);
        if (op == "Expand") return expand(x, integers(inputs, 1).ints, budget);
        if (op == "Gather")
            return gather(x, integers(inputs, 1), int_attribute(node, "axis", 0), budget);
        if (is_view(op)) return with_dims(x, viewed(node, x.dims, given(inputs, 1)), budget);
        if (op == "Transpose") return transpose(x, ints_attribute(node, "perm"), budget);
        if (op == "QuantizeLinear") return quantized(node, inputs, false, budget);
        if (op == "DequantizeLinear") return quantized(node, inputs, true, budget);
        if (const Unary f = unary(op)) return mapped(x, f, budget);
        return arithmetic(op, x, need(inputs, 1), budget);
    };
    return std::make_shared<const Constant>(result());
}

}  // namespace nc::onnx
