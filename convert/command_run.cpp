// nc_convert run: a model on samples of a .npy file, its outputs into another.
#include <fmt/format.h>

#include <algorithm>

#include "convert/commands.h"
#include "io/npy.h"
#include "neurons/forward.h"

namespace nc::program {

namespace {

Tensor as_floats(const Tensor& x) {
    if (x.dtype() == DType::f32) return x;
    std::vector<float> values(x.elements());
    const auto copy = [&](auto zero) {
        const auto* from = x.data<decltype(zero)>();
        std::transform(from, from + values.size(), values.begin(), [](auto v) { return float(v); });
    };
    switch (x.dtype()) {
        case DType::f64:
            copy(double());
            break;
        case DType::i8:
            copy(int8_t());
            break;
        case DType::u8:
            copy(uint8_t());
            break;
        case DType::i16:
            copy(int16_t());
            break;
        case DType::i32:
            copy(int32_t());
            break;
        case DType::i64:
            copy(int64_t());
            break;
        default:
            copy(uint64_t());
    }
    return Tensor::from(values, x.shape());
}

// [.., C, H, W] to [.., H, W, C].
Tensor channels_last(const Tensor& x) {
    const Shape& s = x.shape();
    const size_t c = s[s.rank() - 3], area = s[s.rank() - 2] * s[s.rank() - 1];
    std::vector<size_t> sizes(s.begin(), s.end() - 3);
    for (const size_t axis : {s.rank() - 2, s.rank() - 1, s.rank() - 3}) sizes.push_back(s[axis]);
    Tensor out{Shape(sizes)};
    const float* from = x.data<float>();
    float* to = out.data<float>();
    for (size_t first = 0; first < x.elements(); first += c * area)
        for (size_t k = 0; k < c; ++k)
            for (size_t p = 0; p < area; ++p) to[first + p * c + k] = from[first + k * area + p];
    return out;
}

// The file's samples in the order of the graph's input; [T, N, ..] when temporal.
Tensor read_samples(const std::string& path, const Shape& sample, bool& temporal) {
    const Tensor x = as_floats(load_npy(path));
    const Shape& s = x.shape();
    const Shape wanted =
        sample.rank() == 3 ? Shape{sample[2], sample[0], sample[1]} : Shape{sample[0]};
    const size_t lead = s.rank() > wanted.rank() ? s.rank() - wanted.rank() : 0;
    temporal = lead == 2;
    if ((lead != 1 && lead != 2) || !std::equal(wanted.begin(), wanted.end(), s.begin() + lead))
        throw Error("[run] " + path + " has the shape " + s.str() + ", the model takes " +
                        wanted.with_leading(0).str() + " with N or T, N in the place of 0",
                    ErrorKind::data);
    if (x.elements() == 0) throw Error("[run] " + path + " holds no samples", ErrorKind::data);
    return sample.rank() == 3 ? channels_last(x) : x;
}

// Samples [begin, end) of [N, ..] or [T, N, ..].
Tensor some(const Tensor& x, bool temporal, size_t begin, size_t end) {
    if (!temporal) return x.slice(begin, end);
    const size_t T = x.shape()[0], row = x.elements() / T / x.shape()[1];
    Tensor out(x.shape().with(1, end - begin));
    for (size_t t = 0; t < T; ++t)
        std::copy_n(x.data<float>() + (t * x.shape()[1] + begin) * row, (end - begin) * row,
                    out.data<float>() + t * (end - begin) * row);
    return out;
}

}  // namespace

int run_command(int argc, char** argv) {
    Common common;
    std::string path, input, out;
    int T = 0;
    CLI::App app(
        "Runs a model on the samples of a .npy file, [N, C, H, W] or [N, F], or with time in "
        "front, and writes its logits [N, K], of a spiking model their mean over the time steps. "
        "The values are taken as they are: no normalisation.",
        "nc_convert run");
    app.add_option("model", path, "model file (.safetensors, .onnx)")->required();
    app.add_option("--input", input, "samples")->type_name("FILE.npy")->required();
    app.add_option("--out", out, "logits")->type_name("FILE.npy")->required();
    app.add_option("--T", T, "time steps (default: the model's)")->check(CLI::Range(1, 65536));
    add_common_options(app, common);
    add_precision_option(app, common);
    return run(app, argc, argv, [&] {
        check_output(out, common.force);
        Compute compute = make_compute(common);
        const Model model = read_model(path, &common);
        const auto shapes = infer_shapes(model.graph);
        Shape sample;
        for (size_t i = 0; i < shapes.size(); ++i)
            if (std::holds_alternative<Input>(model.graph.nodes[i].op)) sample = shapes[i];
        ForwardOptions options;
        const Tensor x = read_samples(input, sample, options.temporal_input);
        const size_t all = x.shape()[options.temporal_input ? 1 : 0];
        const size_t samples = common.samples > 0 ? std::min(all, common.samples) : all;
        if (is_spiking(model.graph) && !options.temporal_input) {
            options.T = size_t(T > 0 ? T : model.info.T);
            if (options.T < 1)
                throw Error("[run] the model has no T", ErrorKind::usage, "give one with --T");
        } else if (options.temporal_input && T > 0 && size_t(T) != x.shape()[0]) {
            throw Error(fmt::format("[run] --T {} for an input of {} steps", T, x.shape()[0]));
        }
        const Graph graph = on_device(model.graph, compute);
        std::vector<float> logits;
        constexpr size_t batch = 50;
        Shape row;
        for (size_t i = 0; i < samples; i += batch) {
            if (interrupted_by_user()) throw Interrupted();
            const Tensor part = some(x, options.temporal_input, i, std::min(samples, i + batch));
            const Forwarded y = forward(compute, graph, {}, part.to(*compute.allocator), options);
            const Tensor mean = mean_logits(compute, nullptr, y).value.to_host();
            row = mean.shape().without_leading();
            const auto values = mean.to_vector<float>();
            logits.insert(logits.end(), values.begin(), values.end());
        }
        const Tensor result = Tensor::from(logits, row.with_leading(samples));
        save_npy(out, result);
        const Json json = {
            {"model", path},
            {"input", input},
            {"out", out},
            {"samples", samples},
            {"T", is_spiking(graph) ? Json(options.temporal_input ? x.shape()[0] : options.T)
                                    : Json(nullptr)},
            {"command", typed_command}};
        print_result(common,
                     fmt::format("{}: {} of {} samples\n", out, result.shape().str(), samples),
                     json);
        return int(success);
    });
}

}  // namespace nc::program
