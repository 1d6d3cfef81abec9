// Double DQN: its buffer, targets and loss by hand, learning, determinism, resuming; policies and
// the states they visit.
#include "neurons/dqn.h"

#include <cmath>
#include <set>

#include "autograd/gradcheck.h"
#include "datasets/cartpole.h"
#include "engine/graph_edit.h"
#include "neurons/zoo.h"
#include "tests/check.h"
#include "tests/devices.h"

using namespace nc;
using namespace nc::test;

namespace {

Graph policy_net(const std::string& activation, uint64_t seed = 0) {
    ZooOptions zoo;
    zoo.activation = activation;
    zoo.seed = seed;
    return make_model("dqn", {4}, 2, zoo);
}

// One layer: the value of a push to the right is this much of the state, to the left nothing.
Graph linear_policy(const std::vector<float>& right) {
    std::vector<float> weight(8);
    for (size_t i = 0; i < 4; ++i) weight[2 * i + 1] = right[i];
    Graph g;
    size_t at = add_node(g, "in", Input{{4}}, {});
    at = add_node(g, "fc", Linear{Tensor::from(weight, {4, 2}), {}}, {at});
    add_node(g, "out", Output{}, {at});
    return g;
}

// Little of everything, so that a test takes a fraction of a second.
DqnOptions brief(int rounds) {
    DqnOptions o;
    o.train.epochs = rounds;
    o.train.batch = 16;
    o.train.T = 2;
    o.updates = 8;
    o.steps = 8;
    o.buffer = 200;
    o.warmup_rounds = 2;
    o.validate_rounds = 3;
    return o;
}

std::vector<float> weights_of(const Graph& g) {
    std::vector<float> out;
    for (const Node& node : g.nodes)
        for_each_tensor(node, [&](const char*, const Tensor& t, TensorRole) {
            if (!t.defined()) return;
            const auto values = t.to_vector<float>();
            out.insert(out.end(), values.begin(), values.end());
        });
    return out;
}

}  // namespace

TEST_CASE("dqn: the buffer keeps the last transitions, whole") {
    Replay replay(3);
    CHECK(replay.size() == 0);
    for (int i = 0; i < 5; ++i) {
        const float x = float(i);
        replay.add({{x, 1, 2, 3}, {x + 10, 5, 6, 7}, i % 2, x / 2, i == 4});
        CHECK(replay.size() == size_t(std::min(i + 1, 3)));
    }
    std::set<float> kept;
    for (size_t i = 0; i < 3; ++i) {
        const Transition t = replay.at(i);
        kept.insert(t.state[0]);
        CHECK(t.next[0] == t.state[0] + 10);
        CHECK((t.state[3] == 3 && t.next[1] == 5 && t.next[3] == 7));
        CHECK(t.action == int(t.state[0]) % 2);
        CHECK(t.reward == t.state[0] / 2);
        CHECK(t.terminated == (t.state[0] == 4));
    }
    CHECK(kept == std::set<float>{2, 3, 4});
    CHECK(contains(error_of([&] { replay.at(3); }), "transition 3 of 3"));

    Replay again(3);
    again.restore(replay.rows(), replay.added());
    again.add({{9, 0, 0, 0}, {}, 0, 0, false});
    replay.add({{9, 0, 0, 0}, {}, 0, 0, false});
    for (size_t i = 0; i < 3; ++i) CHECK(again.at(i).state == replay.at(i).state);
    CHECK(contains(error_of([&] { again.restore(replay.rows(), 2); }), "are not the last of 2"));
}

TEST_CASE("dqn: targets by hand; the future counts unless the episode terminated") {
    // The online network chooses the next action, the target network says what it is worth.
    const Tensor online = Tensor::from<float>({1, 2, 2, 1, 2, 1, 5, 5}, {4, 2});
    const Tensor target = Tensor::from<float>({10, 20, 30, 40, 30, 40, 6, 7}, {4, 2});
    // Ended by a fall, by the time limit, by both, and not at all.
    const CartPole::State falls = {2.39, 10, 0, 0}, stands = {};
    CartPole fallen(falls), late(stands, 499), both(falls, 499), on(stands);
    std::vector<Transition> batch;
    for (CartPole* e : {&fallen, &late, &both, &on}) batch.push_back(transition(*e, 1));
    CHECK((fallen.over() && late.over() && both.over() && !on.over()));
    CHECK(batch[0].state == std::array<float, 4>{2.39f, 10, 0, 0});
    CHECK(batch[0].next[0] == 2.59f);
    CHECK((batch[0].action == 1 && batch[0].reward == 1));
    CHECK(dqn_targets(batch, online, target, 0.5) == std::vector<float>{1, 16, 1, 4});
}

TEST_CASE("dqn: Huber's loss by hand, and its gradient") {
    Compute compute;
    // d = 0.5, -3, and what is not taken counts for nothing.
    const Tensor q = Tensor::from<float>({1.5, 9, 7, 1}, {2, 2});
    const Tensor targets = Tensor::from<float>({1, 0, 0, 4}, {2, 2});
    const Tensor taken = Tensor::from<float>({1, 0, 0, 1}, {2, 2});
    Tape tape(compute);
    const Var values = tape.leaf(q);
    const Var loss = fn::huber(compute, &tape, values, targets, taken);
    CHECK(loss.value.to_vector<float>() == std::vector<float>{(0.125f + 2.5f) / 2});
    tape.backward(loss);
    CHECK(tape.gradient(values).to_vector<float>() == std::vector<float>{0.25, 0, 0, -0.5});

    auto draws = normal_values<double>(12, 1);
    for (double& d : draws)  // away from +-1, where the second derivative jumps
        if (std::abs(std::abs(d) - 1) < 0.05) d *= 1.2;
    const Tensor zeros = Tensor::full<double>({6, 2}, 0);
    std::vector<double> one(12);
    for (size_t i = 0; i < 6; ++i) one[2 * i + i % 2] = 1;
    const Tensor mask = Tensor::from(one, {6, 2});
    const GradientCheck result =
        check_gradient(compute,
                       [&](Compute& c, Tape* t, const std::vector<Var>& in) {
                           return fn::huber(c, t, in[0], zeros, mask);
                       },
                       {Tensor::from(draws, {6, 2})});
    CHECK(result.error < 1e-8);
}

TEST_CASE("policy: plays whole episodes, and each as it would alone") {
    Compute compute;
    // Pushes to where the pole leans and turns: holds on; a constant push falls at once.
    const Graph good = linear_policy({0.1f, 0.5f, 10, 2}), bad = linear_policy({0, 0, 0, 0});
    PlayOptions how;
    how.episodes = {test_episodes.first, 8};
    const std::vector<double> long_ones = play(compute, good, how),
                              short_ones = play(compute, bad, how);
    CHECK(mean(long_ones) > 450);
    for (size_t i = 0; i < 8; ++i) {
        CartPole e(0, test_episodes.first + i);
        while (!e.step(0).over()) {
        }
        CHECK(short_ones[i] == e.steps());
        how.episodes = {test_episodes.first + i, 1};
        CHECK(play(compute, good, how).at(0) == long_ones[i]);
    }
    CHECK(contains(error_of([&] {
                       check_policy(make_model("mlp", {28, 28, 1}, 10, {}));
                   }),
                   "CartPole"));
    how.stop = [] { return true; };
    CHECK_THROWS_AS(play(compute, good, how), Interrupted);
}

TEST_CASE("policy: the states it visits, and its actions in them") {
    Compute compute;
    const Graph g = linear_policy({0.1f, 0.5f, 10, 2});
    const DataSets sets = policy_states(compute, g, 1);
    CHECK(sets.train->sample_shape() == Shape{4});
    CHECK(sets.train->classes() == 2);
    CHECK(sets.train->size() > sets.test->size());
    EvaluateOptions how;
    CHECK(evaluate(compute, g, *sets.train, how).accuracy == 100);
    CHECK(evaluate(compute, g, *sets.test, how).accuracy == 100);
    std::vector<uint32_t> all(sets.train->size());
    size_t right = 0, off = 0;
    for (uint32_t i = 0; i < all.size(); ++i) all[i] = i;
    Random unused(0);
    const Batch batch = sets.train->batch(compute, all, {}, unused);
    for (size_t i = 0; i < all.size(); ++i) {
        right += size_t(batch.labels[i]);
        off += std::abs(batch.x.data<float>()[4 * i + 2]) > 0.1;
    }
    // Both actions, and states it would not come to without the random ones.
    CHECK((right > all.size() / 4 && right < 3 * all.size() / 4));
    CHECK(off > all.size() / 100);
    AugmentOptions flip;
    flip.flip = true;
    CHECK(contains(error_of([&] { sets.train->batch(compute, {0}, flip, unused); }), "no images"));
    CHECK(contains(error_of([] {
                       vector_dataset(Tensor::full<float>({2, 4}, 0), {0}, 2);
                   }),
                   "N = 1 labels"));
    CHECK(contains(error_of([] {
                       vector_dataset(Tensor::full<float>({1, 4}, 0), {2}, 2);
                   }),
                   "label 2 of 2"));
}

TEST_CASE("dqn: a short training learns to balance, an ANN and a spiking network") {
    for (const char* activation : {"relu", "if", "lif"}) {
        CAPTURE(activation);
        DqnOptions o;
        o.train.T = 2;
        o.train.epochs = sanitized ? 24 : 48;
        o.updates = 64;
        Compute compute(Device{}, 1);
        const Graph before = policy_net(activation);
        PlayOptions how;
        how.T = 2;
        how.episodes.count = 20;
        const double untrained = mean(play(compute, before, how));
        const DqnTrained t = train_dqn(compute, before, {}, o);
        CHECK(untrained < 30);
        CHECK(mean(play(compute, t.graph, how)) > 3 * untrained);
        CHECK(t.validation_return > 3 * untrained);
        CHECK(t.steps == int64_t(t.rounds) * 256);
        CHECK(weights_of(before) == weights_of(policy_net(activation)));
    }
}

TEST_CASE("dqn: the same bits on one and two threads, others for another seed") {
    for (const char* activation : {"relu", "if"}) {
        const auto trained = [&](int threads, uint64_t seed) {
            Compute compute(Device{}, threads);
            DqnOptions o = brief(6);
            o.train.seed = seed;
            return weights_of(train_dqn(compute, policy_net(activation), {}, o).graph);
        };
        CHECK(trained(1, 0) == trained(2, 0));
        CHECK(trained(1, 0) != trained(1, 1));
    }
}

TEST_CASE("dqn: stopped and resumed gives the bits of an uninterrupted run") {
    const TempFolder folder;
    Compute compute(Device{}, 1);
    const Graph g = policy_net("if");
    DqnOptions o = brief(9);
    std::vector<DqnProgress> seen;
    const auto note = [&](const DqnProgress& p) { seen.push_back(p); };
    const DqnTrained whole = train_dqn(compute, g, {}, o, note);
    CHECK(seen.size() == 9);
    CHECK((seen[2].validation_return > 0 && std::isnan(seen[3].validation_return)));
    CHECK(std::isnan(seen[1].loss));
    CHECK(seen[2].loss > 0);

    o.train.checkpoint = folder / "last.safetensors";
    int rounds = 0;
    CHECK_THROWS_AS(train_dqn(compute, g, {}, o, {}, [&] { return ++rounds == 5; }), Interrupted);
    const Model saved = load_model(o.train.checkpoint);
    const DqnTrained rest = train_dqn(compute, saved.graph, {}, o, {}, {}, &saved);
    CHECK(weights_of(rest.graph) == weights_of(whole.graph));
    CHECK((rest.steps == whole.steps && rest.episodes == whole.episodes));
    CHECK(rest.validation_return == whole.validation_return);

    const auto refusal = [&](const DqnOptions& other, const Model& model) {
        return error_of([&] { train_dqn(compute, g, {}, other, {}, {}, &model); });
    };
    DqnOptions other = o;
    other.gamma = 0.5;
    CHECK(contains(refusal(other, saved), "gamma = 0.99, not 0.5"));
    other = o;
    other.train.batch = 17;
    CHECK(contains(refusal(other, saved), "batch = 16, not 17"));
    Model broken = saved;
    broken.state.erase("replay");
    CHECK(contains(refusal(o, broken), "no 'replay'"));
    broken = saved;
    broken.state["replay"] = saved.state.at("replay").clone();
    broken.state["replay"].data<float>()[8] = 7;
    CHECK(contains(refusal(o, broken), "action 7"));
    broken = saved;
    broken.state["environments"] = Tensor::full<double>({8, 5}, 500);
    CHECK(contains(refusal(o, broken), "at step 500"));
    broken = saved;
    broken.state_info.erase("dqn");
    CHECK(contains(refusal(o, broken), "no training of a policy"));
    for (const Json& odd : {Json(7), Json::array(), Json{{"options", 7}}}) {
        broken.state_info["dqn"] = odd;
        CHECK(contains(refusal(o, broken), "no training of a policy"));
    }
    for (const Shape& shape : {Shape{}, Shape{5}, Shape{1, 2, 5}}) {
        broken = saved;
        broken.state["environments"] = Tensor::full<double>(shape, 0);
        CHECK(contains(refusal(o, broken), "no 'environments'"));
    }
    broken = saved;
    broken.state_info["dqn"].erase("started");
    CHECK(contains(refusal(o, broken), "started"));
}

TEST_CASE("dqn: on a device, where a spiking policy acts as on the host") {
    const Graph g = policy_net("if", 3);
    Compute host(Device{}, 1);
    PlayOptions how;
    how.T = 2;
    how.episodes.count = 5;
    on_devices([&](Compute& compute) {
        CHECK(play(compute, g, how) == play(host, g, how));
        const DqnTrained t = train_dqn(compute, g, {}, brief(3));
        CHECK(t.steps == 3 * 64);
        CHECK(weights_of(t.graph) != weights_of(g));
        CHECK(mean(play(host, t.graph, how)) >= 8);
    });
}

TEST_CASE("dqn: options that make no sense") {
    Compute compute;
    const auto refusal = [&](const std::function<void(DqnOptions&)>& change) {
        DqnOptions o = brief(1);
        change(o);
        return error_of([&] { train_dqn(compute, policy_net("relu"), {}, o); });
    };
    CHECK(contains(refusal([](DqnOptions& o) { o.train.epochs = 0; }), "at least 1 round: 0"));
    CHECK(contains(refusal([](DqnOptions& o) { o.gamma = 1.5; }), "gamma must be in [0, 1]: 1.5"));
    CHECK(contains(refusal([](DqnOptions& o) { o.environments = 0; }), "at least 1"));
    CHECK(contains(refusal([](DqnOptions& o) { o.train.T = 0; }), "T must be at least 1: 0"));
    CHECK(contains(refusal([](DqnOptions& o) { o.exploration_end = -1; }), "exploration"));
    CHECK(contains(refusal([](DqnOptions& o) {
                       o.train.optim.lr = 1e30;
                       o.train.optim.clip_norm = 0;
                       o.train.epochs = 20;
                   }),
                   "the loss is"));
}
