// Double DQN: play a round, learn from what is remembered, now and then measure.
#include "neurons/dqn.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <limits>

#include "datasets/streams.h"
#include "neurons/train_state.h"

namespace nc {
namespace {

constexpr size_t width = CartPole::observations, actions = CartPole::actions;
constexpr size_t row_width = 2 * width + 3;
constexpr size_t recent_episodes = 20;
constexpr int checkpoint_rounds = 10;
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

double seconds_now() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

void check_options(const DqnOptions& o) {
    const auto need = [](bool ok, const std::string& what) {
        if (!ok) throw Error("[dqn] " + what);
    };
    need(o.train.epochs >= 1, "at least 1 round: " + std::to_string(o.train.epochs));
    need(o.train.batch >= 1 && o.environments >= 1 && o.steps >= 1 && o.buffer >= 1,
         "batch, environments, steps and buffer must be at least 1");
    need(o.train.T >= 1, "T must be at least 1: " + std::to_string(o.train.T));
    need(o.gamma >= 0 && o.gamma <= 1, "gamma must be in [0, 1]: " + std::to_string(o.gamma));
    need(o.exploration_end >= 0 && o.exploration_end <= 1,
         "exploration must be in [0, 1]: " + std::to_string(o.exploration_end));
    need(o.validate_rounds >= 1, "validation every 1 round or more");
}

// What decides the result beside the TrainOptions.
Json to_json(const DqnOptions& o) {
    return {{"environments", o.environments},
            {"steps", o.steps},
            {"updates", o.updates},
            {"buffer", o.buffer},
            {"warmup_rounds", o.warmup_rounds},
            {"gamma", o.gamma},
            {"exploration_end", o.exploration_end},
            {"exploration_rounds", o.exploration_rounds},
            {"validate_rounds", o.validate_rounds},
            {"enough", o.enough}};
}

// Everything of one call of train_dqn().
class Learner {
 public:
    Learner(Compute& compute, const Graph& graph, const ModelInfo& info, const DqnOptions& options,
            TrainState state)
        : compute_(compute),
          graph_(graph),
          info_(info),
          options_(options),
          state_(std::move(state)),
          online_(with_tensors(graph_, state_.tensors)),
          replay_(options.buffer) {
        for (size_t i = 0; i < options.environments; ++i)
            environments_.emplace_back(options.train.seed, started_++);
    }

    // What a checkpoint holds beside the TrainState.
    void restore(const Model& model) {
        const auto fail = [](const std::string& what) {
            throw Error("[resume] " + what, ErrorKind::model);
        };
        const Json info = model.state_info.value("dqn", Json());
        if (!info.is_object() || !info.contains("options") || !info["options"].is_object())
            fail("the checkpoint is of no training of a policy");
        const Json wanted = to_json(options_);
        for (const auto& [key, value] : wanted.items())
            if (const Json had = info["options"].value(key, Json()); had != value)
                fail("the checkpoint was trained with " + key + " = " + had.dump() + ", not " +
                     value.dump());
        const auto tensor = [&](const char* name, size_t columns, DType dtype) {
            const auto found = model.state.find(name);
            if (found == model.state.end() || found->second.dtype() != dtype ||
                found->second.shape().rank() != 2 || found->second.shape()[1] != columns)
                fail(std::string("the checkpoint has no '") + name + "'");
            return found->second;
        };
        const auto number = [&](const char* name) {
            if (!info.contains(name) || !info[name].is_number_unsigned())
                fail(std::string("the checkpoint has no count '") + name + "'");
            return info[name].get<uint64_t>();
        };
        replay_.restore(tensor("replay", row_width, DType::f32), number("added"));
        const Tensor at = tensor("environments", width + 1, DType::f64);
        if (at.shape()[0] != environments_.size()) fail("the checkpoint lacks environments");
        for (size_t i = 0; i < environments_.size(); ++i) {
            const double* row = at.data<double>() + i * (width + 1);
            if (!(row[4] >= 0 && row[4] < CartPole::max_steps))
                fail("an environment is at step " + std::to_string(row[4]));
            environments_[i] =
                CartPole(CartPole::State{row[0], row[1], row[2], row[3]}, int(row[4]));
        }
        started_ = number("started");
        ended_ = number("ended");
        for (const Json& value : info.value("recent", Json::array()))
            recent_.push_back(value.is_number() ? value.get<double>() : nan);
    }

    DqnTrained run(const std::function<void(const DqnProgress&)>& progress,
                   const std::function<bool()>& stop) {
        begin_ = seconds_now();
        first_ = state_.epoch;
        while (!done()) {
            const DqnProgress p = round();
            if (progress) progress(p);
            const bool stopped = stop && stop() && !done();
            if (stopped || done() || p.round % checkpoint_rounds == 0) save();
            if (stopped) throw Interrupted();
        }
        return {with_tensors(graph_, copies(on_host(state_.best))),
                state_.best_accuracy,
                state_.best_epoch,
                state_.epoch,
                int64_t(replay_.added()),
                int64_t(ended_),
                state_.seconds + seconds_now() - begin_};
    }

 private:
    bool done() const {
        return state_.epoch >= options_.train.epochs || state_.best_accuracy >= options_.enough;
    }

    DqnProgress round() {
        play();
        const double loss = state_.epoch < options_.warmup_rounds ? nan : learn();
        ++state_.epoch;
        const bool due =
            state_.epoch % options_.validate_rounds == 0 || state_.epoch >= options_.train.epochs;
        const double value = due ? validate() : nan;
        double sum = 0;
        for (const double r : recent_) sum += r;
        const double took = seconds_now() - begin_, left = options_.train.epochs - state_.epoch;
        const double rounds = state_.epoch - first_;
        return {state_.epoch,
                options_.train.epochs,
                int64_t(replay_.added()),
                int64_t(ended_),
                recent_.empty() ? nan : sum / double(recent_.size()),
                loss,
                value,
                rounds * double(options_.environments * options_.steps) / took,
                took / rounds * left};
    }

    double exploration() const {
        const int round = state_.epoch - options_.warmup_rounds;
        const double share =
            std::clamp(double(round) / std::max(1, options_.exploration_rounds), 0.0, 1.0);
        return 1 + share * (options_.exploration_end - 1);
    }

    // Steps in all environments, those that end begin anew.
    void play() {
        const double explore = exploration();
        for (size_t step = 0; step < options_.steps; ++step) {
            Tensor states({environments_.size(), width});
            for (size_t i = 0; i < environments_.size(); ++i)
                environments_[i].observe(states.data<float>() + i * width);
            const Tensor values = action_values(compute_, online_, options_.train.T, states);
            for (size_t i = 0; i < environments_.size(); ++i)
                act(environments_[i], values.data<float>() + i * actions, explore);
        }
    }

    void act(CartPole& environment, const float* values, double explore) {
        Random random(options_.train.seed, streams::explore + replay_.added());
        const bool drawn = random.uniform() < explore;
        replay_.add(
            transition(environment, drawn ? int(random.below(actions)) : best_action(values)));
        if (!environment.over()) return;
        recent_.push_back(environment.steps());
        if (recent_.size() > recent_episodes) recent_.pop_front();
        ++ended_;
        environment = CartPole(options_.train.seed, started_++);
    }

    // Mean loss of a round's updates.
    double learn() {
        const Graph target = with_tensors(graph_, copies(state_.tensors));
        double sum = 0;
        for (size_t i = 0; i < options_.updates; ++i) sum += update(target);
        const double loss = sum / double(options_.updates);
        if (!std::isfinite(loss) && options_.updates > 0)
            throw Error("[dqn] the loss is " + std::to_string(loss) + " in round " +
                            std::to_string(state_.epoch + 1),
                        ErrorKind::usage, "a lower learning rate or clipping the gradient helps");
        return loss;
    }

    double update(const Graph& target) {
        const TrainOptions& t = options_.train;
        Random random(t.seed, streams::replay + uint64_t(state_.moments.step));
        std::vector<Transition> batch;
        Tensor states({t.batch, width}), next({t.batch, width});
        for (size_t i = 0; i < t.batch; ++i) {
            batch.push_back(replay_.at(random.below(replay_.size())));
            std::copy_n(batch[i].state.begin(), width, states.data<float>() + i * width);
            std::copy_n(batch[i].next.begin(), width, next.data<float>() + i * width);
        }
        const std::vector<float> wanted =
            dqn_targets(batch, action_values(compute_, online_, t.T, next),
                        action_values(compute_, target, t.T, next), options_.gamma);
        Tensor targets = Tensor::full<float>({t.batch, actions}, 0), taken = targets.clone();
        for (size_t i = 0; i < t.batch; ++i) {
            const size_t at = i * actions + size_t(batch[i].action);
            targets.data<float>()[at] = wanted[i];
            taken.data<float>()[at] = 1;
        }
        Allocator& here = *compute_.allocator;
        return descend(states.to(here), targets.to(here), taken.to(here));
    }

    double descend(const Tensor& states, const Tensor& targets, const Tensor& taken) {
        const TrainOptions& t = options_.train;
        Tape tape(compute_);
        const Parameters variables = on_tape(state_, tape);
        ForwardOptions how;
        how.T = size_t(t.T);
        how.training = true;
        const Forwarded out = forward(compute_, online_, variables, states, how, &tape);
        const Var loss =
            fn::huber(compute_, &tape, mean_logits(compute_, &tape, out), targets, taken);
        tape.backward(loss);
        std::vector<Parameter> parameters = with_gradients(state_, tape, variables);
        const int64_t total = int64_t(t.epochs) * int64_t(options_.updates);
        optimise(compute_, t.optim, scheduled(t.schedule, 1, state_.moments.step, total, t.warmup),
                 parameters, state_.moments);
        compute_.check("dqn");
        return loss.value.to_host().data<float>()[0];
    }

    double validate() {
        PlayOptions how;
        how.T = options_.train.T;
        how.episodes = validation_episodes;
        const double value = mean(nc::play(compute_, online_, how));
        // Of equals the later one, which learnt longer.
        if (state_.best.empty() || value >= state_.best_accuracy) {
            state_.best = copies(state_.tensors);
            state_.best_accuracy = value;
            state_.best_epoch = state_.epoch;
        }
        return value;
    }

    void save() {
        if (options_.train.checkpoint.empty()) return;
        TrainState& s = state_;
        const double before = s.seconds;
        s.seconds += seconds_now() - begin_;
        Model model = make_checkpoint(s, graph_, info_, options_.train);
        s.seconds = before;
        std::vector<double> at;
        for (const CartPole& e : environments_)
            for (const double v : {e.state().x, e.state().x_dot, e.state().theta,
                                   e.state().theta_dot, double(e.steps())})
                at.push_back(v);
        model.state["environments"] = Tensor::from(at, {environments_.size(), width + 1});
        model.state["replay"] = replay_.rows();
        model.state_info["dqn"] = {{"options", to_json(options_)},
                                   {"added", replay_.added()},
                                   {"started", started_},
                                   {"ended", ended_},
                                   {"recent", recent_}};
        save_model(options_.train.checkpoint, model);
    }

    Compute& compute_;
    const Graph graph_;
    const ModelInfo& info_;
    const DqnOptions& options_;
    TrainState state_;    // epoch: the round; best_accuracy: the validation episodes' mean return
    const Graph online_;  // the network with the tensors being trained
    Replay replay_;
    std::vector<CartPole> environments_;
    uint64_t started_ = 0;
    uint64_t ended_ = 0;         // episodes
    std::deque<double> recent_;  // the last ones' returns
    double begin_ = 0;
    int first_ = 0;  // round of this run
};

}  // namespace

DqnOptions::DqnOptions() {
    train.epochs = 600;
    train.T = 4;
    train.optim.lr = 2e-3;
    train.optim.weight_decay = 0;
    train.optim.clip_norm = 10;
    train.schedule = Schedule::constant;
}

DqnTrained train_dqn(Compute& compute, const Graph& given, const ModelInfo& info,
                     const DqnOptions& options,
                     const std::function<void(const DqnProgress&)>& progress,
                     const std::function<bool()>& stop, const Model* resume) {
    check_options(options);
    check_policy(given);
    Graph graph = given;
    if (options.train.train_thresholds)
        for (auto& node : graph.nodes)
            if (auto* neuron = std::get_if<Neuron>(&node.op)) neuron->train_theta = true;
    TrainState state = resume != nullptr ? resume_training(*resume, graph, options.train)
                                         : begin_training(graph, options.train);
    move_to(compute, state);
    Learner learner(compute, graph, info, options, std::move(state));
    if (resume != nullptr) learner.restore(*resume);
    return learner.run(progress, stop);
}

Transition transition(CartPole& environment, int action) {
    Transition t;
    environment.observe(t.state.data());
    const CartPole::Step step = environment.step(action);
    environment.observe(t.next.data());
    t.action = action;
    t.reward = float(step.reward);
    t.terminated = step.terminated;
    return t;
}

Replay::Replay(size_t capacity) : capacity_(capacity), rows_({capacity, row_width}) {}

void Replay::add(const Transition& t) {
    float* row = rows_.data<float>() + added_++ % capacity_ * row_width;
    row = std::copy(t.state.begin(), t.state.end(), row);
    row = std::copy(t.next.begin(), t.next.end(), row);
    row[0] = float(t.action), row[1] = t.reward, row[2] = t.terminated ? 1 : 0;
}

Transition Replay::at(size_t i) const {
    if (i >= size())
        throw Error("[replay] transition " + std::to_string(i) + " of " + std::to_string(size()));
    const float* row = rows_.data<float>() + i * row_width;
    Transition t;
    std::copy_n(row, width, t.state.begin());
    std::copy_n(row + width, width, t.next.begin());
    row += 2 * width;
    t.action = int32_t(row[0]), t.reward = row[1], t.terminated = row[2] != 0;
    return t;
}

void Replay::restore(const Tensor& rows, size_t added) {
    if (rows.shape()[0] != std::min(added, capacity_))
        throw Error("[replay] " + rows.shape().str() + " are not the last of " +
                        std::to_string(added) + " transitions",
                    ErrorKind::model);
    added_ = added;
    if (added == 0) return;
    rows_.slice(0, size()).assign(rows);
    for (size_t i = 0; i < size(); ++i)
        if (const float action = rows_.data<float>()[i * row_width + 2 * width];
            action != 0 && action != 1)
            throw Error("[replay] action " + std::to_string(action), ErrorKind::model);
}

std::vector<float> dqn_targets(const std::vector<Transition>& batch, const Tensor& next_online,
                               const Tensor& next_target, double gamma) {
    std::vector<float> out;
    const float *online = next_online.host_data<float>(), *target = next_target.host_data<float>();
    for (const Transition& t : batch) {
        const double future = t.terminated ? 0 : double(target[best_action(online)]);
        out.push_back(float(t.reward + gamma * future));
        online += actions, target += actions;
    }
    return out;
}

}  // namespace nc
