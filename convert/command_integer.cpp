// nc_convert quantize and verify: a spiking network in whole numbers, and the proof that every
// backend computes the same with them.
#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "convert/commands.h"
#include "convert/fold.h"
#include "convert/quantize.h"
#include "convert/verify.h"

namespace nc::program {

namespace {

bool is_quantised(const Graph& g) {
    for (const Node& node : g.nodes)
        if (const auto* input = std::get_if<Input>(&node.op); input && input->scale > 0)
            return true;
    return false;
}

struct Integers {
    Common common;
    DataOptions data;
    ReadOptions read;
    std::string model;
    int T = 0;
    QuantizeOptions quantize;
};

void add_integer_options(CLI::App& app, Integers& o) {
    app.add_option("model", o.model, "a spiking model file (.safetensors, .nir)")->required();
    add_nir_options(app, o.read);
    app.add_option("--T", o.T, "time steps (default: the model's)")->check(CLI::Range(1, 65536));
    app.add_option("--bits", o.quantize.bits, "of a weight, 2 to 8")->capture_default_str();
    app.add_option("--calibration-samples", o.quantize.calibration_samples,
                   "training samples that show how far membranes go")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_flag("--one-threshold", o.quantize.one_threshold,
                 "one scale for all channels of a layer, so that one threshold stays one");
    add_data_options(app, o.data);
    add_common_options(app, o.common);
}

// A network trained with spikes still has what conversion would have folded.
Graph folded(const Graph& g) {
    return fold_amplitudes(fold_batch_norm(g));
}

std::string layer_table(const Quantized& q) {
    std::vector<std::vector<std::string>> rows = {
        {"feeds", "scale", "threshold", "weight error %", "membrane, % of its register"}};
    for (const QuantizedLayer& l : q.layers)
        rows.push_back(
            {l.name, fmt::format("{:.4g} .. {:.4g}", l.scale_min, l.scale_max),
             l.threshold_max > 0 ? fmt::format("{} .. {}", l.threshold_min, l.threshold_max) : "",
             percent(100 * l.weight_error), l.threshold_max > 0 ? percent(100 * l.headroom) : ""});
    return text_table(rows);
}

Json to_json(const std::vector<QuantizedLayer>& layers) {
    Json out = Json::array();
    for (const QuantizedLayer& l : layers)
        out.push_back({{"name", l.name},
                       {"scale_min", l.scale_min},
                       {"scale_max", l.scale_max},
                       {"threshold_min", l.threshold_min},
                       {"threshold_max", l.threshold_max},
                       {"weight_error_percent", 100 * l.weight_error},
                       {"register_use_percent", 100 * l.headroom}});
    return out;
}

}  // namespace

int quantize_command(int argc, char** argv) {
    Integers o;
    std::string out;
    ConvertOptions training;
    training.if_epochs = 0;
    bool no_clip_search = false;
    CLI::App app(
        "Whole numbers for weights, biases and thresholds, and how far the result departs from "
        "the network in floats.",
        "nc_convert quantize");
    add_integer_options(app, o);
    app.add_option("--out", out, "the quantised network's file")->type_name("FILE")->required();
    app.add_flag("--no-clip-search", no_clip_search,
                 "a channel's scale is its largest weight's, not the one of least error");
    add_training_options(app, training);
    app.get_option("--if-epochs")
        ->description("epochs of training through the rounded weights; 0: none");
    app.get_option("--if-lr")->description("their learning rate (default 3e-4)");
    return run(app, argc, argv, [&] {
        check_output(out, o.common.force);
        Compute compute = make_compute(o.common);
        Model model = read_model(o.model, o.read, o.common);
        model.graph = folded(model.graph);
        const LoadedData data = load(o.common, o.data, model.info, model.graph, o.T);
        o.quantize.T = steps_of(model, o.T, *data.test);
        o.quantize.clip_search = !no_clip_search;
        Graph tuned = model.graph;
        if (training.if_epochs > 0) {
            training.seed = o.common.seed;
            // A tuned network is near its best: the rate of a first tuning would lose more than it
            // gains.
            if (training.if_lr == 0) training.if_lr = 3e-4;
            Watcher watcher(o.common, model.info, training);
            TrainHooks hooks;
            hooks.stop = training.stop;
            hooks.progress = [&](const Progress& p) { training.progress("tune", &p); };
            tuned = tune_rounded(compute, tuned, model.info, *data.train, o.quantize,
                                 tuning(tuned, training, o.quantize.T), hooks);
        }
        const Quantized q = quantize(compute, tuned, *data.train, o.quantize);
        MeasureOptions how;
        how.T = o.quantize.T;
        how.stop = interrupted_by_user;
        const Measured before = measure_sparsity(compute, model.graph, *data.test, how);
        const Measured after = measure_sparsity(compute, q.graph, *data.test, how);
        const SpikeDifference spikes = compare_spikes(compute, model.graph, q.graph, *data.test,
                                                      o.quantize.T, interrupted_by_user);
        model.graph = q.graph;
        model.info.T = o.quantize.T;
        model.info.provenance["quantized"] = {
            {"command", typed_command}, {"bits", o.quantize.bits}, {"from", o.model}};
        save_model(out, model);
        const double share =
            spikes.compared == 0 ? 0 : 100 * double(spikes.different) / double(spikes.compared);
        Json json = {{"model", o.model},
                     {"out", out},
                     {"dataset", data.name},
                     {"samples", before.samples},
                     {"subset", data.subset},
                     {"T", o.quantize.T},
                     {"bits", o.quantize.bits},
                     {"accuracy", before.accuracy},
                     {"quantized_accuracy", after.accuracy},
                     {"spikes_compared", spikes.compared},
                     {"spikes_different", spikes.different},
                     {"layers", to_json(q.layers)},
                     {"command", typed_command},
                     {"environment", environment(compute)}};
        print_result(
            o.common,
            fmt::format("{} on {}, {}; {} bits, T = {}\n{}accuracy {} % in floats, {} % quantised\n"
                        "{} of {} (neuron, step) pairs spike differently ({:.3f} %)\n",
                        std::filesystem::path(o.model).filename().string(), data.name, data.label,
                        o.quantize.bits, o.quantize.T, layer_table(q), percent(before.accuracy),
                        percent(after.accuracy), count(spikes.different), count(spikes.compared),
                        share),
            json);
        return int(success);
    });
}

int verify_command(int argc, char** argv) {
    Integers o;
    VerifyOptions how;
    CLI::App app(
        "Runs the same samples on every backend with one set of integers and compares every "
        "current, membrane and spike. A network in floats is quantised first.",
        "nc_convert verify");
    add_integer_options(app, o);
    app.add_option("--reference-samples", how.reference_samples,
                   "how many of the samples the slow reference table takes, too")
        ->capture_default_str();
    return run(app, argc, argv, [&] {
        Compute compute = make_compute(o.common);
        const Model model = read_model(o.model, o.read, o.common);
        const LoadedData data = load(o.common, o.data, model.info, model.graph, o.T);
        o.quantize.T = steps_of(model, o.T, *data.test);
        const bool given = is_quantised(model.graph);
        const Graph graph =
            given ? model.graph
                  : quantize(compute, folded(model.graph), *data.train, o.quantize).graph;
        how.T = o.quantize.T;
        how.samples = data.test->size();
        how.threads = o.common.threads;
        // A card takes part where there is one, asked for or not.
        std::optional<Compute> card;
        if (compute.on_host() && kernels::cuda_backend() != nullptr)
            card.emplace(Device{DeviceKind::cuda, 0});
        how.device = card ? &*card : compute.on_host() ? nullptr : &compute;
        how.stop = interrupted_by_user;
        const Verification v = verify(graph, *data.test, how);
        std::vector<std::vector<std::string>> rows = {
            {"backend", "samples", "neuron steps", "spikes", "u differ", "v differ", "s differ",
             "logits differ", "wraps + clips", "accuracy %"}};
        std::string text;
        for (const VerifiedBackend& b : v.backends) {
            rows.push_back({b.name, count(b.samples), count(b.neuron_steps), count(b.spikes),
                            count(b.u_different), count(b.v_different), count(b.s_different),
                            count(b.logits_different), count(b.wraps + b.clips),
                            percent(b.accuracy)});
            if (!b.first.empty()) text += b.name + ": first difference: " + b.first + "\n";
        }
        for (const std::string& line : v.left_out) text += "left out: " + line + "\n";
        Json json = to_json(v);
        json["model"] = o.model;
        json["dataset"] = data.name;
        json["quantized_here"] = !given;
        json["bits"] = given ? Json(nullptr) : Json(o.quantize.bits);
        json["command"] = typed_command;
        json["environment"] = environment(compute);
        print_result(
            o.common,
            fmt::format(
                "{} on {}, {}; T = {}{}\n{}{}{}\n",
                std::filesystem::path(o.model).filename().string(), data.name, data.label, how.T,
                given ? "" : fmt::format(", quantised to {} bits", o.quantize.bits),
                text_table(rows), text,
                v.passed() ? "every backend agrees in every u, v and s" : "BACKENDS DIFFER"),
            json);
        return int(v.passed() ? success : check_failed);
    });
}

}  // namespace nc::program
