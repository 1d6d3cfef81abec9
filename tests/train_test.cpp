// Training and evaluation: learning, determinism, checkpoints, selection, measures.
#include "neurons/train.h"

#include <cmath>
#include <filesystem>

#include "neurons/train_state.h"
#include "neurons/zoo.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

// Images of 8 x 8 with a bright quadrant on noise; the class is the quadrant's number, or `turned`
// further on.
std::unique_ptr<Dataset> quadrants(size_t n, uint64_t seed, int32_t turned = 0) {
    std::mt19937_64 random(seed);
    std::vector<uint8_t> images(n * 64);
    std::vector<int32_t> labels(n);
    for (size_t i = 0; i < n; ++i) {
        labels[i] = int32_t(random() % 4);
        for (size_t p = 0; p < 64; ++p) {
            const size_t quadrant = (p / 32) * 2 + (p % 8) / 4;
            images[i * 64 + p] = uint8_t(random() % 120 + (quadrant == size_t(labels[i]) ? 90 : 0));
        }
    }
    for (int32_t& label : labels) label = (label + turned) % 4;
    return image_dataset(images, labels, {8, 8, 1}, 4, {0.3f}, {0.2f});
}

// conv, norm, activation, pool; linear: small, with everything that training changes.
Graph small_net(const std::string& activation, uint64_t seed = 0) {
    Graph g;
    const auto activate = [&](size_t channels) -> Operation {
        if (activation == "relu") return Activation{};
        if (activation == "qcfs") return Qcfs{Tensor::full<float>({channels}, 2), 4};
        Neuron n = default_neuron(activation);
        n.theta = Tensor::full<float>({1}, 1);
        return n;
    };
    const auto full = [](size_t c, float x) { return Tensor::full<float>({c}, x); };
    size_t at = add_node(g, "in", Input{{8, 8, 1}}, {});
    at = add_node(g, "conv", Conv{Tensor({3, 3, 1, 6}), {}, {.pad_h = 1, .pad_w = 1}}, {at});
    at = add_node(g, "bn", BatchNorm{full(6, 1), full(6, 0), full(6, 0), full(6, 1)}, {at});
    at = add_node(g, "act", activate(6), {at});
    at = add_node(g, "pool", AveragePool{}, {at});
    at = add_node(g, "flat", Flatten{}, {at});
    at = add_node(g, "fc", Linear{Tensor({96, 4}), full(4, 0)}, {at});
    add_node(g, "out", Output{}, {at});
    return draw_weights(g, seed);
}

bool same_graph(const Graph& a, const Graph& b) {
    bool same = a.nodes.size() == b.nodes.size();
    for (size_t i = 0; same && i < a.nodes.size(); ++i) {
        std::vector<Tensor> other;
        for_each_tensor(b.nodes[i],
                        [&](const char*, const Tensor& t, TensorRole) { other.push_back(t); });
        size_t k = 0;
        for_each_tensor(a.nodes[i], [&](const char*, const Tensor& t, TensorRole) {
            const Tensor& u = other[k++];
            if (t.defined() != u.defined() || (t.defined() && !(t.shape() == u.shape())))
                same = false;
            else if (t.defined())
                same = same && std::memcmp(t.raw(), u.raw(), t.bytes()) == 0;
        });
    }
    return same;
}

TrainOptions few_epochs(int epochs = 3) {
    TrainOptions o;
    o.epochs = epochs;
    o.batch = 16;
    o.T = 4;
    o.seed = 7;
    o.optim.lr = 5e-3;
    return o;
}

// A file name that is gone afterwards.
struct TemporaryFile {
    std::string path;
    explicit TemporaryFile(const char* name)
        : path((std::filesystem::temp_directory_path() /
                (std::string(name) + std::to_string(uintptr_t(this)) + ".safetensors"))
                   .string()) {}
    ~TemporaryFile() { std::filesystem::remove(path); }
};

}  // namespace

TEST_CASE("train: every kind of network learns, and the loss falls") {
    const auto data = quadrants(400, 1), unseen = quadrants(200, 2);
    Compute compute(Device{}, 1);
    for (const char* activation : {"relu", "qcfs", "if", "lif"})
        for (const bool recompute : {false, true}) {
            if (recompute && activation[0] != 'i' && activation[0] != 'l') continue;
            CAPTURE(activation);
            TrainOptions options = few_epochs(4);
            options.recompute = recompute;
            std::vector<double> losses;
            TrainHooks hooks;
            hooks.progress = [&](const Progress& p) {
                if (p.epoch_done) losses.push_back(p.loss);
                CHECK(p.peak_bytes > 0);
            };
            const Trained t =
                train(compute, small_net(activation), {}, *data, nullptr, options, hooks);
            CHECK(losses.size() == 4);
            CHECK(losses.back() < 0.5 * losses.front());
            EvaluateOptions how;
            how.T = 4;
            CHECK(evaluate(compute, t.graph, *unseen, how).accuracy > 90);  // chance 25
            CHECK(std::isnan(t.validation_accuracy));
        }
}

TEST_CASE("train: the caller's graph stays, and threads do not change a bit") {
    const auto data = quadrants(100, 3);
    for (const char* activation : {"qcfs", "lif"}) {
        CAPTURE(activation);
        const Graph g = small_net(activation), copy = small_net(activation);
        TrainOptions options = few_epochs(2);
        options.augment.shift = 1;
        Graph results[3];
        for (const int threads : {1, 2, 3}) {
            Compute compute(Device{}, threads);
            results[threads - 1] = train(compute, g, {}, *data, nullptr, options).graph;
        }
        CHECK(same_graph(g, copy));
        CHECK_FALSE(same_graph(g, results[0]));
        CHECK(same_graph(results[0], results[1]));
        CHECK(same_graph(results[0], results[2]));
        options.seed = 8;
        Compute compute(Device{}, 1);
        CHECK_FALSE(same_graph(results[0], train(compute, g, {}, *data, nullptr, options).graph));
    }
}

TEST_CASE("train: resumed after any step, the weights have the bits of an uninterrupted run") {
    const auto data = quadrants(90, 4), validation = quadrants(40, 5);
    Compute compute(Device{}, 1);
    for (const bool sgd : {false, true}) {
        const Graph g = small_net(sgd ? "relu" : "if");
        TrainOptions options = few_epochs(3);
        options.augment.crop = 1;
        options.augment.flip = true;
        options.ema = 0.9;
        options.warmup = 3;
        options.label_smoothing = 0.1;
        options.optim.clip_norm = 1;
        if (sgd) options.optim.kind = OptimOptions::Kind::sgd;
        options.train_thresholds = !sgd;
        const Trained whole = train(compute, g, {}, *data, validation.get(), options);
        const int steps = 90 / 16;
        for (int stop_after = 1; stop_after <= 3 * steps; stop_after += sgd ? 4 : 1) {
            CAPTURE(stop_after);
            TemporaryFile file("nc_resume");
            options.checkpoint = file.path;
            TrainHooks hooks;
            int done = 0;
            hooks.stop = [&] { return ++done == stop_after; };
            CHECK_THROWS_AS(train(compute, g, {}, *data, validation.get(), options, hooks),
                            Interrupted);
            const Model saved = load_model(file.path);
            const Trained rest =
                train(compute, saved.graph, {}, *data, validation.get(), options, {}, &saved);
            CHECK(same_graph(whole.graph, rest.graph));
            CHECK(whole.best_epoch == rest.best_epoch);
            CHECK(whole.validation_accuracy == rest.validation_accuracy);
            CHECK(rest.seconds > rest.seconds_resumed);
            CHECK(rest.seconds_resumed > 0);
        }
    }
}

TEST_CASE("train: a checkpoint exists from the first step on, and refuses what does not fit") {
    const auto data = quadrants(64, 6);
    Compute compute(Device{}, 1);
    const Graph g = small_net("relu");
    TemporaryFile file("nc_checkpoint");
    TrainOptions options = few_epochs(1);
    options.checkpoint = file.path;
    options.checkpoint_steps = 2;
    int seen = 0;
    TrainHooks hooks;
    hooks.progress = [&](const Progress& p) {
        const Model m = load_model(file.path);
        // Written before the first step and after every second one; the last step ends the epoch.
        CHECK(m.state_info["step"] == (p.epoch_done ? 0 : (p.step - 1) / 2 * 2));
        CHECK(m.state_info["epoch"] == (p.epoch_done ? 1 : 0));
        ++seen;
    };
    const Trained t = train(compute, g, {}, *data, nullptr, options, hooks);
    CHECK(seen == 4);
    const Model saved = load_model(file.path);
    CHECK(same_graph(saved.graph, t.graph));

    const auto resume = [&](const Graph& graph, const TrainOptions& o, const Model& m) {
        return error_of([&] { train(compute, graph, {}, *data, nullptr, o, {}, &m); });
    };
    TrainOptions other = options;
    other.optim.lr = 0.5;
    CHECK(contains(resume(g, other, saved), "lr = 0.005, not 0.5"));
    CHECK(contains(resume(small_net("qcfs"), options, saved), "another network"));
    Model finished = saved;
    finished.state_info = Json::object();
    CHECK(contains(resume(g, options, finished), "finished model"));
    Model torn = saved;
    torn.state.erase("moment/conv.weight.m");
    torn.state["moment/unknown.m"] = Tensor::full<float>({1}, 0);
    CHECK(contains(resume(g, options, torn), "moment/unknown.m"));
    Model wrong = saved;
    wrong.state_info["epoch"] = "one";
    CHECK(contains(resume(g, options, wrong), "'epoch' is not a number"));
    wrong = saved;
    wrong.state_info["epoch"] = 12;
    CHECK(contains(resume(g, options, wrong), "epoch 12"));
}

TEST_CASE("train: a loss that is no number names epoch and step") {
    const auto data = quadrants(64, 7);
    Compute compute(Device{}, 1);
    TrainOptions options = few_epochs(2);
    options.optim.kind = OptimOptions::Kind::sgd;
    options.optim.lr = 1e30;
    const std::string what =
        error_of([&] { train(compute, small_net("relu"), {}, *data, nullptr, options); });
    CHECK(contains(what, "in epoch 1, step "));
    CHECK(contains(what, "learning rate"));
}

TEST_CASE("train: options and data that make no sense are refused") {
    const auto data = quadrants(32, 8);
    Compute compute(Device{}, 1);
    const auto refused = [&](auto change) {
        TrainOptions options = few_epochs(1);
        change(options);
        return error_of([&] { train(compute, small_net("if"), {}, *data, nullptr, options); });
    };
    CHECK(contains(refused([](TrainOptions& o) { o.T = 0; }), "T must be at least 1: 0"));
    CHECK(contains(refused([](TrainOptions& o) { o.batch = 0; }), "batch"));
    CHECK(contains(refused([](TrainOptions& o) { o.epochs = -1; }), "epochs"));
    CHECK(contains(refused([](TrainOptions& o) { o.ema = 1; }), "ema"));
    CHECK(contains(refused([](TrainOptions& o) { o.ann_frames = "max"; }), "'max'"));
    CHECK(contains(refused([](TrainOptions& o) { o.distill = 2; }), "[0, 1]: 2"));
    CHECK(contains(refused([](TrainOptions& o) { o.temperature = 0; }), "temperature"));
    CHECK(contains(refused([](TrainOptions& o) { o.distill = 0.5; }), "no teacher"));
    const Graph wide = make_model("mlp", {8, 8, 1}, 7, {});
    CHECK(contains(error_of([&] { train(compute, wide, {}, *data, nullptr, few_epochs(1)); }),
                   "[7] values for 4 classes"));
}

TEST_CASE("train: the epoch best on validation is returned") {
    const auto data = quadrants(200, 9), validation = quadrants(60, 10);
    Compute compute(Device{}, 1);
    TrainOptions options = few_epochs(6);
    options.optim.lr = 0.05;
    options.schedule = Schedule::constant;
    std::vector<double> accuracies;
    TrainHooks hooks;
    hooks.progress = [&](const Progress& p) {
        if (p.epoch_done) accuracies.push_back(p.validation_accuracy);
    };
    const Graph g = small_net("qcfs");
    const Trained best = train(compute, g, {}, *data, validation.get(), options, hooks);
    CHECK(accuracies.size() == 6);
    const double top = *std::max_element(accuracies.begin(), accuracies.end());
    CHECK(best.validation_accuracy == top);
    CHECK(accuracies[size_t(best.best_epoch)] == top);
    CHECK(evaluate(compute, best.graph, *validation, {}).accuracy == top);
    options.keep_best = false;
    const Trained last = train(compute, g, {}, *data, validation.get(), options);
    CHECK(last.best_epoch == 5);
    CHECK(last.validation_accuracy == accuracies.back());
    // What learns other classes is worse than where it began.
    const auto other = quadrants(200, 9, 1);
    options.keep_best = options.keep_start = true;
    const Trained start = train(compute, best.graph, {}, *other, validation.get(), options);
    CHECK(start.best_epoch == -1);
    CHECK(start.validation_accuracy == top);
    CHECK(evaluate(compute, start.graph, *validation, {}).accuracy == top);
    options.keep_start = false;
    CHECK(train(compute, best.graph, {}, *other, validation.get(), options).validation_accuracy <
          top);
}

TEST_CASE("train: a student takes its teacher's answers, the labels, or both") {
    const auto data = quadrants(400, 1), unseen = quadrants(200, 2), turned = quadrants(400, 1, 1);
    Compute compute(Device{}, 1);
    const Graph teacher =
        train(compute, small_net("relu"), {}, *data, nullptr, few_epochs(4)).graph;
    TrainHooks hooks;
    hooks.teacher = &teacher;
    EvaluateOptions how;
    how.T = 4;
    for (const char* activation : {"relu", "if"}) {
        TrainOptions options = few_epochs(4);
        std::vector<double> right;
        for (const double share : {0.0, 1.0}) {
            options.distill = share;
            const Trained student =
                train(compute, small_net(activation, 3), {}, *turned, nullptr, options, hooks);
            right.push_back(evaluate(compute, student.graph, *unseen, how).accuracy);
        }
        CHECK(right[0] < 15);  // the labels say the next class
        CHECK(right[1] > 85);
    }
    // Its own answers are all a network wants already: rounding is left of the gradient.
    TrainOptions options = few_epochs(1);
    options.distill = options.temperature = 1;
    options.freeze_batch_norm = true;
    options.optim.kind = OptimOptions::Kind::sgd;
    options.optim.weight_decay = 0;
    const Graph same = train(compute, teacher, {}, *turned, nullptr, options, hooks).graph;
    const auto before = std::get<Linear>(teacher.nodes[6].op).weight.to_vector<float>();
    const auto after = std::get<Linear>(same.nodes[6].op).weight.to_vector<float>();
    for (size_t i = 0; i < before.size(); ++i) CHECK(std::abs(after[i] - before[i]) < 1e-6);
}

TEST_CASE("train: batch norm keeps running statistics, unless they are frozen") {
    const auto data = quadrants(16, 11);
    Compute compute(Device{}, 1);
    TrainOptions options = few_epochs(1);
    const Graph g = small_net("relu");
    const auto norm = [](const Graph& graph) {
        return std::get<BatchNorm>(graph.nodes[find_node(graph, "bn")].op);
    };
    const BatchNorm after = norm(train(compute, g, {}, *data, nullptr, options).graph);

    // One step over all 16 images, whatever their order.
    Random none(0);
    std::vector<uint32_t> all(16);
    for (uint32_t i = 0; i < 16; ++i) all[i] = i;
    const Batch batch = data->batch(compute, all, {}, none);
    const auto& conv = std::get<Conv>(g.nodes[find_node(g, "conv")].op);
    const Tensor y = ops::conv(compute, batch.x, conv.weight, {}, conv.options);
    for (size_t c = 0; c < 6; ++c) {
        double sum = 0, squares = 0;
        const size_t rows = 16 * 64;
        for (size_t r = 0; r < rows; ++r) sum += y.data<float>()[r * 6 + c];
        for (size_t r = 0; r < rows; ++r)
            squares += std::pow(y.data<float>()[r * 6 + c] - sum / double(rows), 2);
        CHECK(after.mean.data<float>()[c] ==
              doctest::Approx(0.1 * sum / double(rows)).epsilon(1e-4));
        CHECK(after.variance.data<float>()[c] ==
              doctest::Approx(0.9 + 0.1 * squares / double(rows - 1)).epsilon(1e-4));
    }
    options.freeze_batch_norm = true;
    const BatchNorm frozen = norm(train(compute, g, {}, *data, nullptr, options).graph);
    CHECK(frozen.mean.to_vector<float>() == norm(g).mean.to_vector<float>());
    CHECK(frozen.variance.to_vector<float>() == norm(g).variance.to_vector<float>());
}

TEST_CASE("train: the decaying average follows its recurrence") {
    Compute compute(Device{}, 1);
    TrainState state;
    state.tensors["a"] = Tensor::full<float>({3}, 1);
    state.average["a"] = Tensor::full<float>({3}, 1);
    double expected = 1;
    for (int step = 0; step < 30; ++step) {
        state.tensors["a"] = Tensor::full<float>({3}, float(step));
        update_average(compute, state, 0.6, step);
        const double d = std::min(0.6, (1.0 + step) / (10.0 + step));
        expected = d * expected + (1 - d) * step;
        CHECK(state.average["a"].data<float>()[2] == doctest::Approx(expected).epsilon(1e-5));
    }
}

TEST_CASE("evaluate: accuracy at every t and spikes, counted by hand") {
    const auto data = quadrants(60, 12);
    Compute compute(Device{}, 1);
    TrainOptions brief = few_epochs(1);
    const Graph g = train(compute, small_net("if"), {}, *data, nullptr, brief).graph;
    EvaluateOptions how;
    how.T = 6;
    how.batch = 25;
    uint64_t spikes = 0, possible = 0;
    how.observe = [&](const Observation& o) {
        if (o.graph.nodes[o.node].name != "act") return;
        for (size_t i = 0; i < o.y.elements(); ++i) spikes += o.y.data<float>()[i] != 0;
        possible += o.y.elements();
    };
    const Evaluation e = evaluate(compute, g, *data, how);
    CHECK(e.samples == 60);
    CHECK(e.accuracy_at_t.size() == 6);
    CHECK(e.accuracy == e.accuracy_at_t.back());
    CHECK(e.layers.size() == 1);
    CHECK(e.layers[0].name == "act");
    CHECK(e.layers[0].spikes == spikes);
    CHECK(e.layers[0].possible == possible);
    CHECK(possible == 60 * 6 * 384);
    CHECK(e.sparsity() == doctest::Approx(100 - 100 * double(spikes) / double(possible)));

    // At every t the network run for t steps only gives the same answers.
    for (int t = 1; t <= 6; ++t) {
        EvaluateOptions shorter;
        shorter.T = t;
        CHECK(evaluate(compute, g, *data, shorter).accuracy == e.accuracy_at_t[size_t(t - 1)]);
    }
    EvaluateOptions part;
    part.samples = 10;
    part.T = 6;
    CHECK(evaluate(compute, g, *data, part).samples == 10);
    const Evaluation ann = evaluate(compute, small_net("relu"), *data, {});
    CHECK(ann.accuracy_at_t.size() == 1);
    CHECK(ann.layers.empty());
    CHECK(std::isnan(ann.sparsity()));
}

TEST_CASE("evaluate: an ANN on recordings takes the mean over frames or their sum once") {
    const auto sets = load_data(
        {.name = "synthetic-events", .root = "", .T = 5, .framing = "", .mean = {}, .std = {}});
    REQUIRE(sets.train->steps() == 5);
    Compute compute(Device{}, 1);
    const Graph ann =
        make_model("cnn-nmnist-3x3", sets.train->sample_shape(), sets.train->classes(), {});
    Random none(0);
    const Batch batch = sets.train->batch(compute, {0, 1, 2}, {}, none);
    REQUIRE(batch.temporal);
    const Frames mean = frames_for(compute, ann, batch, "mean");
    CHECK(mean.temporal);
    const Frames sum = frames_for(compute, ann, batch, "sum");
    CHECK_FALSE(sum.temporal);
    const size_t frame = sum.x.elements();
    for (size_t i = 0; i < frame; i += 97) {
        float total = 0;
        for (size_t t = 0; t < 5; ++t) total += batch.x.data<float>()[t * frame + i];
        CHECK(sum.x.data<float>()[i] == total);
    }
    ZooOptions zoo;
    zoo.activation = "if";
    const Graph snn =
        make_model("cnn-nmnist-3x3", sets.train->sample_shape(), sets.train->classes(), zoo);
    CHECK(frames_for(compute, snn, batch, "sum").temporal);
}
