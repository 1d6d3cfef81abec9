// What training changes, kept apart from the Graph; a checkpoint is a model file made of it.
#include "neurons/train_state.h"

#include <algorithm>
#include <cmath>

namespace nc {
namespace {

[[noreturn]] void fail(const std::string& what) {
    throw Error("[resume] " + what, ErrorKind::model);
}

// Which tensors of a checkpoint's state belong to which map.
const char* const average_prefix = "average/";
const char* const moment_prefix = "moment/";
const char* const best_prefix = "best/";

void put(std::map<std::string, Tensor>& state, const std::string& prefix, const Tensors& tensors) {
    for (const auto& [name, tensor] : tensors) state[prefix + name] = tensor.to_host();
}

// Copies, so that training may write them; shapes as in `like` where the names are the same.
Tensors take(const std::map<std::string, Tensor>& state, const std::string& prefix,
             const Tensors& like) {
    Tensors out;
    for (auto it = state.lower_bound(prefix); it != state.end(); ++it) {
        if (it->first.compare(0, prefix.size(), prefix) != 0) break;
        const std::string name = it->first.substr(prefix.size());
        const auto known =
            like.find(prefix == moment_prefix ? name.substr(0, name.rfind('.')) : name);
        if (known == like.end()) fail("'" + it->first + "' belongs to no tensor of the network");
        if (!(known->second.shape() == it->second.shape()) || it->second.dtype() != DType::f32)
            fail("'" + it->first + "' is " + it->second.shape().str() + ", not " +
                 known->second.shape().str());
        out[name] = it->second.clone();
    }
    return out;
}

template <class T>
T number(const Json& info, const char* key) {
    if (!info.contains(key)) fail(std::string("the checkpoint lacks '") + key + "'");
    const Json& value = info[key];
    if constexpr (std::is_floating_point_v<T>)
        if (value.is_null()) return std::numeric_limits<T>::quiet_NaN();
    if (!value.is_number()) fail(std::string("'") + key + "' is not a number: " + value.dump());
    return value.get<T>();
}

Json real(double x) {
    return std::isfinite(x) ? Json(x) : Json(nullptr);
}

}  // namespace

TrainState begin_training(const Graph& graph, const TrainOptions& options) {
    TrainState state;
    for (const auto& node : graph.nodes)
        for_each_tensor(node, [&](const char* field, const Tensor& tensor, TensorRole role) {
            if (!tensor.defined()) return;
            const std::string name = node.name + "." + field;
            state.tensors[name] = tensor.clone();
            if (role == TensorRole::statistic) return;
            if (const auto* neuron = std::get_if<Neuron>(&node.op);
                neuron != nullptr && !neuron->train_theta)
                return;
            state.trained[name] = role;
        });
    if (options.ema > 0) state.average = copies(state.tensors);
    return state;
}

Graph with_tensors(Graph graph, const Tensors& tensors) {
    for (auto& node : graph.nodes)
        for_each_tensor(node, [&](const char* field, Tensor& tensor, TensorRole) {
            if (const auto found = tensors.find(node.name + "." + field); found != tensors.end())
                tensor = found->second;
        });
    return graph;
}

Tensors copies(const Tensors& tensors) {
    Tensors out;
    for (const auto& [name, tensor] : tensors) out[name] = tensor.clone();
    return out;
}

void move_to(const Compute& compute, TrainState& state) {
    for (Tensors* tensors : {&state.tensors, &state.average, &state.moments.tensors, &state.best})
        for (auto& [name, tensor] : *tensors) tensor = tensor.to(*compute.allocator);
}

Tensors on_host(const Tensors& tensors) {
    Tensors out;
    for (const auto& [name, tensor] : tensors) out[name] = tensor.to_host();
    return out;
}

Parameters on_tape(const TrainState& state, Tape& tape) {
    Parameters out;
    for (const auto& [name, tensor] : state.tensors)
        out[name] = state.trained.count(name) > 0 ? tape.leaf(tensor) : Var(tensor);
    return out;
}

std::vector<Parameter> with_gradients(TrainState& state, const Tape& tape,
                                      const Parameters& variables) {
    std::vector<Parameter> out;
    for (const auto& [name, role] : state.trained)
        out.push_back({name, &state.tensors.at(name), tape.gradient(variables.at(name)), role});
    return out;
}

// The average of the first steps would otherwise be the random weights'.
void update_average(Compute& compute, TrainState& state, double decay, int64_t step) {
    const double d = std::min(decay, double(1 + step) / double(10 + step));
    for (auto& [name, average] : state.average)
        ops::add_scaled_into(compute, average, ops::sub(compute, state.tensors.at(name), average),
                             1 - d);
}

Json to_json(const TrainOptions& o) {
    const OptimOptions& p = o.optim;
    const AugmentOptions& a = o.augment;
    const char* const schedules[] = {"constant", "cosine", "linear", "step"};
    return {{"epochs", o.epochs},
            {"batch", o.batch},
            {"seed", o.seed},
            {"optimizer", p.kind == OptimOptions::Kind::sgd ? "sgd" : "adamw"},
            {"lr", p.lr},
            {"momentum", p.momentum},
            {"nesterov", p.nesterov},
            {"beta1", p.beta1},
            {"beta2", p.beta2},
            {"eps", p.eps},
            {"weight_decay", p.weight_decay},
            {"threshold_lr", p.threshold_lr},
            {"decay_all", p.decay_all},
            {"clip_norm", p.clip_norm},
            {"schedule", schedules[int(o.schedule)]},
            {"warmup", o.warmup},
            {"label_smoothing", o.label_smoothing},
            {"ema", o.ema},
            {"crop", a.crop},
            {"flip", a.flip},
            {"cutout", a.cutout},
            {"shift", a.shift},
            {"auto_augment", a.auto_augment},
            {"T", o.T},
            {"train_thresholds", o.train_thresholds},
            {"freeze_batch_norm", o.freeze_batch_norm},
            {"ann_frames", o.ann_frames},
            {"distill", o.distill},
            {"temperature", o.temperature},
            {"keep_best", o.keep_best},
            {"keep_start", o.keep_start}};
}

Model make_checkpoint(const TrainState& state, const Graph& graph, const ModelInfo& info,
                      const TrainOptions& options) {
    Model model;
    model.graph = with_tensors(graph, on_host(state.tensors));
    model.info = info;
    put(model.state, average_prefix, state.average);
    put(model.state, moment_prefix, state.moments.tensors);
    put(model.state, best_prefix, state.best);
    model.state_info = {{"options", to_json(options)},
                        {"epoch", state.epoch},
                        {"step", state.step},
                        {"updates", state.moments.step},
                        {"loss_sum", state.loss_sum},
                        {"correct", state.correct},
                        {"seen", state.seen},
                        {"epoch_seconds", state.epoch_seconds},
                        {"seconds", state.seconds},
                        {"best_accuracy", real(state.best_accuracy)},
                        {"best_epoch", state.best_epoch}};
    return model;
}

TrainState resume_training(const Model& model, const Graph& graph, const TrainOptions& options) {
    const Json& info = model.state_info;
    if (!info.is_object() || !info.contains("options"))
        fail("the file is a finished model, not a checkpoint: it holds no training state");
    const Json wanted = to_json(options);
    for (const auto& [key, value] : wanted.items())
        if (!info["options"].contains(key) || info["options"][key] != value)
            fail("the checkpoint was trained with " + key + " = " +
                 (info["options"].contains(key) ? info["options"][key].dump() : "nothing") +
                 ", not " + value.dump());

    TrainState state = begin_training(graph, options);
    const TrainState saved = begin_training(model.graph, options);
    if (saved.tensors.size() != state.tensors.size() || saved.trained != state.trained)
        fail("the checkpoint is of another network");
    for (auto& [name, tensor] : state.tensors) {
        const auto found = saved.tensors.find(name);
        if (found == saved.tensors.end() || !(found->second.shape() == tensor.shape()))
            fail("the checkpoint is of another network: it has no '" + name + "' of shape " +
                 tensor.shape().str());
        tensor = found->second;
    }
    state.average = take(model.state, average_prefix, state.tensors);
    state.moments.tensors = take(model.state, moment_prefix, state.tensors);
    state.best = take(model.state, best_prefix, state.tensors);
    if (!state.average.empty() != (options.ema > 0) ||
        (!state.average.empty() && state.average.size() != state.tensors.size()))
        fail("the averaged weights are incomplete");
    if (!state.best.empty() && state.best.size() != state.tensors.size())
        fail("the best epoch's weights are incomplete");
    state.moments.step = number<int64_t>(info, "updates");
    state.epoch = number<int>(info, "epoch");
    state.step = number<int64_t>(info, "step");
    state.loss_sum = number<double>(info, "loss_sum");
    state.correct = number<uint64_t>(info, "correct");
    state.seen = number<uint64_t>(info, "seen");
    state.epoch_seconds = number<double>(info, "epoch_seconds");
    state.seconds = number<double>(info, "seconds");
    state.best_accuracy = number<double>(info, "best_accuracy");
    state.best_epoch = number<int>(info, "best_epoch");
    if (state.epoch < 0 || state.epoch > options.epochs || state.step < 0 || state.moments.step < 0)
        fail("epoch " + std::to_string(state.epoch) + ", step " + std::to_string(state.step) +
             " are not within the training");
    return state;
}

}  // namespace nc
