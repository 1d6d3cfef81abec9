// nc_convert eval, sparsity, energy and neurobench: what a model does on test data.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "convert/commands.h"
#include "convert/integer_run.h"
#include "convert/statistics.h"
#include "hw/neurobench.h"

namespace nc::program {

namespace {

struct Measurement {
    Common common;
    DataOptions data;
    std::string model, path = "auto";
    ReadOptions read;
    int T = 0;
    bool hash = false;
};

void add_measurement_options(CLI::App& app, Measurement& o) {
    app.add_option("model", o.model, "model file (.safetensors, .onnx, .nir)")->required();
    add_weights_option(app, o.read);
    add_nir_options(app, o.read);
    app.add_option("--T", o.T, "time steps (default: the model's)")->check(CLI::Range(1, 65536));
    app.add_option("--path", o.path, "auto, dense or event: how spikes meet weights")
        ->capture_default_str();
    add_data_options(app, o.data);
    add_common_options(app, o.common);
    add_precision_option(app, o.common);
}

struct Run {
    Model model;
    LoadedData data;
    Measured measured;
    Json json;
};

// What both commands do: load, run, and the JSON they have in common.
enum class Wanted { accuracy, hash, operations };
Run measure(const Measurement& o, Compute& compute, Wanted wanted) {
    Run r;
    const ops::SpikePath path = parse_path(o.path);
    r.model = read_model(o.model, o.read, o.common);
    r.data = load(o.common, o.data, r.model.info, r.model.graph, o.T);
    MeasureOptions options;
    options.T = steps_of(r.model, o.T, *r.data.test);
    options.path = path;
    options.hash = wanted == Wanted::hash;
    options.operations = wanted == Wanted::operations;
    // Every T, or of many the powers of two.
    for (size_t t = 1; options.operations && t <= size_t(options.T); ++t)
        if (options.T <= 32 || (t & (t - 1)) == 0 || t == size_t(options.T))
            options.operations_at.push_back(t);
    options.stop = interrupted_by_user;
    r.measured = measure_sparsity(compute, r.model.graph, *r.data.test, options);
    r.json["model"] = o.model;
    r.json["dataset"] = r.data.name;
    r.json["samples"] = r.measured.samples;
    r.json["subset"] = r.data.subset;
    r.json["measure"] = r.data.measure;
    r.json["T"] = r.measured.T;
    return r;
}

std::string title(const Measurement& o, const LoadedData& data) {
    return fmt::format("{} on {}, {}", std::filesystem::path(o.model).filename().string(),
                       data.name, data.label);
}

void add_environment(Json& json, const Compute& compute) {
    json["command"] = typed_command;
    json["environment"] = environment(compute);
}

// Whether the target computes in whole numbers. Error on one that is unknown, and on options that
// say something else.
bool check_target(const std::string& target, const Measurement& o) {
    const std::vector<std::string> known = {"cpu", "cuda", "loihi", "fpga"};
    if (std::find(known.begin(), known.end(), target) == known.end())
        throw Error("[eval] unknown target '" + target + "'", ErrorKind::usage,
                    suggestion(target, known));
    const bool card = o.common.device.rfind("cuda", 0) == 0;
    if (card && target != "cpu" && target != "cuda")
        throw Error(
            "[eval] the simulator of " + target + " runs on the CPU, not on " + o.common.device,
            ErrorKind::usage);
    const bool integers = target == "loihi" || target == "fpga";
    if (integers && (o.hash || o.path != "auto"))
        throw Error(std::string("[eval] ") + (o.hash ? "--spike-hash" : "--path") +
                        " is for networks in floats, the target is " + target,
                    ErrorKind::usage, "nc_convert verify compares every spike of every target");
    return integers;
}

// A table of accuracies, step by step.
std::string accuracy_table(const std::vector<double>& accuracy_at_t, const std::string& measure) {
    std::vector<std::vector<std::string>> rows = {{"T", measure + " %"}};
    for (size_t t = 1; t <= accuracy_at_t.size(); ++t)
        rows.push_back({std::to_string(t), percent(accuracy_at_t[t - 1])});
    return text_table(rows);
}

// A quantised network on the simulator of an integer target.
int eval_integers(const Measurement& o, Compute& compute, const Model& model,
                  const std::string& target) {
    integer_network(model.graph);  // refuses what is not quantised before data is read
    const LoadedData data = load(o.common, o.data, model.info, model.graph, o.T);
    const int T = steps_of(model, o.T, *data.test);
    const IntegerEvaluation e = evaluate_integers(
        compute, model.graph, *data.test, T,
        target == "fpga" ? IntegerTarget::fpga : IntegerTarget::loihi, interrupted_by_user);
    const double sparsity = 100 * (1 - double(e.spikes) / double(e.neuron_steps));
    Json json = {{"model", o.model},         {"dataset", data.name},
                 {"samples", e.samples},     {"subset", data.subset},
                 {"measure", data.measure},  {"T", T},
                 {"target", target},         {"kind", "simulator"},
                 {"accuracy", e.accuracy()}, {"accuracy_at_t", e.accuracy_at_t},
                 {"sparsity", sparsity},     {"seconds", e.seconds}};
    std::string text = title(o, data) + "; on " + target + ", simulated\n" +
                       accuracy_table(e.accuracy_at_t, data.measure) +
                       fmt::format("sparsity {} %, {:.1f} samples/s\n", percent(sparsity),
                                   double(e.samples) / e.seconds);
    if (target == "fpga") {
        json["cycles_per_sample"] = e.cycles;
        json["worst_step_cycles"] = e.worst_step;
        json["step_bound_cycles"] = e.step_bound;
        text +=
            fmt::format("{:.0f} cycles a sample on average, {} in the longest step, at most {}\n",
                        e.cycles, count(e.worst_step), count(e.step_bound));
    } else {
        json["register_wraps"] = e.wraps;
        json["register_clips"] = e.clips;
        text +=
            fmt::format("24-bit registers: {} wraps, {} clips\n", count(e.wraps), count(e.clips));
    }
    add_environment(json, compute);
    print_result(o.common, text, json);
    return success;
}

// The T of a curve: the powers of two, and the last.
std::vector<Player> at_every_T(const Graph& g, int T) {
    std::vector<Player> players;
    for (int t = 1; t < T; t *= 2) players.push_back({"SNN", g, t});
    players.push_back({"SNN", g, T});
    return players;
}

int eval_analog(const Measurement& o, Compute& compute, const Model& model) {
    if (o.T > 0)
        throw Error("[eval] " + o.model + " has no neurons: T means nothing to it",
                    ErrorKind::usage, "leave out --T");
    const LoadedData data = load(o.common, o.data, model.info, model.graph, 0);
    EvaluateOptions options;
    options.ann_frames = model.info.ann_frames.empty() ? "mean" : model.info.ann_frames;
    options.observe = [](const Observation&) {
        if (interrupted_by_user()) throw Interrupted();
    };
    const Evaluation e = evaluate(compute, model.graph, *data.test, options);
    Json json = {{"model", o.model},       {"dataset", data.name},    {"samples", e.samples},
                 {"subset", data.subset},  {"measure", data.measure}, {"T", nullptr},
                 {"accuracy", e.accuracy}, {"seconds", e.seconds}};
    add_environment(json, compute);
    std::string text =
        fmt::format("{}\n{} {} %\n", title(o, data), data.measure, percent(e.accuracy));
    if (data.policy()) text += returns_table(compute, {{"ANN", model.graph, 0}}, json["returns"]);
    print_result(o.common, text, json);
    return success;
}

// What a smaller T, a cached first layer or fewer spikes would make of the saving: a table, and
// what follows from it in words.
std::string what_would_save(const Measured& m, const Energy& e, size_t frames,
                            const std::string& measure, Json& json) {
    std::vector<std::vector<std::string>> rows = {
        {"T", measure + " %", "saving %", "first layer not cached: %"}};
    size_t most = 0;
    Json table = Json::array();
    bool cached = false;
    for (const LayerOperations& layer : e.layers) cached = cached || layer.cached;
    for (const Operations& o : m.operations_at) {
        // An analog network that ran on each frame would have run on the first of them.
        const size_t runs = frames > 1 ? o.steps : frames;
        const Energy at = energy(o, e.target, runs);
        const double always = energy(without_cache(o), e.target, runs).saving;
        const double accuracy = m.accuracy_at_t.at(o.steps - 1);
        if (at.saving > 0) most = o.steps;
        rows.push_back({std::to_string(o.steps), percent(accuracy), percent(at.saving),
                        cached ? percent(always) : "-"});
        table.push_back({{"T", o.steps},
                         {"accuracy", accuracy},
                         {"saving_percent", at.saving},
                         {"saving_percent_without_cache", cached ? Json(always) : Json(nullptr)}});
    }
    const double rate = break_even_rate(e);
    json["by_T"] = table;
    json["positive_up_to_T"] = most > 0 ? Json(most) : Json(nullptr);
    json["break_even_rate"] = number_or_null(rate);
    std::string text = "the saving by T, at the measured rates:\n";
    text += text_table(rows);
    text += most == size_t(m.T) ? fmt::format("it is positive at T = {}", most)
            : most > 0          ? fmt::format("it is positive up to T = {}", most)
                                : std::string("it is positive at no T");
    if (rate >= 1 && std::isfinite(rate))
        text += fmt::format(", and would be with up to {:.1f} times the spikes", rate);
    else if (rate > 0 && std::isfinite(rate))
        text += fmt::format("; at T = {} it would be with fewer than {:.1f} % of the spikes", m.T,
                            100 * rate);
    else if (rate == 0)
        text += fmt::format("; at T = {} the multiplications alone cost more", m.T);
    return text + "\n";
}

std::string hex(uint64_t hash) {
    return fmt::format("{:016x}", hash);
}

}  // namespace

int eval_command(int argc, char** argv) {
    Measurement o;
    CLI::App app(
        "Accuracy of a model on the test data; of a spiking one at every T up to --T, "
        "from one run.",
        "nc_convert eval");
    std::string target = "cpu";
    add_measurement_options(app, o);
    app.add_option("--target", target,
                   "where it runs: cpu or cuda, in floats; loihi or fpga, simulated, in whole "
                   "numbers")
        ->capture_default_str();
    app.add_flag("--spike-hash", o.hash,
                 "a hash of all spike trains, the same for every instruction set and path");
    return run(app, argc, argv, [&] {
        const bool integers = check_target(target, o);
        if (target == "cuda" && o.common.device == "cpu") o.common.device = "cuda";
        Compute compute = make_compute(o.common);
        parse_path(o.path);
        const Model model = read_model(o.model, o.read, o.common);
        if (integers) return eval_integers(o, compute, model, target);
        if (!is_spiking(model.graph)) return eval_analog(o, compute, model);
        Run r = measure(o, compute, o.hash ? Wanted::hash : Wanted::accuracy);
        const Measured& m = r.measured;
        r.json["accuracy"] = m.accuracy;
        r.json["accuracy_at_t"] = m.accuracy_at_t;
        r.json["sparsity"] = m.sparsity();
        if (o.hash) r.json["spike_hash"] = hex(m.hash());
        r.json["seconds"] = m.seconds;
        add_environment(r.json, compute);
        std::string text =
            title(o, r.data) + "\n" + accuracy_table(m.accuracy_at_t, r.data.measure);
        if (r.data.policy())
            text += returns_table(compute, at_every_T(r.model.graph, m.T), r.json["returns"]);
        text += fmt::format("sparsity {} %, {:.1f} samples/s\n", percent(m.sparsity()),
                            double(m.samples) / m.seconds);
        if (o.hash) text += "spike hash " + hex(m.hash()) + "\n";
        print_result(o.common, text, r.json);
        return int(success);
    });
}

int sparsity_command(int argc, char** argv) {
    Measurement o;
    CLI::App app("Spikes of every layer over the test data, with a hash of each layer's trains.",
                 "nc_convert sparsity");
    add_measurement_options(app, o);
    return run(app, argc, argv, [&] {
        Compute compute = make_compute(o.common);
        Run r = measure(o, compute, Wanted::hash);
        const Measured& m = r.measured;
        r.json["sparsity"] = m.sparsity();
        r.json["spikes"] = m.spikes();
        r.json["possible_spikes"] = m.possible();
        r.json["spike_hash"] = hex(m.hash());
        r.json["layers"] = Json::array();
        const auto sparsity = [](uint64_t spikes, uint64_t possible) {
            return 100 * (1 - double(spikes) / double(possible));
        };
        std::vector<std::vector<std::string>> rows = {
            {"layer", "neurons", "spikes", "possible", "sparsity %", "hash"}};
        for (const auto& layer : m.layers) {
            const double value = sparsity(layer.spikes, layer.possible);
            r.json["layers"].push_back({{"name", layer.name},
                                        {"neurons", layer.neurons},
                                        {"spikes", layer.spikes},
                                        {"possible_spikes", layer.possible},
                                        {"sparsity", value},
                                        {"spike_hash", hex(layer.hash)}});
            rows.push_back({layer.name, count(layer.neurons), count(layer.spikes),
                            count(layer.possible), percent(value), hex(layer.hash)});
        }
        rows.push_back({"all", "", count(m.spikes()), count(m.possible()), percent(m.sparsity()),
                        hex(m.hash())});
        add_environment(r.json, compute);
        print_result(o.common,
                     fmt::format("{}, T = {}\n{}", title(o, r.data), m.T, text_table(rows)),
                     r.json);
        return int(success);
    });
}

int energy_command(int argc, char** argv) {
    Measurement o;
    std::string ann_frames;
    CLI::App app(
        "Synaptic operations counted over the test data, and the energy they would take: "
        "modelled, arithmetic only.",
        "nc_convert energy");
    add_measurement_options(app, o);
    app.add_option("--ann-frames", ann_frames,
                   "recordings: the analog network ran on each frame (mean, default) or once (sum)")
        ->check(CLI::IsMember({"mean", "sum"}));
    return run(app, argc, argv, [&] {
        Compute compute = make_compute(o.common);
        Run r = measure(o, compute, Wanted::operations);
        const size_t frames = frames_of(*r.data.test, ann_frames);
        const Energy e = energy(*r.measured.operations, digital_45nm(), frames);
        r.json["energy"] = to_json(e);
        const std::string savings =
            what_would_save(r.measured, e, frames, r.data.measure, r.json["energy"]);
        add_environment(r.json, compute);
        std::vector<std::vector<std::string>> rows = {
            {"layer", "input", "MACs a sample", "ACs a sample", "dense MACs"}};
        const double samples = double(e.samples);
        for (const LayerOperations& layer : e.layers)
            rows.push_back({layer.name, layer.analog ? "analog" : "spikes",
                            fmt::format("{:.0f}", double(layer.macs) / samples),
                            fmt::format("{:.0f}", double(layer.acs) / samples),
                            count(layer.dense_macs)});
        rows.push_back({"all", "", fmt::format("{:.0f}", e.macs), fmt::format("{:.0f}", e.acs),
                        fmt::format("{:.0f}", e.ann_macs)});
        std::string text = title(o, r.data) + "\n" + text_table(rows) + energy_text(e) + savings;
        for (const auto& assumption : r.json["energy"]["assumptions"])
            text += "  " + assumption.get<std::string>() + "\n";
        print_result(o.common, text, r.json);
        return int(success);
    });
}

int neurobench_command(int argc, char** argv) {
    Measurement o;
    CLI::App app(
        "The metrics of NeuroBench 2.3 under its names, counted over the test data: fractions, not "
        "percent; operations and updates per sample, summed over T.",
        "nc_convert neurobench");
    add_measurement_options(app, o);
    return run(app, argc, argv, [&] {
        Compute compute = make_compute(o.common);
        EvaluateOptions how;
        how.path = parse_path(o.path);
        const Model model = read_model(o.model, o.read, o.common);
        const LoadedData data = load(o.common, o.data, model.info, model.graph, o.T);
        how.T = steps_of(model, o.T, *data.test);
        how.observe = [](const Observation&) {
            if (interrupted_by_user()) throw Interrupted();
        };
        const NeuroBench n = neurobench(compute, model.graph, *data.test, how);
        Json json = {{"model", o.model},      {"dataset", data.name}, {"samples", n.samples},
                     {"subset", data.subset}, {"T", n.steps},         {"neurobench", to_json(n)}};
        add_environment(json, compute);
        std::vector<std::vector<std::string>> rows;
        for (const auto& [key, value] : json["neurobench"].items()) {
            if (!value.is_object()) rows.push_back({key, value.dump()});
            for (const auto& [part, number] : value.items())
                if (value.is_object()) rows.push_back({key + " " + part, number.dump()});
        }
        print_result(o.common,
                     fmt::format("{}, T = {}\n{}fractions, not percent; operations and updates "
                                 "per sample, summed over T, the input given anew at every step\n",
                                 title(o, data), n.steps, text_table(rows)),
                     json);
        return int(success);
    });
}

}  // namespace nc::program
