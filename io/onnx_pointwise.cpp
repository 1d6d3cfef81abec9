// Element by element: activations in any spelling, residual sums, scales and shifts by constants.
#include <algorithm>
#include <cmath>
#include <optional>

#include "io/onnx_import.h"

namespace nc::onnx {
namespace {

double sigmoid(double x) {
    return 1 / (1 + std::exp(-x));
}

double hard_swish(double x) {
    return x * std::clamp(x / 6 + 0.5, 0.0, 1.0);
}

// Written so that the far ends are 0 and x, not infinity times 0.
double gelu(double x) {
    return x * 0.5 * std::erfc(-x * std::sqrt(0.5));
}

// A function that has a place in a Graph: y = scale * act(x) + shift, act maybe the identity.
struct Known {
    std::optional<Activation> activation;
    double clip = 0;  // relu6 stretched to clip at this; 0: not so
    double scale = 1, shift = 0;
};

template <class F>
bool is(const Function& f, const F& wanted) {
    const auto& x = sample_points();
    for (size_t i = 0; i < x.size(); ++i) {
        const double y = wanted(x[i]);
        // Constants are stored as floats.
        if (!(std::abs(f[i] - y) <= 1e-6 + 1e-5 * std::abs(y))) return false;
    }
    return true;
}

double at(const Function& f, double x) {
    const auto& points = sample_points();
    return f[size_t(std::find(points.begin(), points.end(), x) - points.begin())];
}

std::optional<Known> recognise(const Function& f) {
    using kernels::Activation;
    const auto plain = [](Activation kind, double param = 0) {
        Known known;
        known.activation = nc::Activation{kind, param};
        return known;
    };
    const double shift = at(f, 0), scale = at(f, 1) - shift, slope = -at(f, -1);
    if (is(f, [&](double x) { return scale * x + shift; })) return Known{{}, 0, scale, shift};
    if (is(f, [](double x) { return std::max(x, 0.0); })) return plain(Activation::relu);
    if (is(f, [&](double x) { return x > 0 ? x : slope * x; }))
        return plain(Activation::leaky_relu, slope);
    const double top = f.back();  // at the largest point
    if (top > 0 && is(f, [&](double x) { return std::clamp(x, 0.0, top); })) {
        Known known = plain(Activation::relu6);
        if (top != 6) known.clip = top;
        return known;
    }
    if (is(f, hard_swish)) return plain(Activation::hard_swish);
    if (is(f, [](double x) { return x * sigmoid(x); })) return plain(Activation::silu);
    if (is(f, gelu)) return plain(Activation::gelu);
    if (is(f, sigmoid)) return plain(Activation::sigmoid);
    if (is(f, [](double x) { return std::tanh(x); })) return plain(Activation::tanh);
    return std::nullopt;
}

Function function_of(const Value& v) {
    return v.function ? *v.function : sample_points();
}

Function mapped(Function f, const std::function<double(double)>& g) {
    for (double& x : f) x = g(x);
    return f;
}

Tensor numbers(const std::vector<float>& values) {
    return Tensor::from(values, Shape{values.size()});
}

}  // namespace

// 0 and both signs of 2^-10 .. 2^20, four to the octave; the largest stands last.
const std::vector<double>& sample_points() {
    static const std::vector<double> points = [] {
        std::vector<double> out = {0};
        for (int k = -40; k <= 80; ++k) {
            const double octave = std::floor(k / 4.0),
                         x = std::exp2(octave) * (1 + k / 4.0 - octave);
            out.push_back(-x);
            out.push_back(x);
        }
        return out;
    }();
    return points;
}

std::vector<float> channel_values(const Constant& c, const Value& x) {
    if (c.integer()) return {};
    if (c.size() == 1) return c.floats;
    // Aligned at the last axis; only axis 1, the channels, may differ from 1.
    if (c.dims.size() > x.dims.size()) return {};
    const size_t skipped = x.dims.size() - c.dims.size();
    for (size_t k = 0; k < c.dims.size(); ++k)
        if (c.dims[k] != 1 && k + skipped != 1) return {};
    return c.size() == x.shape.back() ? c.floats : std::vector<float>();
}

Value& Importer::activation(const NodeProto& node, int i) {
    Value& v = input(node, i);
    if (v.constant) throw Unsupported{"input '" + node.input(i) + "' is a constant"};
    if (v.padded()) throw Unsupported{"takes zeros around a feature map"};
    if (v.function) v = applied(v);  // for all who take it
    return v;
}

Value Importer::applied(const Value& v) {
    const auto known = recognise(*v.function);
    if (!known) {
        std::string spelling;
        for (const NodeProto* one : v.spelling)
            spelling += (spelling.empty() ? "" : ", ") + one->op_type() + " '" + one->name() + "'";
        throw Unsupported{"no activation known here is computed by " + spelling};
    }
    // Its last node gives its name.
    const std::string name = name_for(*v.spelling.back());
    Value x = v;
    x.function = nullptr;
    x.spelling.clear();
    if (!known->activation) return affine(name, x, {float(known->scale)}, {float(known->shift)});
    const auto then = [&](const std::string& what, Operation op) {
        x = emit(what, std::move(op), x, x.shape, x.dims);
        x.map = v.map;
    };
    // clip(x, 0, c) = c / 6 * relu6(6 / c * x)
    const double c = known->clip;
    if (c > 0) then(free_name(name + "_in"), Scale{numbers({float(6 / c)})});
    then(name, *known->activation);
    if (c > 0) then(free_name(name + "_out"), Scale{numbers({float(c / 6)})});
    return x;
}

void Importer::named_activation(const NodeProto& node) {
    using kernels::Activation;
    const std::string& op = node.op_type();
    nc::Activation act{Activation::relu, 0};
    if (op == "LeakyRelu") act = {Activation::leaky_relu, float_attribute(node, "alpha", 0.01)};
    if (op == "HardSwish") act = {Activation::hard_swish, 0};
    if (op == "Gelu") {
        act = {Activation::gelu, 0};
        if (text_attribute(node, "approximate", "none") != "none")
            throw Unsupported{"GELU by its approximation with tanh"};
    }
    const Value x = activation(node, 0);
    Value y = emit(name_for(node), act, x, x.shape, x.dims);
    y.map = x.map;
    set(node, y);
}

void Importer::prelu(const NodeProto& node) {
    const Value x = activation(node, 0);
    const ConstantPtr slope = constant(node, 1);
    const auto values = channel_values(*slope, x);
    if (values.empty())
        throw Unsupported{"slopes " + text_of(slope->dims) + " for values " + text_of(x.dims)};
    Constant finite;
    finite.floats = values;
    const Tensor slopes = tensor_of(finite, Shape{values.size()});
    Value y = emit(name_for(node, node.input(1)), PRelu{slopes}, x, x.shape, x.dims);
    y.map = x.map;
    set(node, y);
}

void Importer::set_function(const NodeProto& node, const Value& x, Function f, const Value* other) {
    Value y = x;
    y.function = std::make_shared<const Function>(std::move(f));
    if (other)
        for (const NodeProto* one : other->spelling)
            if (std::find(y.spelling.begin(), y.spelling.end(), one) == y.spelling.end())
                y.spelling.push_back(one);
    constexpr size_t most = 16;
    if (y.spelling.size() > most) y.spelling.resize(most);
    y.spelling.push_back(&node);
    // What has become an activation is one; but a sigmoid may still become SiLU.
    const auto known = recognise(*y.function);
    const bool done =
        known && known->activation && known->activation->kind != kernels::Activation::sigmoid;
    set(node, done ? applied(y) : y);
}

void Importer::clip(const NodeProto& node) {
    const Value& x = input(node, 0);
    if (x.padded()) throw Unsupported{"takes zeros around a feature map"};
    const double infinity = std::numeric_limits<double>::infinity();
    // Inputs since opset 11, before that attributes.
    const auto bound = [&](int i, const char* name, double fallback) {
        const ConstantPtr c = optional_constant(node, i);
        if (!c) return float_attribute(node, name, fallback);
        if (c->size() != 1) throw Unsupported{"bounds that are no numbers"};
        return c->at(0);
    };
    const double low = bound(1, "min", -infinity), high = bound(2, "max", infinity);
    set_function(node, x, mapped(function_of(x), [&](double v) {
                     return std::min(std::max(v, low), high);
                 }));
}

void Importer::pointwise(const NodeProto& node) {
    const Value& x = input(node, 0);
    if (x.padded()) throw Unsupported{"takes zeros around a feature map"};
    std::function<double(double)> f = unary(node.op_type());
    if (node.op_type() == "HardSigmoid") {
        const double alpha = float_attribute(node, "alpha", 0.2);
        const double beta = float_attribute(node, "beta", 0.5);
        f = [=](double v) { return std::clamp(alpha * v + beta, 0.0, 1.0); };
    }
    set_function(node, x, mapped(function_of(x), f));
}

void Importer::arithmetic(const NodeProto& node) {
    const std::string& op = node.op_type();
    const Value a = input(node, 0), b = input(node, 1);
    if (node.input_size() > 2) throw Unsupported{"more than two inputs"};
    if (a.padded() || b.padded()) throw Unsupported{"takes zeros around a feature map"};
    if (a.constant) return with_constant(node, b, *a.constant, true);
    if (b.constant) return with_constant(node, a, *b.constant, false);
    const bool adds = op == "Add" || op == "Sub";
    const bool same = a.nodes == b.nodes && a.dims == b.dims;
    // x + silu(x) is a residual; x + 0.04 x^3 is part of some function of x.
    const bool residual =
        adds && (!same || (recognise(function_of(a)) && recognise(function_of(b))));
    if (same && !residual) {
        Function f = function_of(a);
        const Function g = function_of(b);
        for (size_t i = 0; i < f.size(); ++i) f[i] = binary(op)(f[i], g[i]);
        return set_function(node, a, f, &b);
    }
    if (!adds) throw Unsupported{"joins two activations by something else than a sum"};
    if (a.dims != b.dims) throw Unsupported{"adds " + text_of(a.dims) + " and " + text_of(b.dims)};
    const Value first = activation(node, 0);
    sum(node, first, activation(node, 1), op == "Sub" ? -1 : 1);
}

void Importer::sum(const NodeProto& node, Value a, Value b, double sign) {
    if (!(a.shape == b.shape) || !(a.map == b.map))
        throw Unsupported{"adds a flattened feature map and something in another order"};
    const std::string name = name_for(node);
    constexpr size_t most = 64;  // terms of one sum
    const auto own = [&](const std::string& end, Operation op) {
        const Shape map = b.map;
        b = emit(free_name(name + end), std::move(op), b, b.shape, b.dims);
        b.map = map;
    };
    if (sign < 0) own("_minus", Scale{numbers({-1})});
    // Sums are carried out in order: of b's parts first, where there are some; and an edge exists
    // once.
    const bool again = std::any_of(b.nodes.begin(), b.nodes.end(), [&](size_t n) {
        return std::find(a.nodes.begin(), a.nodes.end(), n) != a.nodes.end();
    });
    if (b.nodes.size() > 1 || again) own("_second", Add{});
    Value y = a;
    y.nodes.insert(y.nodes.end(), b.nodes.begin(), b.nodes.end());
    if (uses(node.output(0)) > 1 || y.nodes.size() > most) {
        y = emit(name, Add{}, y, a.shape, a.dims);
        y.map = a.map;
    }
    set(node, y);
}

void Importer::with_constant(const NodeProto& node, const Value& given, const Constant& c,
                             bool constant_first) {
    const std::string& op = node.op_type();
    if (c.integer()) throw Unsupported{"computes with integers"};
    if (c.size() == 1 && c.dims.size() <= given.dims.size() && !given.constant) {
        const bool biased = op == "Add" && !given.function;
        if (!biased || !into_bias(node, given, c.floats)) {
            const Binary f = binary(op);
            const double k = c.floats[0];
            set_function(node, given, mapped(function_of(given), [&](double x) {
                             return constant_first ? f(k, x) : f(x, k);
                         }));
        }
        return;
    }
    const Value x = activation(node, constant_first ? 1 : 0);
    const std::vector<float> values = channel_values(c, x);
    if (values.empty())
        throw Unsupported{"values " + text_of(x.dims) + " with constants " + text_of(c.dims) +
                          ": only one number, or one a channel"};
    std::vector<float> scale(values.size(), 1), shift(values.size(), 0);
    for (size_t i = 0; i < values.size(); ++i) {
        if (op == "Add") {
            shift[i] = values[i];
        } else if (op == "Sub") {
            scale[i] = constant_first ? -1.f : 1.f;
            shift[i] = constant_first ? values[i] : -values[i];
        } else if (op == "Mul") {
            scale[i] = values[i];
        } else if (op == "Div" && !constant_first) {
            scale[i] = 1 / values[i];
        } else {
            throw Unsupported{"of constants, one a channel"};
        }
    }
    if (op == "Add" && into_bias(node, x, shift)) return;
    set(node, affine(name_for(node), x, scale, shift));
}

// A MatMul and the Add after it are one Linear.
bool Importer::into_bias(const NodeProto& node, const Value& x, const std::vector<float>& shift) {
    if (x.nodes.size() != 1) return false;
    const std::string& from = node.input(input(node, 0).constant ? 1 : 0);
    if (uses(from) != 1) return false;
    Operation& op = out_.nodes[x.nodes[0]].op;
    std::vector<float> bias(x.shape.back());
    for (size_t i = 0; i < bias.size(); ++i) bias[i] = shift[i % shift.size()];
    const auto put = [&](auto* layer) {
        if (!layer || layer->bias.defined()) return false;
        layer->bias = numbers(bias);
        return true;
    };
    if (!put(std::get_if<Linear>(&op)) && !put(std::get_if<Conv>(&op))) return false;
    set(node, x);
    return true;
}

Value Importer::affine(const std::string& name, Value x, const std::vector<float>& scale,
                       const std::vector<float>& shift) {
    for (const auto* values : {&scale, &shift})
        for (const float v : *values)
            if (!std::isfinite(v)) throw Unsupported{"constants that are not finite"};
    const auto all = [](const std::vector<float>& v, float wanted) {
        return std::all_of(v.begin(), v.end(), [&](float one) { return one == wanted; });
    };
    if (all(shift, 0) && all(scale, 1)) return x;
    const auto then = [&](Operation op) {
        Value y = emit(name, std::move(op), x, x.shape, x.dims);
        y.map = x.map;
        return y;
    };
    if (all(shift, 0)) return then(Scale{numbers(scale)});
    const size_t channels = x.shape.back();
    budget_.spend(4 * channels);
    std::vector<float> a(channels), b(channels);
    for (size_t i = 0; i < channels; ++i) {
        a[i] = scale[i % scale.size()];
        b[i] = shift[i % shift.size()];
    }
    if (x.shape.rank() == 3 && x.nodes.size() == 1 &&
        std::holds_alternative<Input>(out_.nodes[x.nodes[0]].op)) {
        // A BatchNorm here could not be folded into the layer after it, whose padding is zeros.
        Conv each;
        each.weight = Tensor::from(a, Shape{channels, 1, 1, 1});
        each.bias = numbers(b);
        each.options.groups = channels;
        return then(each);
    }
    constexpr double eps = 0x1p-20;  // variance + eps is 1 exactly
    const std::vector<float> mean(channels, 0), variance(channels, float(1 - eps));
    return then(BatchNorm{numbers(a), numbers(b), numbers(mean), numbers(variance), eps, 0.1});
}

}  // namespace nc::onnx
