// The options of nc_train that every way of training has, and resuming.
#include "neurons/train_options.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <sstream>

#include "io/bytes.h"
#include "neurons/zoo.h"

namespace nc::program {

namespace fs = std::filesystem;

size_t choose(const std::string& option, const std::string& given,
              const std::vector<std::string>& names) {
    const auto found = std::find(names.begin(), names.end(), given);
    if (found == names.end())
        throw Error("[nc_train] unknown " + option + " '" + given + "'", ErrorKind::usage,
                    suggestion(given, names));
    return size_t(found - names.begin());
}

bool given(const CLI::App& app, const char* option) {
    return app.count(option) > 0;
}

void add_neuron_options(CLI::App& app, NeuronOptions& n, bool& train_thresholds) {
    app.add_option("--neuron", n.kind, "if or lif: train the spiking network directly")
        ->group("Network");
    const auto neurons = "Neuron (defaults: those of --neuron)";
    app.add_option("--theta", n.theta, "threshold")->capture_default_str()->group(neurons);
    app.add_option("--v0", n.v0, "initial membrane, in thresholds")->group(neurons);
    app.add_option("--beta", n.beta, "leak: v = beta v + x; 1 is none")
        ->check(CLI::Range(0.0, 1.0))
        ->group(neurons);
    app.add_option("--compare", n.compare, "greater_equal or greater")->group(neurons);
    app.add_option("--reset", n.reset, "subtract, zero or value")->group(neurons);
    app.add_option("--reset-value", n.reset_value, "of --reset value")->group(neurons);
    app.add_option("--amplitude", n.amplitude, "of a spike: theta or one")->group(neurons);
    app.add_option("--surrogate", n.surrogate, "atan, triangle, rectangle or sigmoid")
        ->group(neurons);
    app.add_option("--surrogate-width", n.surrogate_width,
                   "atan's alpha (2), triangle's and rectangle's w (1), sigmoid's k (4)")
        ->check(CLI::PositiveNumber)
        ->group(neurons);
    app.add_flag("--scale-width", n.scale_width, "the surrogate's width in thresholds")
        ->group(neurons);
    app.add_flag("--detach-reset", n.detach_reset, "no gradient through the reset")->group(neurons);
    app.add_flag("--train-thresholds", train_thresholds, "theta is trained too")->group(neurons);
}

void check_neuron(const CLI::App& app, const NeuronOptions& n) {
    const auto refuse = [](const std::string& what) {
        throw Error("[nc_train] " + what, ErrorKind::usage);
    };
    if (!n.kind.empty()) choose("neuron", n.kind, {"if", "lif"});
    if (!(n.theta > 0) || !std::isfinite(n.theta)) refuse("--theta must be positive");
    for (const char* option :
         {"--theta", "--v0", "--beta", "--compare", "--reset", "--reset-value", "--amplitude",
          "--surrogate", "--surrogate-width", "--scale-width", "--detach-reset"})
        if (given(app, option) && n.kind.empty())
            refuse(std::string(option) + " describes the neurons of --model with --neuron");
    if (given(app, "--reset-value") && n.reset != "value")
        refuse("--reset-value goes with --reset value");
}

Neuron neuron_of(const CLI::App& app, const NeuronOptions& o) {
    Neuron n = default_neuron(o.kind);
    n.theta = Tensor::full<float>({1}, float(o.theta));
    if (given(app, "--v0")) n.v0_fraction = o.v0;
    if (given(app, "--beta")) n.rule.beta = o.beta;
    if (given(app, "--compare"))
        n.rule.compare =
            kernels::Compare(choose("compare", o.compare, {"greater_equal", "greater"}));
    if (given(app, "--reset")) {
        const size_t kind = choose("reset", o.reset, {"subtract", "zero", "value"});
        n.rule.reset = kind == 0 ? kernels::Reset::subtract : kernels::Reset::to_value;
        n.rule.reset_value = kind == 2 ? o.reset_value : 0;
    }
    if (given(app, "--amplitude"))
        n.amplitude = Neuron::Amplitude(choose("amplitude", o.amplitude, {"theta", "one"}));
    if (given(app, "--surrogate")) {
        const double widths[] = {2, 1, 1, 4};
        const size_t kind =
            choose("surrogate", o.surrogate, {"atan", "triangle", "rectangle", "sigmoid"});
        n.rule.surrogate = kernels::Surrogate(kind);
        n.rule.surrogate_width = widths[kind];
    }
    if (given(app, "--surrogate-width")) n.rule.surrogate_width = o.surrogate_width;
    n.rule.scale_width = o.scale_width;
    n.rule.detach_reset = o.detach_reset;
    return n;
}

void add_file_options(CLI::App& app, Files& f) {
    app.add_option("--out", f.out, "the trained model")->type_name("FILE")->group("Files");
    app.add_option("--checkpoint", f.checkpoint,
                   "folder of last.safetensors (default: beside --out, else run/)")
        ->type_name("DIR")
        ->group("Files");
}

std::string checkpoint_path(const Files& f) {
    if (!f.resume.empty()) return f.resume;
    if (!f.checkpoint.empty()) return (fs::path(f.checkpoint) / "last.safetensors").string();
    if (f.out.empty()) return "run/last.safetensors";
    return fs::path(f.out).replace_extension("last.safetensors").string();
}

void check_outputs(const Common& common, const Files& f) {
    if (!f.out.empty()) check_output(f.out, common.force);
    const bool resuming = !f.resume.empty();
    const std::string path = checkpoint_path(f);
    const fs::path folder = fs::path(path).parent_path();
    if (!resuming && !folder.empty() && (f.out.empty() || !f.checkpoint.empty()))
        make_folder(folder.string());
    if (fs::exists(path) && !resuming && !common.force)
        throw Error("[nc_train] a checkpoint is there already: " + path, ErrorKind::usage,
                    "--resume " + path + " goes on with it, --force starts again");
    check_output(path, true);
}

void save_trained(const Files& f, const Graph& graph, ModelInfo info, Json& result) {
    if (f.out.empty()) return;
    info.provenance["result"] = result;
    Model model;
    model.graph = graph;
    model.info = std::move(info);
    save_model(f.out, model);
    result["out"] = f.out;
    if (f.checkpoint.empty()) fs::remove(checkpoint_path(f));
}

void say_saved(const Common& common, const std::string& checkpoint) {
    say(common, "saved " + checkpoint + "; nc_train --resume " + checkpoint + " goes on");
}

Model load_checkpoint(const CLI::App& app, const std::string& path) {
    // With --resume the checkpoint's own options count; these may be given anew.
    const std::vector<std::string> resumable = {"resume", "out",   "data", "threads", "json",
                                                "quiet",  "force", "log",  "config",  "device"};
    for (const CLI::Option* option : app.get_options())
        if (option->count() > 0 && std::find(resumable.begin(), resumable.end(),
                                             option->get_single_name()) == resumable.end())
            throw Error("[nc_train] --" + option->get_single_name() +
                        " cannot change on resuming: the checkpoint holds it");
    Model model = load_model(path);
    const Json& provenance = model.info.provenance;
    if (!model.state_info.is_object() || !model.state_info.contains("options") ||
        !provenance.contains("options") || !provenance["options"].is_string())
        throw Error("[nc_train] " + path + " is not a checkpoint of nc_train", ErrorKind::model,
                    "a finished model holds no training state");
    return model;
}

void restore_options(const Model& model, const CLI::App& app, const Common& now,
                     const Files& files_now, CLI::App& stored, Common& common, Files& files) {
    std::istringstream text(model.info.provenance["options"].get<std::string>());
    stored.parse_from_stream(text);
    files.resume = files_now.resume;
    if (!files_now.out.empty()) files.out = files_now.out;
    const Common then = common;
    common = now;
    common.seed = then.seed;
    common.samples = then.samples;
    if (common.data.empty()) common.data = then.data;
    if (common.log.empty()) common.log = then.log;
    if (app.count("--device") == 0) common.device = then.device;
    // Going on without the GPU is allowed; what was its alone then goes.
    if (parse_device(common.device).kind == DeviceKind::cuda) common.precision = then.precision;
}

}  // namespace nc::program
