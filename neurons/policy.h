// Acting: what a network that values actions does in CartPole, over whole episodes.
#pragma once

#include <functional>
#include <vector>

#include "datasets/dataset.h"
#include "engine/graph.h"

namespace nc {

// Episodes first .. first + count - 1 of a seed. Training plays those from 0 on of its own seed;
// what others are for is fixed, with seed 0, so that all networks meet the same.
struct Episodes {
    uint64_t first;
    size_t count;
};
constexpr Episodes validation_episodes = {uint64_t(1) << 40, 100};
constexpr Episodes test_episodes = {uint64_t(2) << 40, 100};
constexpr Episodes data_episodes = {uint64_t(3) << 40, 64};       // visited for a data set
constexpr Episodes data_test_episodes = {uint64_t(4) << 40, 16};  // and for its test part

// Error (kind data) when the network does not take states and value actions of CartPole.
void check_policy(const Graph&);

// The value of each action, [N, A] on the host: a spiking network's mean output over T steps of the
// states [N, F] as constant input. The graph is where compute works (on_device).
Tensor action_values(Compute&, const Graph&, int T, const Tensor& states);

// The action with the highest of 2 values: of equal ones the first.
inline int best_action(const float* values) {
    return values[1] > values[0];
}

// A step of all episodes that are still on, each row one of them; on the host.
struct Visit {
    const Tensor& states;  // [N, 4]
    const Tensor& values;  // [N, 2]
};
struct PlayOptions {
    int T = 1;  // of a spiking network
    Episodes episodes = test_episodes;
    // Each episode draws its own share of random actions from [0, exploration].
    double exploration = 0;
    std::function<void(const Visit&)> visit;
    std::function<bool()> stop;  // true: Interrupted is thrown
};
// The return of each episode, the best action taken at every step.
std::vector<double> play(Compute&, const Graph&, const PlayOptions&);

double mean(const std::vector<double>&);

// The states a policy visits, with random actions in between so that some are off its track, in a
// random order; the label is the action that it values most.
DataSets policy_states(Compute&, const Graph&, int T, const std::function<bool()>& stop = {});

}  // namespace nc
