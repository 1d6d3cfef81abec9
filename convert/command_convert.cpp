// nc_convert MODEL: the conversion itself, its table and its report.
#include <fmt/format.h>

#include <filesystem>
#include <numeric>
#include <sstream>

#include "convert/commands.h"
#include "convert/integer_run.h"
#include "convert/page.h"
#include "convert/quantize.h"
#include "io/bytes.h"

namespace nc::program {

namespace {

struct Conversion {
    Common common;
    DataOptions data;
    ConvertOptions convert;
    EmitOptions emit;
    int bits = QuantizeOptions().bits;
    ReadOptions read;
    std::string model, out, report, lambda = "channel", ann_frames;
    std::vector<std::string> published;
};

void add_conversion_options(CLI::App& app, Conversion& o) {
    ConvertOptions& c = o.convert;
    const std::string group = "Conversion";
    const auto add = [&](const char* name, auto& value, const char* text) {
        return app.add_option(name, value, text)->capture_default_str()->group(group);
    };
    add("--strategy", c.strategy,
        "auto, qcfs_if_ft, qcfs_direct, or a baseline without training: percentile, max, none");
    add("--neuron", c.neuron, "if, lif, signed, exact (T = levels)");
    app.add_option("--levels", c.levels, "QCFS levels L (default: 4 for T <= 4, else 8)")
        ->check(CLI::Range(1, 65536))
        ->group(group);
    add("--lambda", o.lambda, "a threshold per channel or per layer")
        ->check(CLI::IsMember({"channel", "layer"}));
    add("--percentile", c.percentile, "of positive pre-activations, for thresholds");
    add("--calibration-samples", c.calibration_samples, "training samples for calibration")
        ->check(CLI::PositiveNumber);
    add("--max-pool", c.max_pool, "average: replace it; keep: where its input is analog");
    add("--fold", c.fold, "BatchNorm into weights before or after tuning; auto: after");
    add("--bias-calibration", c.bias_calibration,
        "correct mean rates: one bias a channel, or one a channel and step")
        ->check(CLI::IsMember({"channel", "step"}));
    app.add_flag("--membrane-calibration", c.membrane_calibration, "correct mean rates by v(0)")
        ->group(group);
    app.add_option("--ann-frames", o.ann_frames,
                   "recordings: the network saw each frame (mean) or their sum (default: its own)")
        ->check(CLI::IsMember({"mean", "sum"}))
        ->group(group);
}

}  // namespace

void add_training_options(CLI::App& app, ConvertOptions& c) {
    const std::string group = "Training";
    const auto add = [&](const char* name, auto& value, const char* text) {
        return app.add_option(name, value, text)->capture_default_str()->group(group);
    };
    add("--if-epochs", c.if_epochs, "epochs through real time steps")->check(CLI::Range(0, 100000));
    app.add_option("--if-lr", c.if_lr, "their learning rate (default 3e-3; deep networks 1e-4)")
        ->check(CLI::PositiveNumber)
        ->group(group);
    add("--batch", c.batch, "samples a step")->check(CLI::Range(1, 65536));
    add("--label-smoothing", c.label_smoothing, "share of the label spread over all classes")
        ->check(CLI::Range(0.0, 1.0));
    add("--warmup", c.warmup, "steps of linear warm-up")->check(CLI::NonNegativeNumber);
    app.add_flag("--train-thresholds", c.train_thresholds, "tune the thresholds too")->group(group);
    app.add_flag("--recompute", c.recompute,
                 "keep only spikes while tuning: less memory, more time")
        ->group(group);
    add("--crop", c.augment.crop, "random crop after this zero padding")
        ->check(CLI::NonNegativeNumber);
    add("--shift", c.augment.shift, "random translation by up to this many pixels")
        ->check(CLI::NonNegativeNumber);
    add("--cutout", c.augment.cutout, "side of the square that is blanked")
        ->check(CLI::NonNegativeNumber);
    app.add_flag("--flip", c.augment.flip, "random horizontal flip")->group(group);
    app.add_flag("--auto-augment", c.augment.auto_augment, "the CIFAR-10 policy")->group(group);
}

void add_checkpoint_options(CLI::App& app, ConvertOptions& c) {
    const std::string group = "Training";
    app.add_option("--checkpoint", c.checkpoint,
                   "folder where training keeps its state after every epoch and on Ctrl-C")
        ->type_name("DIR")
        ->group(group);
    app.add_flag("--resume", c.resume,
                 "with the same command: go on from what --checkpoint has, if anything")
        ->group(group);
}

Watcher::Watcher(const Common& common, const ModelInfo& info, ConvertOptions& options)
    : common_(common), options_(options), line_(common), log_(common, options.resume) {
    options.seed = common.seed;
    // A policy's episodes are other ones for each purpose, whatever the seed.
    const Json& origin = info.provenance;
    if (origin.contains("seed") && origin["seed"].is_number_unsigned() &&
        origin["seed"] != common.seed && !origin.contains("task"))
        warn(common, fmt::format("the network was trained with --seed {}: with seed {} most of the "
                                 "validation split is what it was trained on",
                                 origin["seed"].get<uint64_t>(), common.seed));
    if (options.resume && options.checkpoint.empty())
        throw Error("[resume] no --checkpoint DIR to go on from", ErrorKind::usage);
    if (!options.checkpoint.empty()) {
        check_output_folder(options.checkpoint, common.force || options.resume);
        make_folder(options.checkpoint);
    }
    options.stop = interrupted_by_user;
    options.warn = [this](const std::string& text) {
        line_.clear();
        warn(common_, text);
    };
    options.progress = [this](const std::string& stage, const Progress* progress) {
        if (progress) {
            line_.show(stage, *progress);
            log_.write(stage, *progress);
        } else {
            line_.clear();
            say(common_, stage + " ...");
        }
    };
}

Converted Watcher::watch(const std::function<Converted()>& work) {
    try {
        return work();
    } catch (const Interrupted&) {
        line_.clear();
        if (!options_.checkpoint.empty())
            say(common_,
                "saved in " + options_.checkpoint + "; the same command with --resume goes on");
        throw;
    }
}

std::string energy_text(const Energy& e) {
    std::string text = fmt::format(
        "energy (modelled; {} pJ a MAC, {} pJ an AC, arithmetic only, T = {}): SNN {:.1f} nJ, ANN "
        "{:.1f} nJ a sample\n  saving {} %, by the wrong formula of some tools {} %\n",
        e.target.mac.picojoules, e.target.ac.picojoules, e.steps, e.picojoules / 1000,
        e.ann_picojoules / 1000, percent(e.saving), percent(e.wrong_saving));
    return text;
}

std::string summary(const std::string& title, const Statistics& s, const std::string& measure) {
    std::vector<std::vector<std::string>> rows = {{"network", "T", measure + " %"}};
    if (s.ann_accuracy) rows.push_back({"ANN", "", percent(*s.ann_accuracy)});
    if (s.qcfs_accuracy)
        rows.push_back({fmt::format("QCFS, L = {}", s.levels), "", percent(*s.qcfs_accuracy)});
    for (size_t t = 1; t <= s.accuracy_at_t.size(); ++t)
        if ((t & (t - 1)) == 0 || t == s.accuracy_at_t.size() || t == size_t(s.T))
            rows.push_back({t == size_t(s.T) ? "SNN, its own T" : "SNN", std::to_string(t),
                            percent(s.accuracy_at_t[t - 1])});
    uint64_t spikes = 0, possible = 0;
    for (const auto& layer : s.layers) spikes += layer.spikes, possible += layer.possible;
    std::string text = title + "\n" + text_table(rows);
    if (s.sparsity)
        text += fmt::format("sparsity {} % at T = {}: {} spikes of {} possible\n",
                            percent(*s.sparsity), s.T, count(spikes), count(possible));
    if (s.energy) text += energy_text(*s.energy);
    return text;
}

namespace {

// "QCFS: 2=73.20, 4=83.75" as a curve of accuracies by T.
Curve published_curve(const std::string& text) {
    const auto refuse = [&] {
        throw Error("[published] not NAME: T=PERCENT, T=PERCENT ...: '" + text + "'",
                    ErrorKind::usage);
    };
    const size_t colon = text.find(':');
    if (colon == 0 || colon == std::string::npos) refuse();
    Curve curve{text.substr(0, colon), {}, {}};
    std::istringstream pairs(text.substr(colon + 1));
    for (std::string pair; std::getline(pairs, pair, ',');) {
        std::istringstream in(pair);
        double T = 0, accuracy = 0;
        char equals = 0, more = 0;
        const bool whole = in >> T >> equals >> accuracy && !(in >> more);
        if (!whole || equals != '=' || !(T >= 1) || !(accuracy >= 0 && accuracy <= 100)) refuse();
        curve.x.push_back(T);
        curve.y.push_back(accuracy);
    }
    if (curve.x.empty()) refuse();
    return curve;
}

// The converted network rounded to whole numbers as `nc_convert quantize` does, its accuracy, and
// its forms.
std::string emit_quantised(const Conversion& o, const EmitFiles& files, Compute& compute,
                           const Model& model, const LoadedData& data, Json& json) {
    QuantizeOptions how;
    how.bits = o.bits;
    how.T = model.info.T;
    const Graph g = quantize(compute, model.graph, *data.train, how).graph;
    Compute host(Device{}, o.common.threads);
    const IntegerEvaluation e =
        evaluate_integers(host, g, *data.test, how.T, IntegerTarget::loihi, interrupted_by_user);
    json["bits"] = how.bits;
    json["quantized_accuracy"] = e.accuracy();
    const size_t samples = std::min(data.test->size(), stimulus_samples);
    std::vector<uint32_t> first(samples);
    std::iota(first.begin(), first.end(), 0u);
    const auto stimulus = subset(*data.test, std::move(first));
    return fmt::format("in whole numbers of {} bits: accuracy {} % at T = {}\n", how.bits,
                       percent(e.accuracy()), how.T) +
           emit_integers(o.emit, files, g, how.T, stimulus.get(), o.common.force, json);
}

}  // namespace

int convert_command(int argc, char** argv) {
    Conversion o;
    CLI::App app(
        "Converts a trained network to a spiking one, tunes it "
        "through its time steps, and measures it on the test data.",
        "nc_convert");
    app.set_version_flag("--version", version());
    app.add_option("model", o.model, "trained network (.safetensors, .onnx, .nir)");
    add_weights_option(app, o.read);
    add_nir_options(app, o.read);
    app.add_option("--out", o.out, "the spiking network's file")->type_name("FILE");
    app.add_option("--report", o.report, "an HTML page of the results")->type_name("FILE");
    app.add_option("--published", o.published,
                   "accuracies of others for the report's picture: 'NAME: 2=73.20, 4=83.75'")
        ->type_name("NAME: T=PERCENT, ...")
        ->allow_extra_args(false);
    app.add_option("--curve-T", o.convert.curve_T, "the accuracy is shown up to this T at least")
        ->capture_default_str()
        ->check(CLI::Range(1, 65536));
    app.add_option("--dump", o.convert.dump, "write the model after every step into this folder")
        ->type_name("DIR");
    app.add_option("--T", o.convert.T,
                   "time steps (default 16; residual networks 32; recordings: theirs)")
        ->check(CLI::Range(1, 65536));
    add_data_options(app, o.data);
    add_conversion_options(app, o);
    app.add_option("--qcfs-epochs", o.convert.qcfs_epochs,
                   "epochs with QCFS activations (default 5; 0 if the model has them already)")
        ->check(CLI::Range(0, 100000))
        ->group("Training");
    app.add_option("--qcfs-lr", o.convert.qcfs_lr, "their learning rate (default: the recipe's)")
        ->check(CLI::PositiveNumber)
        ->group("Training");
    app.add_option("--distill", o.convert.distill,
                   "share of the loss that asks for the given network's answers, not the labels")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 1.0))
        ->group("Training");
    app.add_option("--temperature", o.convert.temperature, "at which --distill compares answers")
        ->capture_default_str()
        ->check(CLI::PositiveNumber)
        ->group("Training");
    app.add_option("--recipe", o.convert.recipe, "of QCFS training: adamw, or cifar (SGD)")
        ->capture_default_str()
        ->group("Training");
    add_training_options(app, o.convert);
    add_checkpoint_options(app, o.convert);
    add_emit_options(app, o.emit);
    app.add_option("--bits", o.bits, "of a weight in the forms of whole numbers, 2 to 8")
        ->capture_default_str()
        ->check(CLI::Range(2, 8))
        ->group("Other forms");
    add_common_options(app, o.common);
    add_precision_option(app, o.common);
    std::string others = "Also, each with its own --help:\n";
    for (const Command& command : commands())
        others += fmt::format("  nc_convert {:<9} {}\n", command.name, command.purpose);
    app.footer(others +
               "\nExample:\n  nc_convert ann.safetensors --dataset fashion-mnist --T 8 "
               "--out snn.safetensors --report report.html --json stats.json");

    return run(app, argc, argv, [&] {
        if (o.model.empty())
            throw Error("[nc_convert] no model", ErrorKind::usage, "see nc_convert --help");
        if (o.out.empty())
            throw Error("[nc_convert] no output", ErrorKind::usage,
                        "name the spiking network's file with --out");
        check_output(o.out, o.common.force);
        if (!o.report.empty()) check_output(o.report, o.common.force);
        if (!o.convert.dump.empty()) check_output_folder(o.convert.dump, o.common.force);
        std::vector<Curve> published;
        for (const std::string& text : o.published) published.push_back(published_curve(text));
        if (!published.empty() && o.report.empty())
            throw Error("[published] there is no --report to show it in", ErrorKind::usage);
        EmitFiles files = emit_files(o.emit, o.common);
        Compute compute = make_compute(o.common);
        Model model = read_model(o.model, o.read, o.common);
        const LoadedData data = load(o.common, o.data, model.info, model.graph, o.convert.T);
        o.convert.lambda_per_channel = o.lambda == "channel";
        o.convert.ann_frames = !o.ann_frames.empty()            ? o.ann_frames
                               : !model.info.ann_frames.empty() ? model.info.ann_frames
                                                                : "mean";
        Watcher watcher(o.common, model.info, o.convert);
        model.info.dataset = data.name;
        model.info.mean = data.sets.mean;
        model.info.std = data.sets.std;
        model.info.framing = data.sets.framing;
        Converted converted = watcher.watch(
            [&] { return convert(compute, model, *data.train, data.test.get(), o.convert); });
        converted.model.info.provenance["command"] = typed_command;
        save_model(o.out, converted.model);

        const Statistics& s = converted.statistics;
        Json json = to_json(s);
        json["dataset"] = data.name;
        json["subset"] = data.subset;
        json["measure"] = data.measure;
        json["model"] = o.model;
        json["out"] = o.out;
        json["command"] = typed_command;
        json["environment"] = environment(compute);
        std::string text = summary(fmt::format("{} on {}, {}; strategy {}, seed {}",
                                               std::filesystem::path(o.model).filename().string(),
                                               data.name, data.label, s.strategy, s.seed),
                                   s, data.measure);
        if (data.policy())
            text += returns_table(compute,
                                  {{"ANN", model.graph, 0}, {"SNN", converted.model.graph, s.T}},
                                  json["returns"]);
        if (s.fold_different > 0)
            text += fmt::format("folding amplitudes into weights changed {} of {} spikes\n",
                                count(s.fold_different), count(s.fold_compared));
        if (!o.report.empty())
            write_file(o.report, conversion_page(compute, converted, *data.test,
                                                 data.name + ", " + data.label, published,
                                                 typed_command, json["environment"]));
        text += emit_floats(files, o.emit, converted.model, json);
        if (!files.empty()) text += emit_quantised(o, files, compute, converted.model, data, json);
        print_result(o.common, text, json);
        return int(success);
    });
}

}  // namespace nc::program
