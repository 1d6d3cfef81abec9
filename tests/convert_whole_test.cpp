// Whole conversions: strategies, statistics, real images, the same spikes everywhere.
#include "convert/convert.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "convert/measure.h"
#include "engine/graph_edit.h"
#include "neurons/zoo.h"
#include "tests/check.h"
#include "tests/convert_networks.h"

namespace nc {

using namespace test;

TEST_CASE("convert: strategies, thresholds and statistics of a small network") {
    Compute compute(Device{}, 1);
    const auto training = quarters(600, 70), test = quarters(200, 71);
    Model model;
    model.graph = small_network(72, true);
    model.info.dataset = "quarters";
    // The network has to know something first: a short training of the ANN.
    TrainOptions ann;
    ann.epochs = 6;
    ann.optim.lr = 1e-2;
    model.graph = train(compute, model.graph, model.info, *training, nullptr, ann).graph;
    const Graph before = deep_copy(model.graph);

    SUBCASE("qcfs_if_ft, by auto") {
        const auto options = quick_options();
        const Converted c = convert(compute, model, *training, test.get(), options);
        CHECK(same_graph(model.graph, before));
        const Statistics& s = c.statistics;
        CHECK(s.strategy == "qcfs_if_ft");
        CHECK(s.T == 4);
        CHECK(s.levels == 4);
        REQUIRE(s.if_accuracy);
        CHECK(*s.if_accuracy > 60);  // chance is 25
        CHECK(s.accuracy_at_t.size() == 16);
        CHECK(s.accuracy_at_t[3] == *s.if_accuracy);
        CHECK(s.test_samples == 200);
        REQUIRE(s.layers.size() == 2);
        CHECK(s.layers[0].neurons == 256);
        CHECK(s.layers[0].possible == 256 * 200 * 4);
        CHECK(s.layers[0].threshold_min <= s.layers[0].threshold_mean);
        CHECK(s.layers[0].threshold_mean <= s.layers[0].threshold_max);
        CHECK(s.fold_compared == (256 + 6) * 4 * 60);
        double counted = 0;
        for (const double n : s.layers[1].activation_histogram) counted += n;
        CHECK(counted == 6 * 200);
        CHECK(c.model.info.T == 4);
        for (const Node& node : c.model.graph.nodes)
            CHECK_FALSE(std::holds_alternative<BatchNorm>(node.op));

        // The convolution sees each picture once: 22 x 22 pairs of pixel and kernel position.
        REQUIRE(s.energy);
        CHECK(s.energy->layers.at(0).macs == 200 * (22 * 22) * 4);
        CHECK(s.energy->layers.at(2).acs == s.layers[1].spikes * 4);
        CHECK(s.energy->steps == 4);

        const Json json = to_json(s);
        for (const char* key : {"strategy", "T", "ann_accuracy", "qcfs_accuracy", "if_accuracy",
                                "layers", "sparsity", "conversion_time", "seed", "energy",
                                "accuracy_at_t", "validation_accuracy", "conversion_gap"})
            CHECK_MESSAGE(json.contains(key), key);
        CHECK(json["conversion_gap"].get<double>() ==
              doctest::Approx(*s.ann_accuracy - *s.if_accuracy));

        const Converted again = convert(compute, model, *training, test.get(), options);
        CHECK(same_graph(again.model.graph, c.model.graph));
        CHECK(again.statistics.accuracy_at_t == s.accuracy_at_t);

        // What the statistics say is what the saved network does.
        MeasureOptions measure;
        measure.T = 4;
        const Measured m = measure_sparsity(compute, c.model.graph, *test, measure);
        CHECK(m.accuracy == *s.if_accuracy);
        CHECK(m.sparsity() == *s.sparsity);
        CHECK(m.layers[1].spikes == s.layers[1].spikes);
    }
    SUBCASE("without test data the accuracies are null") {
        auto options = quick_options();
        options.qcfs_epochs = options.if_epochs = 1;
        const Json json = to_json(convert(compute, model, *training, nullptr, options).statistics);
        for (const char* key : {"ann_accuracy", "qcfs_accuracy", "if_accuracy", "accuracy_at_t",
                                "sparsity", "spikes", "conversion_gap"})
            CHECK_MESSAGE(json[key].is_null(), key);
        CHECK_FALSE(json["validation_accuracy"].is_null());
    }
    SUBCASE("baselines train nothing") {
        auto options = quick_options();
        options.T = 32;
        for (const char* strategy : {"percentile", "max", "none"}) {
            options.strategy = strategy;
            const Converted c = convert(compute, model, *training, test.get(), options);
            CHECK(c.statistics.strategy == strategy);
            CHECK_FALSE(c.statistics.qcfs_accuracy);
            if (options.strategy == "none")
                for (const auto& layer : c.statistics.layers) CHECK(layer.threshold_max == 1);
            else
                CHECK(*c.statistics.if_accuracy > *c.statistics.ann_accuracy - 10);
        }
    }
    SUBCASE("qcfs_direct with the exact neuron is the QCFS network") {
        auto options = quick_options();
        options.neuron = "exact";
        const Converted c = convert(compute, model, *training, test.get(), options);
        CHECK(c.statistics.strategy == "qcfs_direct");
        CHECK(c.statistics.levels == 4);
        CHECK(*c.statistics.if_accuracy == *c.statistics.qcfs_accuracy);
        CHECK(c.statistics.accuracy_at_t.size() == 4);
        options.strategy = "qcfs_if_ft";
        CHECK(contains(error_of([&] { convert(compute, model, *training, nullptr, options); }),
                       "no gradient"));
    }
    SUBCASE("corrections, other neurons, folding after tuning") {
        auto options = quick_options();
        options.strategy = "qcfs_direct";
        options.bias_calibration = "channel";
        options.membrane_calibration = true;
        CHECK(*convert(compute, model, *training, test.get(), options).statistics.if_accuracy > 50);
        options = quick_options();
        options.neuron = "lif";
        options.fold = "after";
        options.if_epochs = 6;
        CHECK(*convert(compute, model, *training, test.get(), options).statistics.if_accuracy > 50);
        options = quick_options();
        options.neuron = "signed";
        CHECK(*convert(compute, model, *training, test.get(), options).statistics.if_accuracy > 50);
    }
    SUBCASE("stages are dumped, and what is no option is refused") {
        auto options = quick_options();
        const auto folder =
            std::filesystem::temp_directory_path() / ("nc_dump_" + std::to_string(::getpid()));
        options.dump = folder.string();
        options.qcfs_epochs = options.if_epochs = 1;
        convert(compute, model, *training, nullptr, options);
        size_t stages = 0;
        for (const auto& file : std::filesystem::directory_iterator(folder)) {
            check(load_model(file.path().string()).graph);
            ++stages;
        }
        CHECK(stages == 7);  // check calibrate qcfs fold spikes tune amplitudes
        std::filesystem::remove_all(folder);
        options = quick_options();
        options.strategy = "qcfs_direkt";
        CHECK(contains(error_of([&] { convert(compute, model, *training, nullptr, options); }),
                       "unknown strategy 'qcfs_direkt'"));
        options = quick_options();
        options.stop = [] { return true; };
        CHECK_THROWS_AS(convert(compute, model, *training, nullptr, options), Interrupted);
    }
    SUBCASE("the seconds of trainings that were cut are part of the conversion's") {
        auto options = quick_options();
        options.qcfs_epochs = options.if_epochs = 1;
        const auto folder =
            std::filesystem::temp_directory_path() / ("nc_cut_" + std::to_string(::getpid()));
        std::filesystem::create_directory(folder);
        options.checkpoint = folder.string();
        const Converted whole = convert(compute, model, *training, nullptr, options);
        CHECK(whole.statistics.conversion_time < 1000);
        for (const char* stage : {"qcfs.safetensors", "tune.safetensors"}) {
            Model saved = load_model((folder / stage).string());
            saved.state_info["seconds"] = 1000;
            save_model((folder / stage).string(), saved);
        }
        options.resume = true;
        const Converted resumed = convert(compute, model, *training, nullptr, options);
        CHECK(same_graph(whole.model.graph, resumed.model.graph));
        CHECK(resumed.statistics.conversion_time > 2000);
        CHECK(resumed.statistics.conversion_time < 3000);
        std::filesystem::remove_all(folder);
    }
    SUBCASE("a spiking network is tuned further") {
        auto options = quick_options();
        const Converted c = convert(compute, model, *training, test.get(), options);
        const Converted tuned = finetune(compute, c.model, *training, test.get(), options);
        CHECK(tuned.statistics.T == 4);
        CHECK(*tuned.statistics.if_accuracy > 60);
        CHECK_FALSE(same_graph(tuned.model.graph, c.model.graph));
        CHECK_THROWS_AS(finetune(compute, model, *training, nullptr, options), Error);
    }
}

TEST_CASE("convert: a residual network, folded before and after tuning") {
    Compute compute(Device{}, 1);
    const auto training = quarters(400, 80), test = quarters(100, 81);
    Model model;
    model.graph = residual_network(82);
    TrainOptions ann;
    ann.epochs = 4;
    ann.optim.lr = 1e-2;
    model.graph = train(compute, model.graph, model.info, *training, nullptr, ann).graph;
    for (const char* fold : {"before", "after"}) {
        auto options = quick_options();
        options.fold = fold;
        options.strategy = "qcfs_if_ft";
        const Converted c = convert(compute, model, *training, test.get(), options);
        CHECK(*c.statistics.if_accuracy > 50);
        CHECK(std::holds_alternative<Scale>(node_of(c.model.graph, "act1_amplitude").op));
    }
    // auto: three weight layers are not deep; T is 32 for residual graphs.
    auto options = quick_options();
    options.T = 0;
    options.qcfs_epochs = options.if_epochs = 0;
    const Converted c = convert(compute, model, *training, nullptr, options);
    CHECK(c.statistics.strategy == "qcfs_if_ft");
    CHECK(c.statistics.T == 32);
}

TEST_CASE("convert: auto takes qcfs_direct for residual graphs with eight weight layers") {
    Compute compute(Device{}, 1);
    std::vector<uint8_t> images(40 * 16 * 16 * 3);
    Random random(90);
    for (auto& byte : images) byte = uint8_t(random.bits());
    const auto data = image_dataset(images, std::vector<int32_t>(40, 1), Shape{16, 16, 3}, 10,
                                    {0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f});
    Model model;
    model.graph = make_model("resnet20", Shape{16, 16, 3}, 10, {});
    auto options = quick_options();
    options.qcfs_epochs = 0;
    options.T = 2;
    const Converted c = convert(compute, model, *data, nullptr, options);
    CHECK(c.statistics.strategy == "qcfs_direct");
    CHECK(c.statistics.layers.size() == 19);
}

TEST_CASE("convert: training rates follow recipe and depth") {
    const Graph shallow = small_network(1, true);
    const Graph deep = make_model("resnet20", Shape{32, 32, 3}, 10, {});
    ConvertOptions o;
    CHECK(qcfs_training(shallow, o).optim.lr == 1e-3);
    CHECK(qcfs_training(shallow, o).optim.threshold_lr == 5e-2);
    CHECK(qcfs_training(shallow, o).optim.weight_decay == 1e-5);
    CHECK(qcfs_training(shallow, o).epochs == 5);
    CHECK(
        qcfs_training(small_network(1, true, Qcfs{Tensor::full<float>({1}, 1.0f), 8}), o).epochs ==
        0);
    CHECK(tuning(shallow, o, 8).optim.lr == 3e-3);
    CHECK(tuning(deep, o, 8).optim.lr == 1e-4);
    CHECK(tuning(deep, o, 8).optim.clip_norm == 1);
    CHECK(tuning(deep, o, 8).T == 8);
    o.recipe = "cifar";
    CHECK(qcfs_training(deep, o).optim.kind == OptimOptions::Kind::sgd);
    CHECK(qcfs_training(deep, o).optim.momentum == 0.9);
}

TEST_CASE("convert: temporal data brings its own T") {
    class Frames : public Dataset {
     public:
        size_t size() const override { return 4; }
        Shape sample_shape() const override { return {8, 8, 1}; }
        int classes() const override { return 4; }
        int steps() const override { return 10; }
        int32_t label(size_t) const override { return 0; }
        Batch batch(Compute& compute, const std::vector<uint32_t>& indices, const AugmentOptions&,
                    Random&) const override {
            return {compute.zeros({10, indices.size(), 8, 8, 1}),
                    std::vector<int32_t>(indices.size(), 0), true};
        }
    };
    const Graph g = small_network(1, false);
    CHECK(deployment_steps(g, 0, 0, Frames()) == 10);
    CHECK(deployment_steps(g, 10, 0, Frames()) == 10);
    const std::string what = error_of([&] { deployment_steps(g, 8, 0, Frames()); });
    CHECK(contains(what, "T = 10"));
    CHECK(contains(what, "T = 8"));
    const auto still = quarters(4, 1);
    CHECK(deployment_steps(g, 0, 0, *still) == 16);
    CHECK(deployment_steps(residual_network(1), 0, 0, *still) == 32);
    CHECK(deployment_steps(g, 0, 12, *still) == 12);
}

namespace {

// Real images, or null where there are none.
std::unique_ptr<DataSets> real_images(std::string& name) {
    for (const char* candidate : {"fashion-mnist", "mnist"}) {
        DataRequest request;
        request.name = name = candidate;
        try {
            return std::make_unique<DataSets>(load_data(request));
        } catch (const Error&) {
        }
    }
    return nullptr;
}

std::unique_ptr<Dataset> leading(const Dataset& data, size_t count) {
    std::vector<uint32_t> indices(std::min(count, data.size()));
    for (size_t i = 0; i < indices.size(); ++i) indices[i] = uint32_t(i);
    return subset(data, indices);
}

}  // namespace

TEST_CASE("convert: LeNet on real images, the same spikes on every instruction set and path") {
    std::string name;
    const auto data = real_images(name);
    if (!data) return test::skip("neither fashion-mnist nor mnist is here");
    const bool full = std::getenv("NC_FULL") != nullptr;
    Compute compute(Device{}, 1);
    // A sanitizer makes this case ten times slower and looks at the same code on fewer images.
    const size_t share = test::sanitized ? 5 : 1;
    const auto training = leading(*data->train, 3000 / share);
    const auto held = leading(*data->test, 500 / share);
    Model model;
    model.graph = make_model("lenet", Shape{28, 28, 1}, 10, {});
    TrainOptions ann;
    ann.epochs = 2;
    ann.optim.lr = 3e-3;
    model.graph = train(compute, model.graph, model.info, *training, nullptr, ann).graph;
    ConvertOptions options;
    options.T = 8;
    options.qcfs_epochs = options.if_epochs = 1;
    const Converted c = convert(compute, model, *training, held.get(), options);
    const double floor = test::sanitized ? 50 : 70;  // chance is 10
    CHECK(*c.statistics.ann_accuracy > floor);
    CHECK(*c.statistics.if_accuracy > floor);
    CHECK(*c.statistics.sparsity > 50);

    const auto images = leading(*data->test, full ? 1000 : 40 / share);
    MeasureOptions measure;
    measure.T = 8;
    measure.hash = true;
    measure.path = ops::SpikePath::dense;
    const Measured first = measure_sparsity(compute, c.model.graph, *images, measure);
    CHECK(first.spikes() > 0);
    const auto compare = [&](Compute& other, ops::SpikePath path) {
        measure.path = path;
        const Measured m = measure_sparsity(other, c.model.graph, *images, measure);
        REQUIRE(m.layers.size() == first.layers.size());
        for (size_t i = 0; i < m.layers.size(); ++i) {
            CHECK_MESSAGE(m.layers[i].hash == first.layers[i].hash,
                          other.table->name << " " << m.layers[i].name);
            CHECK(m.layers[i].spikes == first.layers[i].spikes);
        }
        CHECK(m.accuracy_at_t == first.accuracy_at_t);
    };
    auto tables = test::tables_to_test();
    tables.push_back(&kernels::reference());
    for (const auto* table : tables) {
        if (table->cuda) continue;  // emulated: device_test compares spikes on small networks
        Compute other(*table);
        for (const auto path :
             {ops::SpikePath::dense, ops::SpikePath::event, ops::SpikePath::automatic})
            compare(other, path);
    }
    Compute single(*compute.table, 1);
    compare(single, ops::SpikePath::automatic);
    // A single spike more is another hash.
    Graph other = c.model.graph;
    Linear last_hidden = std::get<Linear>(node_of(other, "fc1").op);
    last_hidden.bias = last_hidden.bias.clone();
    for (size_t i = 0; i < last_hidden.bias.elements(); ++i)
        last_hidden.bias.data<float>()[i] += 0.01f;
    other = replace(other, find_node(other, "fc1"), last_hidden);
    measure.path = ops::SpikePath::automatic;
    CHECK(measure_sparsity(compute, other, *images, measure).hash() != first.hash());
}

}  // namespace nc
