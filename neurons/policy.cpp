// Episodes side by side: one forward pass values the states of all of them.
#include "neurons/policy.h"

#include <numeric>

#include "datasets/cartpole.h"
#include "datasets/streams.h"
#include "neurons/train.h"

namespace nc {
namespace {

struct Episode {
    CartPole environment;
    size_t index;
    Random random;
    double exploration;
};

}  // namespace

void check_policy(const Graph& graph) {
    const std::vector<Shape> shapes = infer_shapes(graph);
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
        const Operation& op = graph.nodes[i].op;
        if ((std::holds_alternative<Input>(op) && shapes[i] != Shape{CartPole::observations}) ||
            (std::holds_alternative<Output>(op) && shapes[i] != Shape{CartPole::actions}))
            throw Error("[policy] a policy for CartPole takes " +
                            Shape{CartPole::observations}.str() + " and gives " +
                            Shape{CartPole::actions}.str() + "; '" + graph.nodes[i].name + "' is " +
                            shapes[i].str(),
                        ErrorKind::data);
    }
}

Tensor action_values(Compute& compute, const Graph& graph, int T, const Tensor& states) {
    ForwardOptions how;
    how.T = size_t(T);
    const Tensor x = states.to(*compute.allocator);
    return mean_logits(compute, nullptr, forward(compute, graph, {}, x, how)).value.to_host();
}

std::vector<double> play(Compute& compute, const Graph& graph, const PlayOptions& o) {
    if (o.T < 1) throw Error("[play] T must be at least 1: " + std::to_string(o.T));
    check_policy(graph);
    std::vector<Episode> on;
    for (size_t i = 0; i < o.episodes.count; ++i) {
        const uint64_t number = o.episodes.first + i;
        Random random(0, streams::explore + number);
        const double share = random.uniform(0, o.exploration);
        on.push_back({CartPole(0, number), i, random, share});
    }
    const Graph here = on_device(graph, compute);
    std::vector<double> returns(on.size());
    while (!on.empty()) {
        if (o.stop && o.stop()) throw Interrupted();
        Tensor states({on.size(), CartPole::observations});
        for (size_t i = 0; i < on.size(); ++i)
            on[i].environment.observe(states.data<float>() + i * CartPole::observations);
        const Tensor values = action_values(compute, here, o.T, states);
        if (o.visit) o.visit({states, values});
        const float* q = values.data<float>();
        std::vector<Episode> left;
        for (Episode& e : on) {
            const int best = best_action(q);
            q += CartPole::actions;
            const bool explore = o.exploration > 0 && e.random.uniform() < e.exploration;
            const auto step = e.environment.step(explore ? int(e.random.below(2)) : best);
            returns[e.index] += step.reward;
            if (!step.over()) left.push_back(e);
        }
        on = std::move(left);
    }
    return returns;
}

double mean(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / double(values.size());
}

DataSets policy_states(Compute& compute, const Graph& graph, int T,
                       const std::function<bool()>& stop) {
    constexpr double exploration = 0.5;
    const auto part = [&](const Episodes& episodes) {
        std::vector<float> states;
        std::vector<int32_t> actions;
        PlayOptions how{T, episodes, exploration, {}, stop};
        how.visit = [&](const Visit& v) {
            const float *x = v.states.data<float>(), *q = v.values.data<float>();
            states.insert(states.end(), x, x + v.states.elements());
            for (size_t i = 0; i < v.states.shape()[0]; ++i)
                actions.push_back(best_action(q + CartPole::actions * i));
        };
        play(compute, graph, how);
        const size_t n = actions.size(), width = CartPole::observations;
        Tensor x({n, width});
        std::vector<int32_t> labels;
        for (const uint32_t i :
             Random(0, streams::shuffle + episodes.first).permutation(uint32_t(n))) {
            std::copy_n(&states[i * width], width, x.data<float>() + labels.size() * width);
            labels.push_back(actions[i]);
        }
        return vector_dataset(x, std::move(labels), CartPole::actions);
    };
    DataSets out;
    out.train = part(data_episodes);
    out.test = part(data_test_episodes);
    return out;
}

}  // namespace nc
