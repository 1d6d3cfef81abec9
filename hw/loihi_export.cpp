// The network as JSON and back.
#include "hw/loihi_export.h"

#include <algorithm>

#include "hw/target.h"

namespace nc {

namespace {

using Sizes = std::vector<size_t>;

const char* name_of(Synapses::Kind kind) {
    return kind == Synapses::Kind::linear ? "linear"
           : kind == Synapses::Kind::conv ? "conv"
                                          : "diagonal";
}

Json to_json(const IntegerNetwork& net, const Population& p, const Synapses& s) {
    std::vector<int> mantissa;
    for (const int8_t w : s.weight) mantissa.push_back(2 * w);
    Json conv, pool;
    if (s.kind == Synapses::Kind::conv)
        conv = {{"input", Sizes{s.conv.h, s.conv.w, s.conv.cin}},
                {"kernel", Sizes{s.conv.kh, s.conv.kw}},
                {"stride", Sizes{s.conv.stride_h, s.conv.stride_w}},
                {"padding", Sizes{s.conv.pad_h, s.conv.pad_w}},
                {"dilation", Sizes{s.conv.dilation_h, s.conv.dilation_w}},
                {"groups", s.conv.groups}};
    if (s.pooled)
        pool = {{"kernel", Sizes{s.pool.kh, s.pool.kw}},
                {"stride", Sizes{s.pool.stride_h, s.pool.stride_w}},
                {"padding", Sizes{s.pool.pad_h, s.pool.pad_w}}};
    const Population& source = net.populations[s.from];
    return {{"from", source.name},
            {"kind", name_of(s.kind)},
            {"delay", p.depth - source.depth - 1 + s.delay},
            {"weight_exponent", -1},
            {"weight_mantissa", mantissa},
            {"conv", conv},
            {"pool", pool}};
}

Json to_json(const IntegerNetwork& net, const Population& p, const Chip& chip) {
    Json neuron, mantissas, exponents;
    if (p.spiking) {
        std::vector<int32_t> v0;
        for (const int32_t theta : p.threshold) v0.push_back(p.half_start ? (theta >> 1) * 64 : 0);
        neuron = {{"du", 4095},
                  {"dv", p.decay},
                  {"compare", ">="},
                  {"reset", p.reset_to_zero ? "zero" : "subtract"},
                  {"threshold", p.threshold},
                  {"v0", v0},
                  {"amplitude", 1}};
    }
    if (p.spiking && !hears_input(p)) {
        mantissas = exponents = Json::array();
        for (const int32_t b : p.bias) {
            const BiasParts parts = bias_parts(b, chip).value();
            mantissas.push_back(parts.mantissa);
            exponents.push_back(parts.exponent);
        }
    }
    Json synapses = Json::array();
    for (const Synapses& s : p.synapses) synapses.push_back(to_json(net, p, s));
    return {{"name", p.name},
            {"kind", p.spiking ? "spiking" : "readout"},
            {"shape", p.shape.to_vector()},
            {"depth", p.depth},
            {"neuron", neuron},
            {"bias", p.bias},
            {"bias_mantissa", mantissas},
            {"bias_exponent", exponents},
            {"synapses", synapses}};
}

// Reads one document; every complaint names the file and the place in it.
class LoihiReader {
 public:
    LoihiReader(const Json& document, const std::string& path) : document_(document), path_(path) {}

    LoihiFile run() {
        where_ = "the document";
        if (text(document_, "format") != "neurocuda-loihi" ||
            integer(document_, "version", 1, 1) != 1)
            fail("it is not version 1 of neurocuda-loihi");
        LoihiFile out;
        out.T = int(integer(document_, "T", 1, 65536));
        IntegerNetwork& net = out.network;
        const Json& input = field(document_, "input");
        net.input_scale = number(input, "scale");
        if (!(net.input_scale > 0)) fail("the input's scale is not positive");
        Population first;
        first.name = text(input, "name");
        first.shape = shape(input, "shape");
        first.spiking = false;
        first.bias.assign(first.channels(), 0);
        net.populations.push_back(first);
        const Json& populations = field(document_, "populations");
        if (!populations.is_array() || populations.empty()) fail("there are no populations");
        for (const Json& p : populations) net.populations.push_back(population(net, p));
        for (size_t i = 1; i < net.populations.size(); ++i)
            if (net.populations[i].spiking == (i + 1 == net.populations.size()))
                fail("the last population is the readout, and no other");
        return out;
    }

 private:
    [[noreturn]] void fail(const std::string& what) const {
        throw Error("[loihi] " + path_ + ": " + where_ + ": " + what, ErrorKind::model);
    }
    const Json& field(const Json& object, const char* key) const {
        if (!object.is_object() || !object.contains(key)) fail(std::string("no '") + key + "'");
        return object.at(key);
    }
    std::string text(const Json& object, const char* key) const {
        const Json& value = field(object, key);
        if (!value.is_string()) fail(std::string("'") + key + "' is no text");
        return value.get<std::string>();
    }
    double number(const Json& object, const char* key) const {
        const Json& value = field(object, key);
        if (!value.is_number()) fail(std::string("'") + key + "' is no number");
        return value.get<double>();
    }
    int64_t whole(const Json& value, const char* key, int64_t low, int64_t high) const {
        if (!value.is_number_integer() || value.get<double>() < double(low) ||
            value.get<double>() > double(high))
            fail(std::string("'") + key + "' is no whole number from " + std::to_string(low) +
                 " to " + std::to_string(high));
        return value.get<int64_t>();
    }
    int64_t integer(const Json& object, const char* key, int64_t low, int64_t high) const {
        return whole(field(object, key), key, low, high);
    }
    template <class T>
    std::vector<T> list(const Json& object, const char* key, int64_t low, int64_t high) const {
        const Json& values = field(object, key);
        if (!values.is_array()) fail(std::string("'") + key + "' is no list");
        std::vector<T> out;
        out.reserve(values.size());
        for (const Json& value : values) out.push_back(T(whole(value, key, low, high)));
        return out;
    }
    Sizes pair(const Json& object, const char* key, int64_t low) const {
        const Sizes out = list<size_t>(object, key, low, 65535);
        if (out.size() != 2) fail(std::string("'") + key + "' is not two sizes");
        return out;
    }
    Shape shape(const Json& object, const char* key) const {
        const Sizes sizes = list<size_t>(object, key, 1, 65535);
        if (sizes.size() != 1 && sizes.size() != 3) fail("a shape has 1 or 3 sizes");
        return limited(Shape(sizes));
    }
    // Products of two of them stay far below 2^64.
    Shape limited(const Shape& s) const {
        if (s.elements() > size_t(1) << 28) fail("a shape of " + s.str() + " is too large");
        return s;
    }

    Population population(const IntegerNetwork& net, const Json& json) {
        where_ = "a population";
        Population p;
        p.name = text(json, "name");
        where_ = "'" + p.name + "'";
        p.shape = shape(json, "shape");
        p.depth = int(integer(json, "depth", 1, 1 << 20));
        const std::string kind = text(json, "kind");
        if (kind != "spiking" && kind != "readout") fail("unknown kind '" + kind + "'");
        p.spiking = kind == "spiking";
        p.bias = list<int32_t>(json, "bias", -(1 << 24), 1 << 24);
        if (p.bias.size() != p.channels()) fail("one bias a channel is needed");
        if (p.spiking) neuron(field(json, "neuron"), p);
        const Json& synapses = field(json, "synapses");
        if (!synapses.is_array() || synapses.empty()) fail("it hears nothing");
        for (const Json& s : synapses) p.synapses.push_back(synapse(net, p, s));
        if (!field(json, "bias_mantissa").is_null()) biases(json, p);
        return p;
    }

    void neuron(const Json& json, Population& p) const {
        p.decay = int32_t(integer(json, "dv", 0, 4095));
        const std::string reset = text(json, "reset");
        if (reset != "zero" && reset != "subtract") fail("unknown reset '" + reset + "'");
        if (text(json, "compare") != ">=" || integer(json, "du", 0, 4095) != 4095 ||
            integer(json, "amplitude", 0, 1) != 1)
            fail("its neurons are of another kind");
        p.reset_to_zero = reset == "zero";
        p.threshold = list<int32_t>(json, "threshold", 1, 131071);
        const size_t count = p.threshold.size();
        if (count != 1 && count != p.channels() && count != p.size())
            fail(std::to_string(count) + " thresholds for " + std::to_string(p.size()) +
                 " neurons");
        const auto v0 = list<int32_t>(json, "v0", 0, 131071 * 64);
        p.half_start = std::any_of(v0.begin(), v0.end(), [](int32_t v) { return v > 0; });
        for (size_t i = 0; i < count; ++i)
            if (v0.size() != count || v0[i] != (p.half_start ? (p.threshold[i] >> 1) * 64 : 0))
                fail("v(0) is neither 0 nor half the threshold");
    }

    void biases(const Json& json, const Population& p) const {
        const auto mantissa = list<int32_t>(json, "bias_mantissa", -4096, 4095);
        const auto exponent = list<int32_t>(json, "bias_exponent", 0, 7);
        for (size_t c = 0; c < p.channels(); ++c)
            if (mantissa.size() != p.channels() || exponent.size() != p.channels() ||
                mantissa[c] * (1 << exponent[c]) != p.bias[c] * 64)
                fail("mantissas and exponents do not give its biases");
    }

    Synapses synapse(const IntegerNetwork& net, const Population& p, const Json& json) const {
        Synapses s;
        const std::string from = text(json, "from"), kind = text(json, "kind");
        while (s.from < net.populations.size() && net.populations[s.from].name != from) ++s.from;
        if (s.from == net.populations.size())
            fail("it hears '" + from + "', which is not before it");
        const Population& source = net.populations[s.from];
        if (source.depth >= p.depth) fail("it is no deeper than '" + from + "'");
        const int direct = p.depth - source.depth - 1;
        s.delay = int(integer(json, "delay", direct, 1 << 20)) - direct;
        if (integer(json, "weight_exponent", -128, 127) != -1) fail("weights have the exponent -1");
        for (const int32_t m : list<int32_t>(json, "weight_mantissa", -254, 254)) {
            if (m % 2 != 0) fail("a weight's mantissa is odd: " + std::to_string(m));
            s.weight.push_back(int8_t(m / 2));
        }
        Shape given = source.shape;
        if (const Json& pool = field(json, "pool"); !pool.is_null())
            given = pooled(pool, source, s);
        size_t weights = 0;
        if (kind == "linear") {
            weights = given.elements() * p.size();
        } else if (kind == "diagonal") {
            s.kind = Synapses::Kind::diagonal;
            if (!(given == p.shape))
                fail("a diagonal from " + given.str() + " to " + p.shape.str());
            weights = p.channels();
        } else if (kind == "conv") {
            weights = convolution(field(json, "conv"), given, p, s);
        } else {
            fail("unknown synapses '" + kind + "'");
        }
        if (s.weight.size() != weights)
            fail(std::to_string(s.weight.size()) + " weights from '" + from + "', not " +
                 std::to_string(weights));
        return s;
    }

    Shape pooled(const Json& json, const Population& source, Synapses& s) const {
        if (source.shape.rank() != 3) fail("a pool of " + source.shape.str());
        const Sizes kernel = pair(json, "kernel", 1), stride = pair(json, "stride", 1),
                    padding = pair(json, "padding", 0);
        s.pooled = true;
        s.pool = {.n = 1,
                  .h = source.shape[0],
                  .w = source.shape[1],
                  .c = source.shape[2],
                  .kh = kernel[0],
                  .kw = kernel[1],
                  .stride_h = stride[0],
                  .stride_w = stride[1],
                  .pad_h = padding[0],
                  .pad_w = padding[1]};
        if (s.pool.h + 2 * s.pool.pad_h < s.pool.kh || s.pool.w + 2 * s.pool.pad_w < s.pool.kw)
            fail("a pool larger than " + source.shape.str());
        return limited({s.pool.out_h(), s.pool.out_w(), s.pool.c});
    }

    size_t convolution(const Json& json, const Shape& given, const Population& p,
                       Synapses& s) const {
        const Sizes kernel = pair(json, "kernel", 1), stride = pair(json, "stride", 1),
                    padding = pair(json, "padding", 0), dilation = pair(json, "dilation", 1);
        if (given.rank() != 3 || p.shape.rank() != 3 || !(shape(json, "input") == given))
            fail("a convolution of " + given.str() + " to " + p.shape.str());
        s.kind = Synapses::Kind::conv;
        s.conv = {.n = 1,
                  .h = given[0],
                  .w = given[1],
                  .cin = given[2],
                  .kh = kernel[0],
                  .kw = kernel[1],
                  .cout = p.channels(),
                  .stride_h = stride[0],
                  .stride_w = stride[1],
                  .pad_h = padding[0],
                  .pad_w = padding[1],
                  .dilation_h = dilation[0],
                  .dilation_w = dilation[1],
                  .groups = size_t(integer(json, "groups", 1, 65535))};
        const auto& c = s.conv;
        if (c.h + 2 * c.pad_h <= c.dilation_h * (c.kh - 1) ||
            c.w + 2 * c.pad_w <= c.dilation_w * (c.kw - 1) || c.cin % c.groups != 0 ||
            c.cout % c.groups != 0 || c.out_h() != p.shape[0] || c.out_w() != p.shape[1])
            fail("a convolution of " + given.str() + " does not give " + p.shape.str());
        return c.kh * c.kw * (c.cin / c.groups) * c.cout;
    }

    const Json& document_;
    const std::string path_;
    std::string where_;
};

}  // namespace

Json to_loihi(const IntegerNetwork& net, int T) {
    if (T < 1) throw Error("[loihi] T must be at least 1: " + std::to_string(T));
    const Chip chip = loihi2();
    place(net, chip);  // refuses what does not fit
    const Population& input = net.populations.front();
    Json populations = Json::array();
    for (size_t i = 1; i < net.populations.size(); ++i)
        populations.push_back(to_json(net, net.populations[i], chip));
    const int depth = net.populations.back().depth;
    return {{"format", "neurocuda-loihi"},
            {"version", 1},
            {"target", chip.name},
            {"T", T},
            {"depth", depth},
            {"steps", T + depth},
            {"latency", 1},
            {"fraction_bits", 6},
            {"input",
             {{"name", input.name},
              {"shape", input.shape.to_vector()},
              {"bits", 8},
              {"scale", net.input_scale}}},
            {"populations", populations}};
}

LoihiFile from_loihi(const Json& document, const std::string& path) {
    return LoihiReader(document, path).run();
}

}  // namespace nc
