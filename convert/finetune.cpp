// The two trainings of a conversion, and tuning a spiking network that exists.
#include <zlib.h>

#include <chrono>
#include <cmath>
#include <filesystem>

#include "convert/convert.h"
#include "convert/passes.h"
#include "convert/statistics.h"

namespace nc {

namespace {

TrainOptions common_options(const ConvertOptions& o) {
    TrainOptions t;
    t.batch = o.batch;
    t.schedule = Schedule::cosine;
    t.warmup = o.warmup;
    t.label_smoothing = o.label_smoothing;
    t.distill = o.distill;
    t.temperature = o.temperature;
    t.augment = o.augment;
    t.ann_frames = o.ann_frames;
    t.seed = o.seed;
    return t;
}

// What a training begins with; resuming holds a checkpoint's against it.
Json beginning(Graph g, const ModelInfo& info, const Dataset& fit) {
    uLong crc = crc32(0, nullptr, 0);
    for (Node& node : g.nodes)
        for_each_tensor(node, [&](const char*, Tensor& tensor, TensorRole) {
            if (!tensor.defined()) return;
            const Tensor here = tensor.to_host();
            crc = crc32_z(crc, static_cast<const Bytef*>(here.raw()), here.bytes());
        });
    return {{"weights", crc}, {"dataset", info.dataset}, {"samples", fit.size()}};
}

}  // namespace

TrainOptions qcfs_training(const Graph& g, const ConvertOptions& o) {
    TrainOptions t = common_options(o);
    bool present = true;
    for (const Node& node : g.nodes)
        present = present && (!is_activation(node.op) || std::holds_alternative<Qcfs>(node.op));
    t.epochs = o.qcfs_epochs >= 0 ? o.qcfs_epochs : present ? 0 : 5;
    if (o.recipe == "adamw") {
        t.optim.kind = OptimOptions::Kind::adamw;
        t.optim.lr = 1e-3;
        t.optim.threshold_lr = 5e-2;
        t.optim.weight_decay = 1e-5;
    } else if (o.recipe == "cifar") {  // from a ReLU checkpoint: lambda at ten times the rate
        t.optim.kind = OptimOptions::Kind::sgd;
        t.optim.lr = 2e-2;
        t.optim.threshold_lr = 2e-1;
        t.optim.momentum = 0.9;
        t.optim.nesterov = true;
        t.optim.weight_decay = 5e-4;
    } else {
        throw Error("[convert] unknown recipe '" + o.recipe + "'", ErrorKind::usage,
                    "one of: adamw, cifar");
    }
    if (o.qcfs_lr > 0) {
        t.optim.threshold_lr *= o.qcfs_lr / t.optim.lr;
        t.optim.lr = o.qcfs_lr;
    }
    return t;
}

TrainOptions tuning(const Graph& g, const ConvertOptions& o, int T) {
    const bool deep = weight_layers(g) >= 8;
    TrainOptions t = common_options(o);
    t.epochs = o.if_epochs;
    t.T = T;
    t.recompute = o.recompute;
    t.train_thresholds = o.train_thresholds;
    t.optim.kind = OptimOptions::Kind::adamw;
    t.optim.lr = o.if_lr > 0 ? o.if_lr : deep ? 1e-4 : 3e-3;
    t.optim.threshold_lr = t.optim.lr;
    t.optim.weight_decay = 1e-4;
    t.optim.clip_norm = 1;
    t.keep_start = true;
    // Single steps vary more than the rates that the statistics are of: normalising by a batch's
    // own moves a deep network away from what it learnt. ResNet-20, 4000 samples, T = 4: 57.6 % at
    // 16 steps with them frozen, 51.2 % without; LeNet's few layers do better without.
    t.freeze_batch_norm = deep;
    return t;
}

Trained train_stage(Compute& compute, const std::string& name, const Graph& g,
                    const ModelInfo& given, const Dataset& fit, const Dataset& held, TrainOptions t,
                    const ConvertOptions& o, const Graph* teacher) {
    TrainHooks hooks;
    hooks.teacher = teacher;
    hooks.progress = [&](const Progress& p) {
        if (o.progress) o.progress(name, &p);
    };
    hooks.stop = o.stop;
    if (o.checkpoint.empty()) return train(compute, g, given, fit, &held, t, hooks);

    const auto path = std::filesystem::path(o.checkpoint) / (name + ".safetensors");
    t.checkpoint = path.string();
    ModelInfo info = given;
    info.provenance["beginning"] = beginning(g, given, fit);
    if (!o.resume || !std::filesystem::exists(path))
        return train(compute, g, info, fit, &held, t, hooks);
    const Model saved = load_model(t.checkpoint);
    const Json &wanted = info.provenance["beginning"], &found = saved.info.provenance;
    if (!found.is_object() || !found.contains("beginning") || found["beginning"] != wanted)
        throw Error("[convert] " + t.checkpoint +
                        " was not begun from this network and these samples: " + wanted.dump(),
                    ErrorKind::model, "give the same model and data, or start without --resume");
    return train(compute, g, info, fit, &held, t, hooks, &saved);
}

int deployment_steps(const Graph& g, int wanted, int stored, const Dataset& data) {
    if (wanted < 0) throw Error("[convert] T must be at least 1: " + std::to_string(wanted));
    if (const int steps = data.steps(); steps > 0) {
        const int other = wanted > 0 ? wanted : stored;
        if (other > 0 && other != steps)
            throw Error("[convert] the data has T = " + std::to_string(steps) +
                            ", asked for was T = " + std::to_string(other),
                        ErrorKind::data, "frames are made for a T: give the same one for both");
        return steps;
    }
    if (wanted > 0) return wanted;
    if (stored > 0) return stored;
    return is_residual(g) ? 32 : 16;
}

Converted finetune(Compute& compute, const Model& model, const Dataset& training,
                   const Dataset* test, const ConvertOptions& o) {
    const auto start = std::chrono::steady_clock::now();
    if (!is_spiking(model.graph))
        throw Error("[finetune] the network has no spiking neurons", ErrorKind::model,
                    "`nc_convert MODEL --dataset ...` makes a spiking network of it");
    for (const Node& node : model.graph.nodes)
        if (const auto* n = std::get_if<Neuron>(&node.op);
            n && n->rule.spiking != kernels::Spiking::plain)
            throw Error("[finetune] '" + node.name + "' has no gradient: " +
                            (n->rule.spiking == kernels::Spiking::exact ? "an exact neuron"
                                                                        : "a signed neuron"),
                        ErrorKind::model);
    Converted out;
    out.model.info = model.info;
    Statistics& s = out.statistics;
    s.strategy = "finetune";
    s.T = deployment_steps(model.graph, o.T, model.info.T, training);
    s.seed = o.seed;
    const Split split = validation_split(training.size(), o.seed);
    const auto fit = subset(training, split.train), held = subset(training, split.validation);
    Trained trained = train_stage(compute, "tune", model.graph, model.info, *fit, *held,
                                  tuning(model.graph, o, s.T), o);
    out.model.graph = std::move(trained.graph);
    out.model.info.T = s.T;
    if (!std::isnan(trained.validation_accuracy))
        s.validation_accuracy = trained.validation_accuracy;
    s.conversion_time =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() +
        trained.seconds_resumed;
    if (o.progress) o.progress("evaluate", nullptr);
    describe_neurons(out.model.graph, s);
    if (test) measure_on(compute, out.model.graph, *test, o, s);
    out.model.info.provenance["finetuned"] = to_json(s);
    return out;
}

}  // namespace nc
