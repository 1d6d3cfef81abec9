// nc_convert run: a model on samples of a .npy file, its outputs into another.
#include <fmt/format.h>

#include <algorithm>

#include "convert/commands.h"
#include "io/named_inputs.h"
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

std::string quoted(const std::vector<std::string>& names) {
    std::vector<std::string> out;
    for (const std::string& name : names) out.push_back("'" + name + "'");
    return joined(out);
}

// Of --input [NAME=]FILE, ..: the file of each input.
std::vector<std::string> input_files(const std::vector<NamedInput>& inputs,
                                     const std::vector<std::string>& given) {
    if (inputs.size() == 1 && given.size() == 1) {
        const std::string name = inputs[0].name + "=";
        return {given[0].substr(given[0].rfind(name, 0) == 0 ? name.size() : 0)};
    }
    std::vector<std::string> files(inputs.size()), known, unknown, twice, missing;
    for (const std::string& word : given) {
        const size_t equals = word.find('=');
        const std::string name = word.substr(0, equals);
        const auto found = std::find_if(inputs.begin(), inputs.end(),
                                        [&](const NamedInput& i) { return i.name == name; });
        if (found == inputs.end() || equals == std::string::npos)
            unknown.push_back(name);
        else if (std::string& file = files[size_t(found - inputs.begin())]; !file.empty())
            twice.push_back(name);
        else if ((file = word.substr(equals + 1)).empty())
            throw Error("[run] no file: '" + word + "'", ErrorKind::usage);
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
        known.push_back(inputs[i].name);
        if (files[i].empty()) missing.push_back(inputs[i].name);
    }
    std::string wrong;
    for (const auto& [what, names] :
         {std::pair{"missing ", &missing}, std::pair{"unknown ", &unknown},
          std::pair{"more than once ", &twice}})
        if (!names->empty()) wrong += (wrong.empty() ? "" : "; ") + (what + quoted(*names));
    if (!wrong.empty())
        throw Error("[run] --input: " + wrong, ErrorKind::usage,
                    known.size() == 1 ? "the model has one input: --input FILE.npy"
                                      : "the model has the inputs " + quoted(known) +
                                            ": --input NAME=FILE.npy for each of them");
    return files;
}

// Each input's samples, side by side along the last axis.
Tensor read_inputs(const std::vector<NamedInput>& inputs, const std::vector<std::string>& files,
                   const Shape& sample, bool& temporal) {
    if (inputs.size() == 1) return read_samples(files[0], sample, temporal);
    Tensor out;
    const size_t channels = sample.back();
    for (size_t i = 0; i < inputs.size(); ++i) {
        bool steps = false;
        const size_t own = inputs[i].channels;
        const Tensor x = read_samples(files[i], sample.with(sample.rank() - 1, own), steps);
        const Shape& s = x.shape();
        if (i == 0) {
            temporal = steps;
            out = Tensor(s.with(s.rank() - 1, channels));
        }
        if (!(s.with(s.rank() - 1, channels) == out.shape()))
            throw Error("[run] " + files[i] + " holds " + s.str() + ", " + files[0] + " " +
                            out.shape().with(s.rank() - 1, inputs[0].channels).str() +
                            ": not as many samples or steps",
                        ErrorKind::data);
        const float* from = x.data<float>();
        float* to = out.data<float>() + inputs[i].first;
        for (size_t k = 0; k < x.elements(); k += own, to += channels)
            std::copy_n(from + k, own, to);
    }
    return out;
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
    ReadOptions read;
    std::string path, out;
    std::vector<std::string> input;
    int T = 0;
    CLI::App app(
        "Runs a model on the samples of a .npy file, [N, C, H, W] or [N, F], or with time in "
        "front, and writes its logits [N, K], of a spiking model their mean over the time steps. "
        "The values are taken as they are: no normalisation.",
        "nc_convert run");
    app.add_option("model", path, "model file (.safetensors, .onnx, .nir)")->required();
    app.add_option("--input", input, "samples; of each input by its name, where there are several")
        ->type_name("[NAME=]FILE.npy")
        ->allow_extra_args(false)
        ->required();
    app.add_option("--out", out, "logits")->type_name("FILE.npy")->required();
    app.add_option("--T", T, "time steps (default: the model's)")->check(CLI::Range(1, 65536));
    add_nir_options(app, read);
    add_common_options(app, common);
    add_precision_option(app, common);
    return run(app, argc, argv, [&] {
        check_output(out, common.force);
        Compute compute = make_compute(common);
        const Model model = read_model(path, read, common);
        const auto shapes = infer_shapes(model.graph);
        Shape sample;
        for (size_t i = 0; i < shapes.size(); ++i)
            if (std::holds_alternative<Input>(model.graph.nodes[i].op)) sample = shapes[i];
        ForwardOptions options;
        const std::vector<NamedInput> inputs = named_inputs(model.graph);
        const std::vector<std::string> files = input_files(inputs, input);
        const Tensor x = read_inputs(inputs, files, sample, options.temporal_input);
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
        Json of_each;  // by name, where there are several
        for (size_t i = 0; i < inputs.size(); ++i)
            (inputs.size() > 1 ? of_each[inputs[i].name] : of_each) = files[i];
        save_npy(out, result);
        const Json json = {
            {"model", path},
            {"input", of_each},
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
