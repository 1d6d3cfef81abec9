// Layers: convolutions, linear layers, BatchNorm, pooling, and what only moves values about.
#include <algorithm>
#include <limits>

#include "io/onnx_import.h"

namespace nc::onnx {
namespace {

using Pads = std::array<int64_t, 4>;  // top, left, bottom, right

constexpr int64_t largest = 1 << 20;

// Two numbers, for rows and columns.
std::array<int64_t, 2> pair(const NodeProto& node, const char* name, int64_t fallback) {
    const auto values = ints_attribute(node, name);
    if (values.empty()) return {fallback, fallback};
    if (values.size() != 2) throw Unsupported{std::string(name) + " of other than two axes"};
    for (const int64_t v : values)
        if (v < 1 || v > largest)
            throw Unsupported{std::string(name) + " " + text_of(values) + " out of range"};
    return {values[0], values[1]};
}

// The node's own padding of an input of h x w. window: what the kernel spans, dilation included.
Pads own_pads(const NodeProto& node, const Shape& map, const std::array<int64_t, 2>& window,
              const std::array<int64_t, 2>& stride) {
    const std::string automatic = text_attribute(node, "auto_pad", "NOTSET");
    Pads pads = {};
    if (automatic == "SAME_UPPER" || automatic == "SAME_LOWER") {
        for (size_t k = 0; k < 2; ++k) {
            const int64_t size = int64_t(map[k]), out = (size + stride[k] - 1) / stride[k];
            const int64_t all = std::max<int64_t>((out - 1) * stride[k] + window[k] - size, 0);
            const int64_t less = all / 2, more = all - less;
            pads[k] = automatic == "SAME_UPPER" ? less : more;
            pads[k + 2] = all - pads[k];
        }
        return pads;
    }
    if (automatic != "NOTSET" && automatic != "VALID")
        throw Unsupported{"auto_pad '" + automatic + "'"};
    const auto values = ints_attribute(node, "pads");
    if (values.empty() || automatic == "VALID") return pads;
    if (values.size() != 4) throw Unsupported{"pads of other than two axes"};
    for (size_t k = 0; k < 4; ++k) {
        if (values[k] < 0 || values[k] > largest)
            throw Unsupported{"pads " + text_of(values) + " out of range"};
        pads[k] = values[k];
    }
    return pads;
}

Pads sum_of(const Pads& a, const Pads& b) {
    Pads out;
    for (size_t k = 0; k < 4; ++k) out[k] = a[k] + b[k];
    return out;
}

bool any(const Pads& pads) {
    return pads != Pads{};
}

// A kernel [co, ci, kh, kw] within zeros of [co, ci, kh + top + bottom, kw + left + right]: with
// more padding on one side than on the other, the taps that are zero make both sides alike.
Constant widened(const Constant& w, const Pads& zeros, Budget& budget) {
    Constant out = w;
    const size_t kh = size_t(w.dims[2]), kw = size_t(w.dims[3]);
    out.dims[2] += zeros[0] + zeros[2];
    out.dims[3] += zeros[1] + zeros[3];
    const size_t n = elements_of(out.dims), wide = size_t(out.dims[3]);
    budget.spend(n);
    out.floats.assign(n, 0);
    const size_t kernels = w.floats.size() / (kh * kw), area = n / kernels;
    for (size_t k = 0; k < kernels; ++k)
        for (size_t y = 0; y < kh; ++y)
            for (size_t x = 0; x < kw; ++x)
                out.floats[k * area + (y + size_t(zeros[0])) * wide + x + size_t(zeros[1])] =
                    w.floats[(k * kh + y) * kw + x];
    return out;
}

Dims map_dims(int64_t batch, const Shape& map) {
    return {batch, int64_t(map[2]), int64_t(map[0]), int64_t(map[1])};
}

// Sizes along h and w; with `up` as ceil_mode counts them.
std::array<int64_t, 2> pooled(const Shape& map, const std::array<int64_t, 2>& kernel,
                              const std::array<int64_t, 2>& stride, const Pads& pads, bool up) {
    std::array<int64_t, 2> out;
    for (size_t k = 0; k < 2; ++k) {
        const int64_t room = int64_t(map[k]) + pads[k] + pads[k + 2] - kernel[k];
        if (room < 0) throw Unsupported{"a window larger than its input"};
        out[k] = (room + (up ? stride[k] - 1 : 0)) / stride[k] + 1;
        // A last window has to begin inside the input or the padding before it.
        if (up && (out[k] - 1) * stride[k] >= int64_t(map[k]) + pads[k]) --out[k];
    }
    return out;
}

// What makes averages over whole windows averages over the part of each that is inside the map and
// the zeros put around it before: factors [C, H, W].
std::vector<float> without_padding(const Shape& map, const Pads& zeros, const ops::PoolOptions& o,
                                   const Shape& out) {
    const auto inside = [](size_t size, size_t before, int64_t behind, size_t pad, size_t begin,
                           size_t window) {
        // All counted from where the padding begins.
        const size_t low = pad - before, high = pad + size + size_t(behind);
        const size_t from = std::max(begin, low), to = std::min(begin + window, high);
        if (to <= from) throw Unsupported{"a window of padding alone"};
        return double(to - from);
    };
    std::vector<float> factors;
    for (size_t c = 0; c < out[2]; ++c)
        for (size_t y = 0; y < out[0]; ++y)
            for (size_t x = 0; x < out[1]; ++x) {
                const double rows =
                    inside(map[0], size_t(zeros[0]), zeros[2], o.pad_h, y * o.stride_h, o.kh);
                const double cols =
                    inside(map[1], size_t(zeros[1]), zeros[3], o.pad_w, x * o.stride_w, o.kw);
                factors.push_back(float(double(o.kh * o.kw) / (rows * cols)));
            }
    return factors;
}

// A 1 x 1 matrix [out, in] that puts `in` values at `offset`.
std::vector<float> placement(size_t out, size_t in, size_t offset) {
    std::vector<float> w(out * in, 0);
    for (size_t i = 0; i < in; ++i) w[(offset + i) * in + i] = 1;
    return w;
}

}  // namespace

const Value& Importer::map_input(const NodeProto& node, bool padding) {
    Value& v = input(node, 0);
    if (!v.padded() || !padding) activation(node, 0);
    if (v.shape.rank() != 3 || v.dims != map_dims(batch_, v.shape))
        throw Unsupported{"takes a feature map, not " + text_of(v.dims)};
    return v;
}

void Importer::conv(const NodeProto& node) {
    Constant w = *constant(node, 1);
    const ConstantPtr bias = optional_constant(node, 2);
    if (w.dims.size() != 4)
        throw Unsupported{"weights " + text_of(w.dims) + ": only convolutions over two axes"};
    const auto shape = ints_attribute(node, "kernel_shape");
    if (!shape.empty() && shape != Dims(w.dims.begin() + 2, w.dims.end()))
        throw Unsupported{"kernel_shape " + text_of(shape) + " with weights " + text_of(w.dims)};
    const int64_t groups = int_attribute(node, "group", 1);
    const auto stride = pair(node, "strides", 1), dilation = pair(node, "dilations", 1);
    const auto channels = size_t(w.dims[0]);
    tensor_of(w, shape_of(w));
    const Tensor b = bias ? tensor_of(*bias, Shape{channels}) : Tensor();
    const Value x = input(node, 0).shape.rank() == 1 ? activation(node, 0) : map_input(node, true);
    budget_.spend(w.size());

    if (x.shape.rank() == 1) {
        // A map of one pixel: a linear layer.
        const bool plain = w.dims[2] == 1 && w.dims[3] == 1 && groups == 1 &&
                           x.dims == Dims{batch_, int64_t(x.shape[0]), 1, 1} &&
                           !any(own_pads(node, Shape{1, 1}, {1, 1}, stride));
        if (!plain || w.dims[1] != int64_t(x.shape[0]))
            throw Unsupported{"weights " + text_of(w.dims) + " on " + text_of(x.dims)};
        const Tensor weight = tensor_of(w, Shape{channels, x.shape[0]});
        return set(node, emit(name_for(node, node.input(1)), Linear{weight, b}, x, Shape{channels},
                              {batch_, int64_t(channels), 1, 1}));
    }
    std::array<int64_t, 2> window;
    for (size_t k = 0; k < 2; ++k) window[k] = dilation[k] * (w.dims[2 + k] - 1) + 1;
    const Pads pads = sum_of(x.pad, own_pads(node, x.shape, window, stride));
    Pads zeros = {};
    Conv layer;
    for (size_t k = 0; k < 2; ++k) {
        const int64_t side = std::max(pads[k], pads[k + 2]);
        for (const size_t end : {k, k + 2}) {
            const int64_t missing = side - pads[end];
            if (missing % dilation[k] != 0)
                throw Unsupported{"padding that differs from side to side, dilated"};
            zeros[end] = missing / dilation[k];
        }
        (k == 0 ? layer.options.pad_h : layer.options.pad_w) = size_t(side);
    }
    if (any(zeros)) w = widened(w, zeros, budget_);
    layer.options.stride_h = size_t(stride[0]);
    layer.options.stride_w = size_t(stride[1]);
    layer.options.dilation_h = size_t(dilation[0]);
    layer.options.dilation_w = size_t(dilation[1]);
    layer.options.groups = size_t(std::clamp<int64_t>(groups, 0, largest));
    layer.weight = tensor_of(w, shape_of(w));
    layer.bias = b;
    const Shape ours{size_t(w.dims[2]), size_t(w.dims[3]), size_t(w.dims[1]), channels};
    const auto sizes = ops::conv_shape(x.shape.with_leading(1), ours, layer.options);
    const Shape out{sizes.out_h(), sizes.out_w(), sizes.cout};
    Value y = emit(name_for(node, node.input(1)), layer, x, out, map_dims(batch_, out));
    set(node, y);
}

void Importer::linear(const NodeProto& node) {
    const bool gemm = node.op_type() == "Gemm";
    const ConstantPtr w = constant(node, 1);
    const ConstantPtr c = gemm ? optional_constant(node, 2) : nullptr;
    const Value x = activation(node, 0);
    if (gemm && int_attribute(node, "transA", 0) != 0) throw Unsupported{"transposes the samples"};
    const bool transposed = gemm && int_attribute(node, "transB", 0) != 0;
    if (w->dims.size() != 2) throw Unsupported{"weights " + text_of(w->dims)};
    const size_t in = size_t(w->dims[transposed ? 1 : 0]),
                 out = size_t(w->dims[transposed ? 0 : 1]);
    if (x.shape.rank() != 1 || x.shape[0] != in || x.dims.back() != int64_t(in))
        throw Unsupported{"weights " + text_of(w->dims) + " on " + text_of(x.dims)};
    budget_.spend(w->size());
    const float alpha = gemm ? float(float_attribute(node, "alpha", 1)) : 1;
    const float beta = gemm ? float(float_attribute(node, "beta", 1)) : 1;
    tensor_of(*w, shape_of(*w));
    std::vector<float> weight(w->size());
    for (size_t o = 0; o < out; ++o)
        for (size_t i = 0; i < in; ++i)
            weight[o * in + i] = alpha * w->floats[transposed ? o * in + i : i * out + o];
    Linear layer{Tensor::from(weight, Shape{out, in}), {}};
    if (c) {
        const bool fits = c->size() == 1 ||
                          (c->size() == out && !c->dims.empty() && c->dims.back() == int64_t(out));
        if (!fits) throw Unsupported{"a bias " + text_of(c->dims)};
        tensor_of(*c, shape_of(*c));
        std::vector<float> bias(out);
        for (size_t o = 0; o < out; ++o) bias[o] = beta * c->floats[o % c->size()];
        layer.bias = Tensor::from(bias, Shape{out});
    }
    Dims dims = x.dims;
    dims.back() = int64_t(out);
    set(node, emit(name_for(node, node.input(1)), layer, x, Shape{out}, dims));
}

void Importer::batch_norm(const NodeProto& node) {
    if (int_attribute(node, "training_mode", 0) != 0)
        throw Unsupported{"exported for training; use model.eval() before the export"};
    const Value x = activation(node, 0);
    const size_t channels = x.shape.back();
    const bool channels_are_axis_1 = x.dims.size() >= 2 && x.dims[1] == int64_t(channels);
    std::array<Tensor, 4> t;
    for (int i = 0; i < 4; ++i) {
        const ConstantPtr c = constant(node, i + 1);
        if (c->size() != channels || !channels_are_axis_1)
            throw Unsupported{text_of(c->dims) + " on " + text_of(x.dims)};
        t[size_t(i)] = tensor_of(*c, Shape{channels});
    }
    BatchNorm op{t[0],
                 t[1],
                 t[2],
                 t[3],
                 float_attribute(node, "epsilon", 1e-5),
                 1 - float_attribute(node, "momentum", 0.9)};
    Value y = emit(name_for(node, node.input(1)), op, x, x.shape, x.dims);
    y.map = x.map;
    set(node, y);
}

void Importer::pool(const NodeProto& node) {
    const std::string& op = node.op_type();
    const bool average = op == "AveragePool" || op == "GlobalAveragePool";
    if (input(node, 0).shape.rank() == 1 && op.rfind("Global", 0) == 0)
        return set(node, activation(node, 0));  // of one pixel
    const Value x = map_input(node, true);
    if (op == "GlobalAveragePool") {
        if (x.padded()) throw Unsupported{"takes zeros around a feature map"};
        return set(node, mean_over(node, x, true, true, {batch_, int64_t(x.shape[2]), 1, 1}));
    }
    std::array<int64_t, 2> kernel = {int64_t(x.shape[0]), int64_t(x.shape[1])}, stride = {1, 1};
    Pads own = {};
    if (op != "GlobalMaxPool") {
        kernel = pair(node, "kernel_shape", 1);
        stride = pair(node, "strides", 1);
        own = own_pads(node, x.shape, kernel, stride);
        if (pair(node, "dilations", 1) != std::array<int64_t, 2>{1, 1})
            throw Unsupported{"dilated pooling"};
    }
    const bool counted = int_attribute(node, "count_include_pad", 0) != 0;
    if (!average && x.padded()) {
        // Zeros never win among what is not negative; padding never does.
        const auto* act =
            x.nodes.size() == 1 ? std::get_if<Activation>(&out_.nodes[x.nodes[0]].op) : nullptr;
        using kernels::Activation;
        if (!act || (act->kind != Activation::relu && act->kind != Activation::relu6 &&
                     act->kind != Activation::sigmoid))
            throw Unsupported{"a maximum over zeros around values that may be negative"};
    }
    const Pads pads = sum_of(x.pad, own);
    const auto sizes = pooled(x.shape, kernel, stride, pads, false);
    if (int_attribute(node, "ceil_mode", 0) != 0 &&
        pooled(x.shape, kernel, stride, pads, true) != sizes)
        throw Unsupported{"a last window that is cut off (ceil_mode)"};
    if (pads[0] != pads[2] || pads[1] != pads[3])
        throw Unsupported{"padding that differs from side to side"};
    const ops::PoolOptions options{size_t(kernel[0]), size_t(kernel[1]), size_t(stride[0]),
                                   size_t(stride[1]), size_t(pads[0]),   size_t(pads[1])};
    ops::pool_shape(x.shape.with_leading(1), options);
    const Shape out{size_t(sizes[0]), size_t(sizes[1]), x.shape[2]};
    const Operation ours = average ? Operation(AveragePool{options}) : Operation(MaxPool{options});
    const std::string name = name_for(node);
    Value y = emit(name, ours, x, out, map_dims(batch_, out));
    if (average && !counted && any(own)) {
        budget_.spend(out.elements());
        notes_.push_back(
            "'" + name +
            "' averages without its padding: a factor for each place, which "
            "integer targets do not have; AvgPool2d(count_include_pad=True) needs none");
        const auto factors = without_padding(x.shape, x.pad, options, out);
        y = emit(free_name(name + "_inside"), Scale{Tensor::from(factors, Shape{factors.size()})},
                 y, out, y.dims);
    }
    set(node, y);
}

// The mean of a map over its rows, its columns or both.
Value Importer::mean_over(const NodeProto& node, const Value& x, bool rows, bool cols, Dims dims) {
    if (rows && cols)
        return emit(name_for(node), GlobalAveragePool{}, x, Shape{x.shape[2]}, std::move(dims));
    const size_t kh = rows ? x.shape[0] : 1, kw = cols ? x.shape[1] : 1;
    const Shape out{x.shape[0] / kh, x.shape[1] / kw, x.shape[2]};
    return emit(name_for(node), AveragePool{{kh, kw, kh, kw, 0, 0}}, x, out, std::move(dims));
}

void Importer::reduce_mean(const NodeProto& node) {
    const Value x = activation(node, 0);
    const ConstantPtr given = optional_constant(node, 1);
    if (given && !given->integer()) throw Unsupported{"axes that are no integers"};
    const Dims axes = given ? given->ints : ints_attribute(node, "axes");
    const bool keep = int_attribute(node, "keepdims", 1) != 0;
    std::vector<bool> reduced(x.dims.size());
    for (const int64_t axis : axes) reduced[axis_of(axis, reduced.size())] = true;
    Dims kept;
    size_t sizes = 1;
    for (size_t k = 0; k < reduced.size(); ++k) {
        if (reduced[k]) sizes *= size_t(x.dims[k]);
        if (!reduced[k] || keep) kept.push_back(reduced[k] ? 1 : x.dims[k]);
    }
    const auto refuse = [&] {
        throw Unsupported{"a mean over axes " + text_of(axes) + " of " + text_of(x.dims)};
    };
    if (axes.empty() || reduced[0]) refuse();
    if (sizes == 1) {
        Value y = x;
        y.dims = kept;
        return set(node, y);
    }
    if (x.shape.rank() != 3) refuse();
    // Channels come first in the file: what is behind them are rows and columns, maybe as one axis.
    const auto c = int64_t(x.shape[2]), h = int64_t(x.shape[0]), w = int64_t(x.shape[1]);
    const Dims sample = x.sample();
    bool rows = false, cols = false;
    if (sample == Dims{c, h, w} && !reduced[1]) {
        rows = reduced[2];
        cols = reduced[3];
    } else if ((sample == Dims{c, h * w} || (sample == Dims{c, h} && w == 1)) && !reduced[1]) {
        rows = cols = true;
    } else {
        refuse();
    }
    set(node, mean_over(node, x, rows, cols, kept));
}

void Importer::pad(const NodeProto& node) {
    Value x = input(node, 0);
    const ConstantPtr given = optional_constant(node, 1), fill = optional_constant(node, 2),
                      axes = optional_constant(node, 3);
    const Dims pads = given ? given->ints : ints_attribute(node, "pads");
    const size_t rank = x.dims.size();
    const size_t count = axes ? axes->ints.size() : rank;
    if (pads.size() != 2 * count) throw Unsupported{"pads " + text_of(pads)};
    if (std::all_of(pads.begin(), pads.end(), [](int64_t p) { return p == 0; }))
        return set(node, x);
    if (text_attribute(node, "mode", "constant") != "constant")
        throw Unsupported{"pads with something else than zeros"};
    if ((fill && (fill->size() != 1 || fill->at(0) != 0)) || float_attribute(node, "value", 0) != 0)
        throw Unsupported{"pads with something else than zeros"};
    x = x.padded() ? map_input(node, true) : map_input(node, false);
    for (size_t k = 0; k < count; ++k) {
        const size_t axis = axes ? axis_of(axes->ints[k], rank) : k;
        for (const size_t end : {size_t(0), size_t(1)}) {
            const int64_t p = pads[k + end * count];
            if (p < 0 || p > largest || (p > 0 && axis < 2))
                throw Unsupported{"pads " + text_of(pads)};
            if (p > 0) x.pad[axis - 2 + 2 * end] += p;
        }
    }
    set(node, x);
}

void Importer::concat(const NodeProto& node) {
    const int64_t axis = int_attribute(node, "axis", 1);
    std::vector<Value> parts;
    int64_t total = 0;
    for (int i = 0; i < node.input_size(); ++i) {
        parts.push_back(activation(node, i));
        const Value& x = parts.back();
        if (x.shape.rank() != parts[0].shape.rank() || x.dims.size() != parts[0].dims.size() ||
            axis_of(axis, x.dims.size()) != 1 || x.dims[1] != int64_t(x.shape.back()) ||
            (x.shape.rank() == 3 && !(x.shape.with(2, 1) == parts[0].shape.with(2, 1) &&
                                      x.dims == map_dims(batch_, x.shape))))
            throw Unsupported{"puts " + text_of(parts[0].dims) + " and " + text_of(x.dims) +
                              " together along axis " + std::to_string(axis)};
        total += x.dims[1];
    }
    if (parts.size() == 1) return set(node, parts[0]);
    const auto channels = size_t(total);
    // Each part goes to its place by weights of 0 and 1; what lies elsewhere adds zeros.
    const std::string name = name_for(node);
    Value y;
    size_t offset = 0;
    for (const Value& x : parts) {
        const size_t own = x.shape.back();
        budget_.spend(elements_of({total, x.dims[1]}));
        const auto w = placement(channels, own, offset);
        offset += own;
        const bool map = x.shape.rank() == 3;
        const Operation place =
            map ? Operation(Conv{Tensor::from(w, Shape{channels, own, 1, 1}), {}, {}})
                : Operation(Linear{Tensor::from(w, Shape{channels, own}), {}});
        Dims dims = x.dims;
        dims[1] = total;
        const Value placed = emit(free_name(name + "_place"), place, x,
                                  map ? x.shape.with(2, channels) : Shape{channels}, dims);
        y.nodes.push_back(placed.nodes[0]);
        y.shape = placed.shape;
        y.dims = dims;
    }
    set(node, emit(name, Add{}, y, y.shape, y.dims));
}

Value Importer::reshaped(const NodeProto& node, const Value& x, Dims dims) {
    Value y = x;
    y.dims = std::move(dims);
    if (y.dims.empty() || y.dims[0] != batch_)
        throw Unsupported{"mixes samples: " + text_of(y.dims)};
    const Dims sample = y.sample();
    const auto wide = std::count_if(sample.begin(), sample.end(), [](int64_t s) { return s != 1; });
    const bool as_before = y.shape.rank() == 3 && y.dims == map_dims(batch_, y.shape);
    if (y.shape.rank() != 3 || as_before || wide > 1) return y;
    const Shape map = y.shape;
    y = emit(name_for(node), Flatten{}, y, Shape{map.elements()}, y.dims);
    if (map[0] * map[1] > 1) y.map = map;
    return y;
}

void Importer::view(const NodeProto& node) {
    const ConstantPtr second = optional_constant(node, 1);
    const Value& given = input(node, 0);
    if (given.padded()) throw Unsupported{"takes zeros around a feature map"};
    const Dims dims = viewed(node, given.dims, second.get());
    set(node, reshaped(node, activation(node, 0), dims));
}

void Importer::transpose(const NodeProto& node) {
    const Value& x = input(node, 0);
    Dims axes = ints_attribute(node, "perm");
    if (axes.empty())
        for (size_t k = x.dims.size(); k-- > 0;) axes.push_back(int64_t(k));
    // Moving axes of one element moves nothing.
    Dims dims, order;
    for (const int64_t axis : axes) {
        const size_t k = axis_of(axis, x.dims.size());
        dims.push_back(x.dims[k]);
        if (x.dims[k] != 1) order.push_back(int64_t(k));
    }
    if (axes.size() != x.dims.size() || !std::is_sorted(order.begin(), order.end()) ||
        elements_of(dims) != elements_of(x.dims))
        throw Unsupported{"transposes " + text_of(x.dims) + " by " + text_of(axes)};
    set(node, reshaped(node, activation(node, 0), dims));
}

void Importer::softmax(const NodeProto& node) {
    if (node.output_size() != 1 || node.output(0) != output_)
        throw Unsupported{"only at the end, where its input are the logits"};
    notes_.push_back("the " + node.op_type() +
                     " at the end is left out: what it takes are the logits");
    set(node, activation(node, 0));
}

// A pair of these rounds to 8 bits: that is for the hardware passes to decide.
void Importer::requantize(const NodeProto& node) {
    if (node.op_type() == "QuantizeLinear") ++roundings_;
    set(node, input(node, 0));
}

}  // namespace nc::onnx
