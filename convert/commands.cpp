// What the subcommands of nc_convert share: their table, reading models and data, text.
#include "convert/commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "convert/nir.h"
#include "datasets/flattened.h"
#include "io/onnx.h"

namespace nc::program {

std::string typed_command;

const std::vector<Command>& commands() {
    static const std::vector<Command> all = {
        {"eval", eval_command, "accuracy at every T of a model on test data"},
        {"sparsity", sparsity_command, "spikes per layer, with hashes of the spike trains"},
        {"energy", energy_command, "synaptic operations and modelled energy"},
        {"neurobench", neurobench_command, "the metrics of NeuroBench 2.3, by its names"},
        {"finetune", finetune_command, "train a spiking model further through its time steps"},
        {"quantize", quantize_command, "8-bit or fewer weights and integer thresholds"},
        {"verify", verify_command, "every membrane and spike on every backend, compared"},
        {"run", run_command, "logits of the samples in a .npy file"},
        {"export", export_command,
         "an ONNX time step; of a quantised network, Loihi 2, Lava, FPGAs and HLS"},
        {"frames", frames_command, "an event recording as frames in a .npy file"},
        {"actions", actions_command, "where two policies for CartPole act differently"},
        {"info", info_command, "what a model file holds"},
        {"backends", backends_command, "where networks can run on this machine"},
    };
    return all;
}

namespace {

// Whoever wrote it is named by the file: what it was trained on is not known.
Model imported(OnnxNetwork network, const std::string& path, const Common& common) {
    Model model;
    model.graph = std::move(network.graph);
    model.info.provenance["imported"] = path;
    if (!network.notes.empty()) model.info.provenance["notes"] = network.notes;
    for (const std::string& note : network.notes) say(common, "note: " + note);
    return model;
}

// A file's own steps count.
Model read_nir(const std::string& path, const ReadOptions& read, const Common& common) {
    Model model = from_nir(path, read.dt.value_or(default_dt), read.output);
    if (!read.dt) return model;
    std::optional<double> own;
    if (model.info.provenance.contains("dt")) own = model.info.provenance["dt"].get<double>();
    for (const Node& node : model.graph.nodes)
        if (const auto* membrane = std::get_if<Membrane>(&node.op))
            if (membrane->dt != *read.dt) own = membrane->dt;
    if (own && *own != *read.dt)
        warn(common,
             fmt::format("{} says dt = {} s a step itself: --dt {} counts for nothing there", path,
                         *own, *read.dt));
    return model;
}

Model read_file(const std::string& path, const ReadOptions& read, const Common& common) {
    std::ifstream file(path, std::ios::binary);
    char head[8] = {};
    file.read(head, sizeof head);
    const std::string extension = std::filesystem::path(path).extension().string();
    const bool hdf5 = file && std::equal(head, head + 8, "\x89HDF\r\n\x1a\n");
    if (hdf5 || extension == ".nir") return read_nir(path, read, common);
    if (read.dt || !read.output.empty())
        throw Error("[model] " + std::string(read.dt ? "--dt" : "--output") +
                        " is for NIR graphs, " + path + " is none",
                    ErrorKind::usage);
    if (extension == ".onnx") return imported(load_onnx(path), path, common);
    if ((extension == ".pt" || extension == ".pth") && std::filesystem::exists(path))
        throw Error("[model] " + path + " is a PyTorch file, which holds weights but no network",
                    ErrorKind::model,
                    "`nc_train --model NAME --dataset NAME --weights " + path +
                        " --epochs 0 --out ann.safetensors` makes a model of them");
    return load_model(path);
}

}  // namespace

Model read_model(const std::string& path, const ReadOptions& read, const Common& common) {
    Model model = read_file(path, read, common);
    model.graph = with_weights(common, model.graph, read.weights);
    if (!read.weights.empty()) model.info.provenance["weights"] = read.weights;
    return model;
}

void add_weights_option(CLI::App& app, ReadOptions& read) {
    app.add_option("--weights", read.weights,
                   "of a safetensors or PyTorch .pt file, laid over the model's by their names")
        ->type_name("FILE");
}

void add_nir_options(CLI::App& app, ReadOptions& read) {
    app.add_option(
           "--dt", read.dt,
           fmt::format("of a NIR graph that does not say: seconds a step (default {})", default_dt))
        ->type_name("SECONDS")
        ->check(CLI::PositiveNumber);
    app.add_option("--output", read.output, "of a NIR graph with several outputs: the one to keep")
        ->type_name("NAME");
}

void add_data_options(CLI::App& app, DataOptions& o) {
    app.add_option("--dataset", o.dataset, "data set (default: the model's)")->type_name("NAME");
    app.add_option("--framing", o.framing, "how recordings become frames (default: the model's)")
        ->type_name("SPEC");
    app.add_option("--mean", o.mean, "input normalisation per channel (default: the model's)")
        ->delimiter(',');
    app.add_option("--std", o.std, "its standard deviation")->delimiter(',');
    app.add_option("--scale", o.scale,
                   "what a white pixel is before mean and std (default 1; 255: bytes as they are)")
        ->check(CLI::PositiveNumber);
}

namespace {

std::unique_ptr<Dataset> at_most(const Dataset& data, size_t samples) {
    std::vector<uint32_t> indices(std::min(data.size(), samples > 0 ? samples : data.size()));
    for (size_t i = 0; i < indices.size(); ++i) indices[i] = uint32_t(i);
    return subset(data, std::move(indices));
}

Shape input_shape(const Graph& g) {
    for (const Node& node : g.nodes)
        if (const auto* input = std::get_if<Input>(&node.op)) return input->shape;
    return {};
}

LoadedData visited_states(const Common& common, const DataOptions& options, const ModelInfo& info,
                          const Graph& g) {
    if (!options.mean.empty() || !options.std.empty() || options.scale != 1 ||
        !options.framing.empty())
        throw Error("[data] cartpole's states are what they are: no mean, std, scale or framing",
                    ErrorKind::usage);
    check_policy(g);
    if (is_spiking(g) && info.T < 1)
        throw Error("[data] the policy does not say its T", ErrorKind::data);
    Compute compute(Device{}, common.threads);
    LoadedData out;
    out.name = "cartpole";
    out.measure = "agreement";
    out.sets = policy_states(compute, g, std::max(1, info.T), interrupted_by_user);
    out.train = at_most(*out.sets.train, common.samples);
    out.test = at_most(*out.sets.test, common.samples);
    out.subset = out.test->size() < out.sets.test->size();
    out.label = fmt::format("{} states it visits{}; accuracy: agreement with its own actions",
                            count(out.test->size()), out.subset ? " (a subset)" : "");
    return out;
}

}  // namespace

LoadedData load(const Common& common, const DataOptions& options, const ModelInfo& info,
                const Graph& g, int T) {
    LoadedData out;
    DataRequest request;
    request.name = options.dataset.empty() ? info.dataset : options.dataset;
    if (request.name.empty())
        throw Error("[data] no data set: the model names none", ErrorKind::usage,
                    "give one with --dataset");
    if (options.dataset.empty()) say(common, "data set: " + request.name + ", from the model");
    if (request.name == "cartpole") return visited_states(common, options, info, g);
    request.root = common.data;
    request.T = T > 0 ? T : info.T;
    request.framing = options.framing.empty() ? info.framing : options.framing;
    const bool own = !options.mean.empty() || !options.std.empty() || options.scale != 1;
    request.mean = own ? options.mean : info.mean;
    request.std = own ? options.std : info.std;
    if (options.scale != 1) {
        // (s x - mean) / std is (x - mean / s) / (std / s).
        const size_t channels = input_shape(g).rank() == 3 ? input_shape(g).back() : 1;
        if (request.mean.empty()) request.mean.assign(channels, 0);
        if (request.std.empty()) request.std.assign(channels, 1);
        for (float& m : request.mean) m = float(m / options.scale);
        for (float& s : request.std) s = float(s / options.scale);
    }
    try {
        out.sets = load_data(request);
    } catch (const Error& e) {
        if (!e.hint.empty() || own || info.dataset.empty() || info.dataset == request.name) throw;
        throw Error(e.what(), e.kind, "the model was made for " + info.dataset);
    }
    out.name = request.name;
    if (request.mean.empty()) say(common, "input normalisation: the data set's own");
    if (!out.sets.note.empty()) say(common, request.name + ": " + out.sets.note);

    const Shape wanted = input_shape(g);
    if (wanted == Shape{out.sets.test->sample_shape().elements()}) {
        out.sets.train = flattened(std::move(out.sets.train));
        out.sets.test = flattened(std::move(out.sets.test));
    }
    const Shape sample = out.sets.test->sample_shape();
    if (!(wanted == sample))
        throw Error("[data] " + request.name + " has samples of shape " + sample.str() +
                        ", the model takes " + wanted.str(),
                    ErrorKind::data);
    out.train = drawn(*out.sets.train, common.samples, common.seed);
    out.test = at_most(*out.sets.test, common.samples);
    out.subset = out.test->size() < out.sets.test->size() || out.sets.note.starts_with("subset");
    const std::string what = out.sets.test->steps() > 0 ? "test recordings" : "test images";
    const bool simulated = out.sets.note.starts_with("simulated");
    out.label = fmt::format("{}{} {}{}", count(out.test->size()), simulated ? " simulated" : "",
                            what, out.subset ? " (a subset)" : "");
    return out;
}

Json environment(const Compute& compute) {
    Json out;
    out["version"] = version();
    out["instruction_set"] = compute.table->name;
    out["threads"] = compute.queue.threads;
    out["device"] = compute.device.str();
    kernels::DeviceProperties card = {};
    if (compute.backend != nullptr && compute.backend->properties(compute.device.index, &card) == 0)
        out["card"] = card.name;
#if defined(__clang__)
    out["compiler"] = "clang " __clang_version__;
#else
    out["compiler"] = "g++ " __VERSION__;
#endif
    return out;
}

std::string percent(double value) {
    return fmt::format("{:.2f}", value);
}

std::string count(uint64_t value) {
    std::string digits = std::to_string(value);
    for (size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, 1, ' ');
    return digits;
}

std::string text_table(const std::vector<std::vector<std::string>>& rows) {
    std::vector<size_t> widths;
    for (const auto& row : rows)
        for (size_t i = 0; i < row.size(); ++i) {
            if (i == widths.size()) widths.push_back(0);
            widths[i] = std::max(widths[i], row[i].size());
        }
    std::string out;
    for (const auto& row : rows) {
        std::string line;
        for (size_t i = 0; i < row.size(); ++i)
            line += i == 0 ? fmt::format("{:<{}}", row[i], widths[i])
                           : fmt::format("  {:>{}}", row[i], widths[i]);
        line.erase(line.find_last_not_of(' ') + 1);
        out += line + "\n";
    }
    return out;
}

ops::SpikePath parse_path(const std::string& text) {
    if (text == "auto") return ops::SpikePath::automatic;
    if (text == "dense") return ops::SpikePath::dense;
    if (text == "event") return ops::SpikePath::event;
    throw Error("[path] unknown path '" + text + "'", ErrorKind::usage,
                suggestion(text, {"auto", "dense", "event"}));
}

int steps_of(const Model& model, int wanted, const Dataset& data) {
    if (!is_spiking(model.graph))
        throw Error("[model] the network has no spiking neurons", ErrorKind::usage,
                    "`nc_convert MODEL --dataset ...` makes a spiking network of it");
    return deployment_steps(model.graph, wanted, model.info.T, data);
}

}  // namespace nc::program
