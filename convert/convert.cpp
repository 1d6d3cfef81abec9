// The driver: from a trained network to a spiking one, pass by pass.
#include "convert/convert.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "convert/calibrate.h"
#include "convert/fold.h"
#include "convert/spikes.h"
#include "convert/statistics.h"
#include "engine/graph_edit.h"
#include "io/bytes.h"

namespace nc {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// The options with every "auto" and 0 decided.
struct Plan {
    std::string strategy;
    int T, levels;
    bool baseline, tune, fold_after;
};

void one_of(const std::string& what, const std::string& value,
            const std::vector<std::string>& known) {
    if (std::find(known.begin(), known.end(), value) != known.end()) return;
    throw Error("[convert] unknown " + what + " '" + value + "'", ErrorKind::usage,
                suggestion(value, known));
}

Plan plan_of(const Graph& g, int stored_T, const Dataset& data, const ConvertOptions& o) {
    one_of("strategy", o.strategy,
           {"auto", "qcfs_if_ft", "qcfs_direct", "percentile", "max", "none"});
    one_of("neuron", o.neuron, {"if", "lif", "exact", "signed"});
    one_of("fold", o.fold, {"auto", "before", "after"});
    one_of("max_pool", o.max_pool, {"average", "keep"});
    one_of("bias_calibration", o.bias_calibration, {"", "channel", "step"});
    one_of("recipe", o.recipe, {"adamw", "cifar"});
    if (o.if_epochs < 0)
        throw Error("[convert] if_epochs must not be negative: " + std::to_string(o.if_epochs));
    if (o.levels < 0)
        throw Error("[convert] levels must be at least 1: " + std::to_string(o.levels));
    const bool differentiable = o.neuron == "if" || o.neuron == "lif";
    Plan p;
    p.strategy = o.strategy;
    if (o.strategy == "auto") {
        constexpr size_t deep = 8;
        const bool direct = !differentiable || (is_residual(g) && weight_layers(g) >= deep);
        p.strategy = direct ? "qcfs_direct" : "qcfs_if_ft";
    }
    p.T = deployment_steps(g, o.T, stored_T, data);
    p.levels = o.levels > 0 ? o.levels : o.neuron == "exact" ? p.T : p.T <= 4 ? 4 : 8;
    p.baseline = p.strategy == "percentile" || p.strategy == "max" || p.strategy == "none";
    p.tune = p.strategy == "qcfs_if_ft";
    if (p.tune && !differentiable)
        throw Error("[convert] neuron '" + o.neuron + "' has no gradient, so it cannot be tuned",
                    ErrorKind::usage, "use strategy qcfs_direct");
    // Tuned without its BatchNorms a network loses what they held steady. At T = 8, folded before
    // and after tuning: MNIST's MLP 98.4 and 99.1 %, Fashion-MNIST's LeNet 91.0 and 91.6 %.
    p.fold_after = p.tune && o.fold != "before";
    return p;
}

// Runs passes one after another: announces each, checks what it returns, dumps it.
class Stages {
 public:
    Stages(const Model& model, const ConvertOptions& options) : options_(options) {
        stage_.info = model.info;
        stage_.graph = model.graph;
        if (!options.dump.empty()) make_folder(options.dump);
    }
    const Graph& graph() const { return stage_.graph; }
    const ModelInfo& info() const { return stage_.info; }

    template <class Pass>
    void run(const std::string& name, Pass&& pass) {
        if (options_.stop && options_.stop()) throw Interrupted();
        if (options_.progress) options_.progress(name, nullptr);
        stage_.graph = pass(stage_.graph);
        check(stage_.graph);
        ++count_;
        if (options_.dump.empty()) return;
        const auto file = std::to_string(count_) + "-" + name + ".safetensors";
        save_model((std::filesystem::path(options_.dump) / file).string(), stage_);
    }

 private:
    const ConvertOptions& options_;
    Model stage_;
    int count_ = 0;
};

// Temporal data of which the ANN saw the sum: a frame T times as strong has that sum as its mean.
Graph scale_frames(Graph g, int T) {
    for (size_t i = 0; i < g.nodes.size(); ++i)
        if (std::holds_alternative<Input>(g.nodes[i].op)) {
            const auto name = unique_name(g, "frames_scale");
            return insert_after(std::move(g), i, name,
                                Scale{Tensor::full<float>(Shape{1}, float(T))});
        }
    return g;
}

std::vector<uint32_t> first(std::vector<uint32_t> indices, size_t count) {
    indices.resize(std::min(indices.size(), count));
    return indices;
}

}  // namespace

Converted convert(Compute& compute, const Model& model, const Dataset& training,
                  const Dataset* test, const ConvertOptions& o) {
    const auto start = Clock::now();
    double testing = 0, resumed = 0;  // seconds
    const auto accuracy = [&](const Graph& g) {
        const auto from = Clock::now();
        EvaluateOptions run;
        run.ann_frames = o.ann_frames;
        run.observe = [&](const Observation&) {
            if (o.stop && o.stop()) throw Interrupted();
        };
        const double value = evaluate(compute, g, *test, run).accuracy;
        testing += seconds_since(from);
        return value;
    };

    check_convertible(model.graph);
    const Plan plan = plan_of(model.graph, model.info.T, training, o);
    Converted out;
    Statistics& s = out.statistics;
    s.strategy = plan.strategy;
    s.neuron = o.neuron;
    s.T = plan.T;
    s.levels = plan.baseline ? 0 : plan.levels;
    s.seed = o.seed;
    const Warn warn = [&](const std::string& text) {
        s.warnings.push_back(text);
        if (o.warn) o.warn(text);
    };
    const Split split = validation_split(training.size(), o.seed);
    const auto fit = subset(training, split.train), held = subset(training, split.validation);
    const auto samples = subset(training, first(split.train, o.calibration_samples));
    const auto trained = [&](const std::string& name, const Graph& g, const TrainOptions& t) {
        if (t.epochs == 0) return g;
        Trained done = train_stage(compute, name, g, model.info, *fit, *held, t, o, &model.graph);
        resumed += done.seconds_resumed;
        return std::move(done.graph);
    };

    Stages stages(model, o);
    stages.run("check", split_shared);
    if (test) s.ann_accuracy = accuracy(stages.graph());
    const TrainOptions qcfs = qcfs_training(stages.graph(), o);
    stages.run("calibrate", [&](Graph g) {
        g = replace_max_pools(
            std::move(g), o.max_pool == "keep" ? MaxPools::keep_analog : MaxPools::average, warn);
        CalibrateOptions options{plan.strategy == "max" ? 100 : o.percentile, o.lambda_per_channel,
                                 o.ann_frames, o.stop};
        const auto layers = plan.strategy == "none" ? constant_thresholds(g, 1)
                                                    : calibrate(compute, g, *samples, options);
        g = to_qcfs(std::move(g), layers, plan.levels, warn);
        if (o.levels > 0) g = with_levels(std::move(g), o.levels);
        return g;
    });
    if (!plan.baseline) {
        stages.run("qcfs", [&](const Graph& g) { return trained("qcfs", g, qcfs); });
        if (test) s.qcfs_accuracy = accuracy(stages.graph());
    }
    const auto histograms =
        input_histograms(compute, stages.graph(), *samples, o.ann_frames, o.stop);
    if (!plan.fold_after) stages.run("fold", fold_batch_norm);
    stages.run("spikes", [&](Graph g) {
        g = to_spikes(std::move(g), o.neuron, plan.T);
        if (training.steps() > 0 && o.ann_frames == "sum") g = scale_frames(std::move(g), plan.T);
        return g;
    });
    if (plan.tune)
        stages.run("tune",
                   [&](const Graph& g) { return trained("tune", g, tuning(g, o, plan.T)); });
    if (plan.fold_after) stages.run("fold", fold_batch_norm);
    const CorrectOptions correct{plan.T, plan.baseline ? 1 << 16 : plan.levels, "mean", o.stop};
    if (!o.bias_calibration.empty())
        stages.run("bias", [&](Graph g) {
            return o.bias_calibration == "step"
                       ? correct_step_bias(compute, std::move(g), *samples, correct)
                       : correct_bias(compute, std::move(g), *samples, correct, warn);
        });
    if (o.membrane_calibration)
        stages.run("membrane", [&](Graph g) {
            return correct_membrane(compute, std::move(g), *samples, correct);
        });
    const Graph unfolded = stages.graph();
    stages.run("amplitudes", fold_amplitudes);
    const auto few = subset(training, first(split.validation, 100));
    const auto difference = compare_spikes(compute, unfolded, stages.graph(), *few, plan.T, o.stop);
    s.fold_compared = difference.compared;
    s.fold_different = difference.different;

    out.model.graph = stages.graph();
    out.model.info = model.info;
    out.model.info.T = plan.T;
    out.model.info.ann_frames.clear();
    EvaluateOptions held_run;
    held_run.T = plan.T;
    s.validation_accuracy = evaluate(compute, out.model.graph, *held, held_run).accuracy;
    s.conversion_time = seconds_since(start) - testing + resumed;
    describe_neurons(out.model.graph, s);
    for (LayerStatistics& layer : s.layers)
        for (const InputHistogram& h : histograms)
            if (h.name == layer.name) {
                layer.activation_histogram = h.counts;
                layer.histogram_low = h.low;
                layer.histogram_high = h.high;
            }
    if (test) {
        if (o.progress) o.progress("evaluate", nullptr);
        measure_on(compute, out.model.graph, *test, o, s);
    }
    Statistics brief = s;
    for (LayerStatistics& layer : brief.layers) layer.activation_histogram.clear();
    out.model.info.provenance["conversion"] = to_json(brief);
    return out;
}

}  // namespace nc
