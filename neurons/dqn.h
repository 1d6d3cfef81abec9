// Double DQN (van Hasselt, Guez and Silver, AAAI 2016) on CartPole: any Graph of 4 inputs and 2
// outputs learns the value of both actions, an ANN or a spiking network through its time steps.
#pragma once

#include <algorithm>
#include <array>
#include <functional>

#include "datasets/cartpole.h"
#include "neurons/policy.h"
#include "neurons/train.h"

namespace nc {

struct DqnOptions {
    DqnOptions();  // what reaches the full return on CartPole soonest
    // Used of it: epochs (rounds at most), batch, optim, schedule, T, train_thresholds, seed,
    // checkpoint.
    TrainOptions train;
    // A round: this many steps in each of the environments, then the updates, against a copy of the
    // network as it was when they began.
    size_t environments = 8, steps = 32, updates = 128;
    size_t buffer = 50000;          // transitions kept
    int warmup_rounds = 4;          // played at random, without updates
    double gamma = 0.99;            // discount
    double exploration_end = 0.05;  // share of random actions, falling to it from 1 ..
    int exploration_rounds = 32;    // .. by this round
    int validate_rounds = 4;        // rounds from one validation to the next
    double enough = 500;            // stops at this mean return over the validation episodes
};

struct DqnProgress {
    int round, rounds;
    int64_t steps, episodes;                // of the environment so far; episodes that ended
    double episode_return;                  // mean of the last 20 that ended; NaN before the first
    double loss;                            // mean over the round; NaN without updates
    double validation_return;               // NaN when there was none
    double steps_per_second, seconds_left;  // left at most
};

struct DqnTrained {
    Graph graph;  // the best on the validation episodes
    double validation_return;
    int best_round, rounds;  // rounds: played
    int64_t steps, episodes;
    double seconds;
};

// resume: a checkpoint's model, or null; it gives the bits of an uninterrupted run, whatever the
// threads. stop is asked after every round; true: checkpoint and throw Interrupted. Error when the
// graph does not fit CartPole, when the loss becomes NaN, and as train() on resuming.
DqnTrained train_dqn(Compute&, const Graph&, const ModelInfo&, const DqnOptions&,
                     const std::function<void(const DqnProgress&)>& progress = {},
                     const std::function<bool()>& stop = {}, const Model* resume = nullptr);

// What happened on one step of an environment.
struct Transition {
    std::array<float, 4> state, next;
    int32_t action;
    float reward;
    bool terminated;  // not truncated: then the future still has a value
};

// Does the step.
Transition transition(CartPole& environment, int action);

// The last `capacity` transitions.
class Replay {
 public:
    explicit Replay(size_t capacity);
    void add(const Transition&);
    size_t size() const { return std::min(added_, capacity_); }
    size_t added() const { return added_; }
    Transition at(size_t i) const;  // i < size(), in no order that means anything

    // All of them, and back; a checkpoint's.
    Tensor rows() const { return rows_.slice(0, size()); }
    void restore(const Tensor& rows, size_t added);

 private:
    size_t capacity_, added_ = 0;
    Tensor rows_;  // [capacity, 11]: state, next, action, reward, terminated
};

// reward + gamma * (the target network's value of the action the online network would take next),
// without the future where the episode terminated. next_online, next_target: values of the next
// states, [N, 2].
std::vector<float> dqn_targets(const std::vector<Transition>&, const Tensor& next_online,
                               const Tensor& next_target, double gamma);

}  // namespace nc
