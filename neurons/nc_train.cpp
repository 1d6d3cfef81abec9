// nc_train: trains a network from the zoo, or one described by a file, and saves it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <sstream>

#include "neurons/train_options.h"
#include "neurons/zoo.h"

namespace {

using namespace nc;
using program::choose;
using program::given;

// Every option, by name.
struct Settings {
    program::Common common;
    program::Files files;
    program::NeuronOptions neuron;
    std::string task, model, graph, weights, dataset, framing;
    std::vector<float> mean, std;
    std::string activation = "relu", recipe = "default", ann_frames = "mean";
    int T = 0, levels = 8;
    std::string optimizer = "adamw", schedule = "cosine";
    TrainOptions train;
};

const std::vector<std::string> schedules = {"constant", "cosine", "linear", "step"};

void add_options(CLI::App& app, Settings& s) {
    TrainOptions& t = s.train;
    const auto network = "Network";
    app.add_option("--task", s.task, "cartpole: reinforcement learning; see --task cartpole --help")
        ->group(network);
    app.add_option("--model", s.model, program::joined(model_names()))->group(network);
    app.add_option("--graph", s.graph, "a network described by a JSON file instead")
        ->type_name("FILE")
        ->group(network);
    app.add_option("--weights", s.weights, "of a safetensors or PyTorch .pt file, to begin with")
        ->type_name("FILE")
        ->group(network);
    app.add_option("--activation", s.activation, "relu or qcfs")
        ->capture_default_str()
        ->group(network);
    app.add_option("--levels", s.levels, "levels L of qcfs")
        ->capture_default_str()
        ->check(CLI::Range(1, 65536))
        ->group(network);
    app.add_option("--T", s.T, "time steps; bins of recordings (default: 16, residual networks 32)")
        ->check(CLI::Range(1, 1 << 20))
        ->group(network);

    add_neuron_options(app, s.neuron, t.train_thresholds);

    const auto data = "Data";
    app.add_option("--dataset", s.dataset, program::joined(dataset_names()))->group(data);
    app.add_option("--framing", s.framing, "of recordings: tonic:bins=10, sj:number=10, ...")
        ->group(data);
    app.add_option("--ann-frames", s.ann_frames, "an ANN on recordings: mean or sum of the frames")
        ->capture_default_str()
        ->group(data);
    app.add_option("--mean", s.mean, "x = (byte / 255 - mean) / std, a channel each")
        ->delimiter(',')
        ->group(data);
    app.add_option("--std", s.std, "default: the data set's own")->delimiter(',')->group(data);
    app.add_option("--crop", t.augment.crop, "pad by this much, then crop at random")->group(data);
    app.add_flag("--flip", t.augment.flip, "flip half of the images")->group(data);
    app.add_option("--cutout", t.augment.cutout, "side of a square set to 0")->group(data);
    app.add_option("--shift", t.augment.shift, "move by up to this many pixels")->group(data);
    app.add_flag("--auto-augment", t.augment.auto_augment, "the CIFAR-10 policy")->group(data);

    const auto training = "Training";
    app.add_option("--epochs", t.epochs, "passes over the training data")
        ->capture_default_str()
        ->check(CLI::Range(0, 1000000))
        ->group(training);
    app.add_option("--recipe", s.recipe,
                   "default, or cifar: crop 4, flip, auto-augment, cutout 16, batch 128, SGD 0.9 "
                   "Nesterov, lr 0.1, weight decay 5e-4")
        ->capture_default_str()
        ->group(training);
    app.add_option("--batch", t.batch, "samples a step")
        ->capture_default_str()
        ->check(CLI::Range(size_t(1), size_t(1) << 20))
        ->group(training);
    app.add_option("--optimizer", s.optimizer, "adamw or sgd")
        ->capture_default_str()
        ->group(training);
    app.add_option("--lr", t.optim.lr, "learning rate")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber)
        ->group(training);
    app.add_option("--threshold-lr", t.optim.threshold_lr, "learning rate of lambda and theta")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber)
        ->group(training);
    app.add_option("--weight-decay", t.optim.weight_decay)
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber)
        ->group(training);
    app.add_option("--momentum", t.optim.momentum, "of sgd")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 1.0))
        ->group(training);
    app.add_option("--schedule", s.schedule, "constant, cosine, linear or step")
        ->capture_default_str()
        ->group(training);
    app.add_option("--warmup", t.warmup, "steps of rising learning rate")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber)
        ->group(training);
    app.add_option("--label-smoothing", t.label_smoothing)->capture_default_str()->group(training);
    app.add_option("--ema", t.ema, "decay of averaged weights; 0: off")
        ->capture_default_str()
        ->group(training);
    app.add_option("--clip-norm", t.optim.clip_norm, "of all gradients together; 0: off")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber)
        ->group(training);
    app.add_flag("--recompute", t.recompute, "keep spikes only: less memory, more time")
        ->group(training);

    const auto files = "Files";
    add_file_options(app, s.files);
    app.add_option("--checkpoint-steps", t.checkpoint_steps,
                   "write it also every so many steps; always after an epoch")
        ->check(CLI::NonNegativeNumber)
        ->group(files);
    app.add_option("--resume", s.files.resume, "go on from a checkpoint, with its options")
        ->type_name("FILE")
        ->configurable(false)
        ->group(files);
    program::add_common_options(app, s.common);
    program::add_precision_option(app, s.common);
    app.set_version_flag("--version", "nc_train " + program::version());
    app.footer(
        "Examples:\n"
        "  nc_train --model lenet --dataset fashion-mnist --epochs 5 --out ann.safetensors\n"
        "  nc_train --model cnn-nmnist --neuron lif --dataset nmnist --T 10 --out snn.safetensors\n"
        "  nc_train --model resnet18 --dataset cifar10 --weights resnet18.pt --epochs 0 "
        "--out ann.safetensors\n"
        "  nc_train --task cartpole --neuron if --out policy.safetensors\n"
        "  nc_train --resume run/last.safetensors");
}

// A recipe sets what was not asked for by name.
void apply_recipe(const CLI::App& app, Settings& s) {
    if (choose("recipe", s.recipe, {"default", "cifar"}) == 0) return;
    TrainOptions& t = s.train;
    const auto set = [&](const char* option, auto& field, auto value) {
        if (!given(app, option)) field = value;
    };
    set("--crop", t.augment.crop, 4);
    set("--flip", t.augment.flip, true);
    set("--auto-augment", t.augment.auto_augment, true);
    set("--cutout", t.augment.cutout, 16);
    set("--batch", t.batch, 128);
    set("--optimizer", s.optimizer, "sgd");
    set("--lr", t.optim.lr, 0.1);
    set("--weight-decay", t.optim.weight_decay, 5e-4);
}

Graph make_graph(const CLI::App& app, const Settings& s, const Dataset& data) {
    if (!s.graph.empty())
        return draw_weights(graph_from_json(read_json(s.graph), {}, s.graph), s.common.seed);
    ZooOptions zoo;
    zoo.activation = s.neuron.kind.empty() ? s.activation : s.neuron.kind;
    zoo.levels = s.levels;
    zoo.seed = s.common.seed;
    if (!s.neuron.kind.empty()) zoo.neuron = neuron_of(app, s.neuron);
    return make_model(s.model, data.sample_shape(), data.classes(), zoo);
}

void check_settings(const CLI::App& app, const Settings& s) {
    const auto refuse = [](const std::string& what, const std::string& hint = "") {
        throw Error("[nc_train] " + what, ErrorKind::usage, hint);
    };
    if (!s.task.empty())
        refuse("--task is read from the command line only", "nc_train --task " + s.task + " ...");
    if (s.model.empty() && s.graph.empty())
        refuse("--model or --graph is needed", "for instance --model lenet");
    if (!s.model.empty() && !s.graph.empty()) refuse("--model and --graph exclude each other");
    if (s.dataset.empty()) refuse("--dataset is needed", "for instance --dataset fashion-mnist");
    if (!s.model.empty()) choose("model", s.model, model_names());
    choose("dataset", s.dataset, dataset_names());
    choose("activation", s.activation, {"relu", "qcfs"});
    if (s.train.epochs == 0 && s.weights.empty())
        refuse("--epochs 0 trains nothing", "it goes with --weights, to take a file's over");
    choose("ann-frames", s.ann_frames, {"mean", "sum"});
    if (!s.neuron.kind.empty() && given(app, "--activation"))
        refuse("--neuron and --activation exclude each other");
    if (!s.graph.empty() && (given(app, "--neuron") || given(app, "--activation")))
        refuse("--neuron and --activation choose for --model; a graph names its own");
    check_neuron(app, s.neuron);
}

std::string megabytes(size_t bytes) {
    return fmt::format("{:.1f} MB", double(bytes) / 1e6);
}

std::string numbers(const std::vector<float>& values) {
    std::vector<std::string> words;
    for (const float x : values) words.push_back(fmt::format("{:.4g}", x));
    return program::joined(words);
}

int train_and_report(const CLI::App& app, Settings& s, const Model* resume,
                     const std::string& command) {
    TrainOptions& t = s.train;
    check_settings(app, s);
    apply_recipe(app, s);
    t.seed = s.common.seed;
    t.ann_frames = s.ann_frames;
    t.optim.kind = OptimOptions::Kind(choose("optimizer", s.optimizer, {"sgd", "adamw"}));
    t.schedule = Schedule(choose("schedule", s.schedule, schedules));
    t.checkpoint = checkpoint_path(s.files);
    check_outputs(s.common, s.files);
    Compute compute = program::make_compute(s.common);

    DataSets sets = load_data({s.dataset, s.common.data, s.T, s.framing, s.mean, s.std});
    const Graph graph =
        resume != nullptr
            ? resume->graph
            : program::with_weights(s.common, make_graph(app, s, *sets.train), s.weights);
    const bool spiking = is_spiking(graph);
    if (s.T == 0) s.T = is_residual(graph) ? 32 : 16;
    if (sets.train->steps() > 0) s.T = sets.train->steps();
    t.T = s.T;
    const auto training = drawn(*sets.train, s.common.samples, t.seed);
    const auto test = drawn(*sets.test, s.common.samples, t.seed);
    const Split split = validation_split(training->size(), t.seed);
    const auto fit = subset(*training, split.train);
    const auto validation = subset(*training, split.validation);
    std::string label = sets.note;
    if (training->size() < sets.train->size())
        label = fmt::format("subset: {} + {} samples{}{}", training->size(), test->size(),
                            label.empty() ? "" : " of ", label);

    ModelInfo info;
    info.dataset = s.dataset;
    info.T = spiking || sets.train->steps() > 0 ? s.T : 0;
    info.mean = sets.mean;
    info.std = sets.std;
    info.framing = sets.framing;
    if (sets.train->steps() > 0 && !spiking) info.ann_frames = s.ann_frames;
    info.classes = sets.train->classes();
    info.provenance = {{"program", "nc_train"},
                       {"version", program::version()},
                       {"command", command},
                       {"seed", t.seed},
                       {"options", app.config_to_str()}};

    program::say(
        s.common,
        fmt::format("{}: {} parameters, {} training, {} validation, {} test samples{}",
                    s.model.empty() ? s.graph : s.model, parameter_count(graph), fit->size(),
                    validation->size(), test->size(), label.empty() ? "" : " (" + label + ")"));
    if (!sets.mean.empty())
        program::say(s.common, "input: (byte / 255 - mean) / std, mean " + numbers(sets.mean) +
                                   ", std " + numbers(sets.std) +
                                   (s.mean.empty() && s.std.empty() ? ", the data set's own" : ""));

    program::Log log(s.common, resume != nullptr);
    program::catch_interrupts();
    program::ProgressLine line(s.common);
    size_t peak = 0, epochs = 0;
    double epoch_seconds = 0;
    TrainHooks hooks;
    hooks.progress = [&](const Progress& p) {
        line.show("", p);
        log.write("train", p);
        peak = std::max(peak, p.peak_bytes);
        epochs += p.epoch_done;
        epoch_seconds += p.epoch_seconds;
    };
    hooks.stop = program::interrupted_by_user;
    Trained trained;
    try {
        trained = train(compute, graph, info, *fit, validation.get(), t, hooks, resume);
    } catch (const Interrupted&) {
        line.clear();
        program::say_saved(s.common, t.checkpoint);
        throw;
    }
    line.clear();

    EvaluateOptions how;
    how.T = t.T;
    how.ann_frames = s.ann_frames;
    const Evaluation e = evaluate(compute, trained.graph, *test, how);
    if (epochs > 0) epoch_seconds /= double(epochs);
    Json result = {{"model", s.model.empty() ? s.graph : s.model},
                   {"dataset", s.dataset},
                   {"subset", label.empty() ? Json(nullptr) : Json(label)},
                   {"parameters", parameter_count(graph)},
                   {"epochs", t.epochs},
                   {"seed", t.seed},
                   {"test_accuracy", e.accuracy},
                   {"test_samples", e.samples},
                   {"validation_accuracy", program::number_or_null(trained.validation_accuracy)},
                   {"best_epoch", t.epochs > 0 ? Json(trained.best_epoch + 1) : Json(nullptr)},
                   {"seconds", trained.seconds},
                   {"seconds_per_epoch", epochs > 0 ? Json(epoch_seconds) : Json(nullptr)},
                   {"peak_bytes", peak > 0 ? Json(peak) : Json(nullptr)}};
    if (spiking) {
        result["T"] = s.T;
        result["accuracy_at_t"] = e.accuracy_at_t;
        result["sparsity"] = e.sparsity();
    }
    program::save_trained(s.files, trained.graph, info, result);
    log.write({{"stage", "result"}, {"result", result}});

    std::string text;
    const auto row = [&](const std::string& name, const std::string& value) {
        text += fmt::format("{:<24}{}\n", name, value);
    };
    row("test accuracy", fmt::format("{:.2f} % of {} samples{}", e.accuracy, e.samples,
                                     label.empty() ? "" : " (" + label + ")"));
    if (t.epochs > 0)
        row("validation accuracy",
            fmt::format("{:.2f} % after epoch {}", trained.validation_accuracy,
                        trained.best_epoch + 1));
    if (spiking) row("sparsity", fmt::format("{:.2f} % at T = {}", e.sparsity(), s.T));
    if (epochs > 0) {
        row("seconds per epoch", fmt::format("{:.1f}", epoch_seconds));
        row("peak of a step", megabytes(peak));
    }
    row("saved", s.files.out.empty() ? t.checkpoint : s.files.out);
    program::print_result(s.common, text, result);
    return program::success;
}

int resume_and_report(const CLI::App& app, const Settings& s, const std::string& command) {
    const Model model = program::load_checkpoint(app, s.files.resume);
    if (model.info.provenance.contains("task"))
        return program::resume_cartpole(model, app, s.common, s.files, command);
    CLI::App stored("nc_train");
    Settings options;
    add_options(stored, options);
    program::restore_options(model, app, s.common, s.files, stored, options.common, options.files);
    return train_and_report(stored, options, &model, command);
}

// Whether argv has this option, spelt out.
bool mentions(int argc, char** argv, const std::string& option) {
    return std::any_of(argv + 1, argv + argc, [&](const std::string& word) {
        return word == option || word.rfind(option + "=", 0) == 0;
    });
}

}  // namespace

int main(int argc, char** argv) {
    program::spin_briefly(argv);
    if (mentions(argc, argv, "--task") && !mentions(argc, argv, "--resume"))
        return program::train_cartpole_command(argc, argv);
    CLI::App app("Trains a network on real data: an ANN, a QCFS network or a spiking one.",
                 "nc_train");
    Settings settings;
    add_options(app, settings);
    return program::run(app, argc, argv, [&] {
        const std::string command = program::command_line(argc, argv);
        return settings.files.resume.empty() ? train_and_report(app, settings, nullptr, command)
                                             : resume_and_report(app, settings, command);
    });
}
