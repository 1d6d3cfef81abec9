// Model files: every operation comes back bitwise, in others' order on disk; what is malformed is
// refused by name.
#include <cmath>
#include <fstream>

#include "io/bytes.h"
#include "io/model.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

using Bytes = std::vector<uint8_t>;

Tensor values(const Shape& shape, uint64_t seed) {
    return Tensor::from(normal_values(shape.elements(), seed), shape);
}

Tensor positive(const Shape& shape, uint64_t seed) {
    auto x = normal_values(shape.elements(), seed);
    for (auto& v : x) v = std::abs(v) + 0.1f;
    return Tensor::from(x, shape);
}

// Every operation, every field off its default, a residual, a recurrent edge, and layers per neuron
// before and after a Flatten.
Graph everything() {
    Graph g;
    const size_t input = add_node(g, "input", Input{{6, 4, 2}}, {});
    Conv conv1{values({3, 2, 1, 4}, 1), values({4}, 2), {}};
    conv1.options = {1, 2, 1, 0, 1, 1, 2};
    const size_t c1 = add_node(g, "conv1", conv1, {input});  // [6, 2, 4]
    const size_t b1 = add_node(g, "bn1",
                               BatchNorm{values({4}, 3), values({4}, 4), values({4}, 5),
                                         positive({4}, 6), 0.1 + 0.2, 1e-310},
                               {c1});
    Neuron neuron;
    neuron.theta = positive({6 * 2 * 4}, 7);
    neuron.v0 = values({6 * 2 * 4}, 8);
    neuron.v0_fraction = 1.0 / 3;
    neuron.amplitude = Neuron::Amplitude::one;
    neuron.train_theta = true;
    neuron.rule.beta = 0.9;
    neuron.rule.compare = kernels::Compare::greater;
    neuron.rule.reset = kernels::Reset::to_value;
    neuron.rule.reset_value = -0.25;
    neuron.rule.spiking = kernels::Spiking::negative;
    neuron.rule.surrogate = kernels::Surrogate::rectangle;
    neuron.rule.surrogate_width = 0.7;
    neuron.rule.scale_width = true;
    neuron.rule.detach_reset = true;
    const size_t n1 = add_node(g, "neuron1", neuron, {b1});
    const size_t relu =
        add_node(g, "leaky", Activation{kernels::Activation::leaky_relu, 0.01}, {n1});
    const size_t prelu = add_node(g, "prelu", PRelu{values({4}, 9)}, {relu});
    const size_t qcfs = add_node(g, "qcfs", Qcfs{positive({4}, 10), 4}, {prelu});
    MaxPool max;
    max.options = {3, 3, 1, 1, 1, 1};
    const size_t mp = add_node(g, "max", max, {qcfs});
    AveragePool average;
    average.options = {2, 1, 2, 1, 0, 0};
    const size_t ap = add_node(g, "average", average, {mp});  // [3, 2, 4]
    const size_t flat = add_node(g, "flat", Flatten{}, {ap});
    const size_t b2 = add_node(
        g, "bn2", BatchNorm{{}, {}, values({24}, 11), positive({24}, 12), 1e-5, 0.1}, {flat});
    Neuron per_neuron;
    per_neuron.theta = positive({24}, 13);
    const size_t n2 = add_node(g, "neuron2", per_neuron, {b2});
    // As many outputs as inputs: its bias and the threshold after it are no map.
    const size_t l1 = add_node(g, "fc1", Linear{values({24, 24}, 14), values({24}, 15)}, {n2});
    Neuron after;
    after.theta = positive({24}, 16);
    const size_t n3 = add_node(g, "neuron3", after, {l1});
    g.edges.push_back({n3, n3, 1});
    const size_t l2 = add_node(g, "fc2", Linear{values({24, 4}, 17), {}}, {n3});
    const size_t gap = add_node(g, "gap", GlobalAveragePool{}, {ap});
    const size_t sum = add_node(g, "sum", Add{}, {l2, gap});
    const size_t scale = add_node(g, "scale.out", Scale{values({4}, 18)}, {sum});
    add_node(g, "output", Output{}, {scale});
    return g;
}

Graph small() {
    Graph g;
    const size_t input = add_node(g, "input", Input{{2}}, {});
    const size_t fc = add_node(g, "fc", Linear{values({2, 3}, 1), values({3}, 2)}, {input});
    add_node(g, "output", Output{}, {fc});
    return g;
}

bool same_tensor(const Tensor& a, const Tensor& b) {
    if (a.defined() != b.defined()) return false;
    return !a.defined() || (a.shape() == b.shape() && a.dtype() == b.dtype() &&
                            std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
}

void check_same(const Graph& a, const Graph& b) {
    CHECK(graph_to_json(a).dump() == graph_to_json(b).dump());
    REQUIRE(a.nodes.size() == b.nodes.size());
    for (size_t i = 0; i < a.nodes.size(); ++i) {
        CAPTURE(a.nodes[i].name);
        std::vector<Tensor> left, right;
        for_each_tensor(a.nodes[i],
                        [&](const char*, const Tensor& t, TensorRole) { left.push_back(t); });
        for_each_tensor(b.nodes[i],
                        [&](const char*, const Tensor& t, TensorRole) { right.push_back(t); });
        REQUIRE(left.size() == right.size());
        for (size_t k = 0; k < left.size(); ++k) CHECK(same_tensor(left[k], right[k]));
    }
}

void write_plain(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
}

std::string with_header(const std::string& header, const std::string& data = "") {
    std::string out;
    for (int i = 0; i < 8; ++i) out += char(uint64_t(header.size()) >> (8 * i) & 0xff);
    return out + header + data;
}

}  // namespace

TEST_CASE("a model comes back bitwise: graph, information and training state") {
    const TempFolder folder;
    const std::string path = folder / "a.safetensors";
    Model model;
    model.graph = everything();
    check(model.graph);
    model.info.dataset = "mnist";
    model.info.T = 8;
    model.info.mean = {0.1307f, 0.1f};
    model.info.std = {0.3081f, 0.3f};
    model.info.framing = "tonic:bins=8";
    model.info.ann_frames = "mean";
    model.info.classes = 10;
    model.info.provenance["command"] = "nc_train \"x\"";
    model.info.provenance["nested"] = {{"loss", 0.1}, {"none", nullptr}};
    model.state["conv1.weight.momentum"] = values({3, 2, 1, 4}, 30);
    model.state["counter"] = Tensor::from(std::vector<int64_t>{INT64_MIN}, {1});
    model.state["double"] = Tensor::from(hard_values<double>(7, 31), {7});
    model.state["empty"] = Tensor::from(std::vector<uint8_t>{}, {0, 3});
    model.state_info["step"] = 123;
    save_model(path, model);

    const Model back = load_model(path);
    check_same(model.graph, back.graph);
    CHECK(back.graph.edges == model.graph.edges);
    CHECK(back.info.dataset == "mnist");
    CHECK(back.info.T == 8);
    CHECK(back.info.mean == model.info.mean);
    CHECK(back.info.std == model.info.std);
    CHECK(back.info.framing == "tonic:bins=8");
    CHECK(back.info.ann_frames == "mean");
    CHECK(back.info.classes == 10);
    CHECK(back.info.provenance == model.info.provenance);
    CHECK(back.state_info == model.state_info);
    REQUIRE(back.state.size() == model.state.size());
    for (const auto& item : model.state) {
        CAPTURE(item.first);
        REQUIRE(back.state.count(item.first) == 1);
        CHECK(same_tensor(back.state.at(item.first), item.second));
    }
    // Saved again, the file is the same.
    save_model(folder / "b.safetensors", back);
    CHECK(read_file(path) == read_file(folder / "b.safetensors"));
}

TEST_CASE("a model file from before batch norms had PyTorch's names is read") {
    const TempFolder folder;
    Model model;
    model.graph = everything();
    save_model(folder / "new", model);
    SafeTensors file = load_safetensors(folder / "new");
    size_t renamed = 0;
    for (const std::string node : {"bn1", "bn2"})
        for (const auto& [now, then] :
             std::map<std::string, std::string>{{"weight", "gamma"},
                                                {"bias", "beta"},
                                                {"running_mean", "mean"},
                                                {"running_var", "variance"}}) {
            auto at = file.tensors.extract(node + "." + now);
            if (at.empty()) continue;
            at.key() = node + "." + then;
            file.tensors.insert(std::move(at));
            ++renamed;
        }
    CHECK(renamed == 6);
    save_safetensors(folder / "old", file);
    check_same(load_model(folder / "old").graph, model.graph);
}

TEST_CASE("tensors stand in others' order: OIHW, [out, in], and C, H, W after a Flatten") {
    const Graph g = everything();
    const auto tensors = graph_tensors(g);
    const Tensor& conv = tensors.at("conv1.weight");
    CHECK(conv.shape() == Shape{4, 1, 3, 2});
    const auto ours = std::get<Conv>(g.nodes[find_node(g, "conv1")].op).weight.to_vector<float>();
    const auto theirs = conv.to_vector<float>();
    for (size_t o = 0; o < 4; ++o)
        for (size_t y = 0; y < 3; ++y)
            for (size_t x = 0; x < 2; ++x)
                CHECK(theirs[(o * 3 + y) * 2 + x] == ours[(y * 2 + x) * 4 + o]);

    // The map before the Flatten is [H, W, C] = [3, 2, 4].
    const auto fc = std::get<Linear>(g.nodes[find_node(g, "fc1")].op).weight.to_vector<float>();
    const auto fc_file = tensors.at("fc1.weight").to_vector<float>();
    const auto mean = std::get<BatchNorm>(g.nodes[find_node(g, "bn2")].op).mean.to_vector<float>();
    const auto mean_file = tensors.at("bn2.running_mean").to_vector<float>();
    for (size_t c = 0; c < 4; ++c)
        for (size_t y = 0; y < 3; ++y)
            for (size_t x = 0; x < 2; ++x) {
                const size_t file = (c * 3 + y) * 2 + x, here = (y * 2 + x) * 4 + c;
                CHECK(mean_file[file] == mean[here]);
                for (size_t o = 0; o < 24; ++o) CHECK(fc_file[o * 24 + file] == fc[here * 24 + o]);
            }
    // After a Linear nothing is permuted but the axes.
    CHECK(same_tensor(tensors.at("fc1.bias"),
                      std::get<Linear>(g.nodes[find_node(g, "fc1")].op).bias));
    CHECK(same_tensor(tensors.at("neuron3.theta"),
                      std::get<Neuron>(g.nodes[find_node(g, "neuron3")].op).theta));
    CHECK(tensors.at("fc2.weight").shape() == Shape{4, 24});
}

TEST_CASE("a graph without tensors has neutral or given values and says what is wrong") {
    const std::string good = R"({"nodes": [
        {"name": "in", "op": "input", "shape": [8, 8, 1]},
        {"name": "conv", "op": "conv", "weight": {"shape": [4, 1, 3, 3]}, "padding": 1},
        {"name": "bn", "op": "batch_norm", "mean": {"shape": [4]}, "variance": {"shape": [4]}},
        {"name": "spikes", "op": "neuron", "theta": {"shape": [4], "value": 0.75}, "beta": 0.5},
        {"name": "pool", "op": "average_pool", "kernel_size": [2, 2]},
        {"name": "flat", "op": "flatten"},
        {"name": "fc", "op": "linear", "weight": {"shape": [10, 64]}, "bias": {"shape": [10]}},
        {"name": "out", "op": "output"}],
      "edges": [{"from": "in", "to": "conv"}, {"from": "conv", "to": "bn"},
        {"from": "bn", "to": "spikes"}, {"from": "spikes", "to": "pool"},
        {"from": "pool", "to": "flat"}, {"from": "flat", "to": "fc"}, {"from": "fc", "to": "out"}]})";
    const auto read = [](const std::string& text) {
        return graph_from_json(parse_json(text, "g.json"), {}, "g.json");
    };
    const Graph g = read(good);
    const auto& conv = std::get<Conv>(g.nodes[1].op);
    CHECK(conv.weight.shape() == Shape{3, 3, 1, 4});
    CHECK(conv.options.pad_h == 1);
    CHECK(conv.options.pad_w == 1);
    CHECK(!conv.bias.defined());
    CHECK(std::get<BatchNorm>(g.nodes[2].op).variance.to_vector<float>() ==
          std::vector<float>(4, 1));
    CHECK(std::get<Neuron>(g.nodes[3].op).theta.to_vector<float>() == std::vector<float>(4, 0.75f));
    CHECK(std::get<Neuron>(g.nodes[3].op).rule.beta == 0.5);
    CHECK(std::get<Linear>(g.nodes[6].op).weight.shape() == Shape{64, 10});

    const auto error = [&](const std::string& from, const std::string& to) {
        std::string text = good;
        const size_t at = text.find(from);
        REQUIRE(at != std::string::npos);
        text.replace(at, from.size(), to);
        try {
            read(text);
        } catch (const Error& e) {
            CHECK(e.kind == ErrorKind::model);
            return std::string(e.what()) + "; " + e.hint;
        }
        return std::string();
    };
    CHECK(error("\"average_pool\"", "\"averagepool\"") ==
          "[g.json] node 'pool': unknown operation 'averagepool'; did you mean 'average_pool'?");
    CHECK(error("\"padding\": 1", "\"paddings\": 1") ==
          "[g.json] node 'conv' (conv): unknown field 'paddings'; did you mean 'padding'?");
    CHECK(contains(error("\"padding\": 1", "\"padding\": -1"), "padding is -1, not a size"));
    CHECK(contains(error("\"padding\": 1", "\"padding\": [1, 2, 3]"), "not a size"));
    CHECK(contains(error("\"padding\": 1", "\"groups\": 0"), "'conv'"));
    CHECK(contains(error("\"padding\": 1", "\"stride\": 0"), "'conv'"));
    CHECK(contains(error("\"beta\": 0.5", "\"beta\": \"x\""), "beta is \"x\", not a number"));
    CHECK(contains(error("\"beta\": 0.5", "\"reset\": \"substract\""),
                   "reset 'substract' is unknown; did you mean 'subtract'?"));
    CHECK(contains(error("\"beta\": 0.5", "\"train_theta\": 1"), "not true or false"));
    CHECK(contains(error("\"value\": 0.75", "\"value\": -1"), "'spikes'"));
    CHECK(contains(error("\"value\": 0.75", "\"values\": 1"), "did you mean 'value'"));
    CHECK(
        contains(error("\"theta\": {\"shape\": [4], \"value\": 0.75}, ", ""), "theta is missing"));
    CHECK(contains(error("[10, 64]", "[10, 65]"), "'fc'"));
    CHECK(contains(error("[10, 64]", "[10]"), "rank 2"));
    CHECK(contains(error("[10, 64]", "[4000000000, 4000000000]"), "weight"));
    CHECK(contains(error("[10, 64]", "[2000000000, 2000000000, 2000000000]"), "weight"));
    CHECK(contains(error("\"to\": \"conv\"", "\"to\": \"convv\""), "did you mean 'conv'"));
    CHECK(contains(error("\"to\": \"conv\"", "\"to\": \"conv\", \"delay\": -1"), "delay"));
    CHECK(contains(error("\"name\": \"bn\"", "\"name\": \"conv\""), "two nodes are named 'conv'"));
    CHECK(contains(error("\"op\": \"output\"", "\"op\": 3"), "op is not a string"));
    CHECK(contains(error("\"shape\": [8, 8, 1]", "\"shapes\": [8]"), "shape is missing"));
    CHECK(contains(error("\"edges\"", "\"edge\""), "unknown field 'edge'; did you mean 'edges'"));
    for (const char* text : {"[]", "3", "{}", R"({"nodes": [], "edges": []})",
                             R"({"nodes": [3], "edges": []})", R"({"nodes": {}, "edges": []})"}) {
        CAPTURE(text);
        CHECK(contains(error_of([&] { read(text); }), "[g.json]"));
    }
}

TEST_CASE("a model file survives truncation at every byte") {
    const TempFolder folder;
    const std::string path = folder / "a.safetensors";
    Model model;
    model.graph = small();
    save_model(path, model);
    const Bytes whole = read_file(path);
    CHECK(whole.size() % 4 == 0);
    const std::string text(whole.begin(), whole.end());
    for (size_t n = 0; n < text.size(); ++n) {
        CAPTURE(n);
        const Bytes cut(whole.begin(), whole.begin() + ptrdiff_t(n));
        CHECK(contains(error_of([&] { parse_model(cut, "cut.model"); }), "cut.model"));
    }
    write_plain(path, text + "x");
    CHECK(contains(error_of([&] { load_model(path); }), "1 bytes after the last tensor"));
    write_plain(path, text);
    check_same(load_model(path).graph, model.graph);
}

TEST_CASE("a model whose tensors do not fit its graph is refused by name") {
    const TempFolder folder;
    const std::string path = folder / "a.safetensors";
    Model model;
    model.graph = small();
    save_model(path, model);
    const SafeTensors good = load_safetensors(path);
    const auto error = [&](const SafeTensors& file) {
        save_safetensors(path, file);
        try {
            load_model(path);
        } catch (const Error& e) {
            CHECK(e.kind == ErrorKind::model);
            return std::string(e.what());
        }
        return std::string();
    };
    CHECK(error(good) == "");

    SafeTensors file = good;
    auto weights = file.tensors["fc.weight"].to_vector<float>();
    weights[4] = std::nanf("");
    file.tensors["fc.weight"] = Tensor::from(weights, {3, 2});
    CHECK(contains(error(file), "tensor 'fc.weight' holds nan at element 4"));
    weights[4] = -INFINITY;
    file.tensors["fc.weight"] = Tensor::from(weights, {3, 2});
    CHECK(contains(error(file), "holds -inf"));

    file = good;
    file.tensors["fc.weight"] = file.tensors["fc.weight"].reshape({2, 3});
    CHECK(contains(error(file), "'fc.weight' is [2, 3], the graph says [3, 2]"));
    file = good;
    file.tensors["fc.weight"] = Tensor::from(std::vector<double>(6), {3, 2});
    CHECK(contains(error(file), "'fc.weight' is f64"));
    file = good;
    file.tensors.erase("fc.bias");
    CHECK(contains(error(file), "tensor 'fc.bias' is not in the file"));
    file.tensors.erase("fc.weight");
    CHECK(contains(error(file), "tensor 'fc.weight' is not in the file"));
    file = good;
    file.tensors["extra"] = Tensor::from(std::vector<float>{1}, {1});
    CHECK(contains(error(file), "tensor 'extra' belongs to no node"));
    for (const char* key : {"graph", "info", "state"}) {
        file = good;
        file.metadata.erase(key);
        CHECK(contains(error(file), std::string("no ") + key));
        file.metadata[key] = "{";
        CHECK(contains(error(file), "not valid JSON"));
        if (std::string(key) != "state") {
            file.metadata[key] = "[]";
            CHECK(contains(error(file), "not an object"));
        }
    }
    file = good;
    file.metadata["info"] = R"({"clases": 10})";
    CHECK(contains(error(file), "unknown field 'clases'"));
    file.metadata["info"] = R"({"T": -3})";
    CHECK(contains(error(file), "T is -3"));
    file.metadata["info"] = R"({"mean": [0.1], "std": [0]})";
    CHECK(contains(error(file), "not positive"));
    file.metadata["info"] = R"({"mean": [0.1], "std": []})";
    CHECK(contains(error(file), "1 means"));

    model.graph.nodes[1].name = "state";
    CHECK(contains(error_of([&] { save_model(path, model); }), "may not be named 'state'"));
    CHECK(contains(error_of([&] { load_model(folder / "none"); }), "No such file"));
    CHECK(contains(error_of([&] {
                       model.graph = small();
                       save_model("/dev/full", model);
                   }),
                   "No space left"));
}

TEST_CASE("safetensors: hostile headers are refused") {
    const std::string path = "a.safetensors";
    const auto error = [&](const std::string& bytes) {
        const std::string what =
            error_of([&] { parse_safetensors(Bytes(bytes.begin(), bytes.end()), path); });
        CHECK((what.empty() || contains(what, path)));
        return what;
    };
    const auto one = [&](const std::string& dtype, const std::string& shape,
                         const std::string& offsets, const std::string& data) {
        return error(with_header("{\"a\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
                                     ",\"data_offsets\":" + offsets + "}}",
                                 data));
    };
    CHECK(one("U8", "[4]", "[0,4]", "abcd") == "");
    CHECK(one("F32", "[]", "[0,4]", "abcd") == "");
    CHECK(one("F32", "[0, 7]", "[0,0]", "") == "");
    CHECK(error(with_header("{}")) == "");
    CHECK(error(with_header("{\"__metadata__\":{\"a\":\"b\"}}  ")) == "");

    CHECK(contains(one("U8", "[4]", "[0,5]", "abcde"), "5 bytes for U8 [4]"));
    CHECK(contains(one("F32", "[1]", "[0,5]", "abcde"), "5 bytes for F32 [1]"));
    CHECK(contains(one("U8", "[4]", "[1,5]", "abcde"), "starts at byte 1"));
    CHECK(contains(one("U8", "[4]", "[0,4]", "abc"), "truncated"));
    CHECK(contains(one("U8", "[4]", "[4,0]", "abcd"), "malformed data_offsets"));
    CHECK(contains(one("U8", "[4]", "[-4,0]", "abcd"), "holds -4"));
    CHECK(contains(one("U8", "[4]", "[0,18446744073709551615]", "abcd"), "bytes for U8"));
    CHECK(contains(one("U8", "[4]", "[0.0,4.0]", "abcd"), "holds 0.0"));
    CHECK(contains(one("U8", "[4]", "[0]", "abcd"), "malformed data_offsets"));
    CHECK(contains(one("U16", "[2]", "[0,4]", "abcd"), "dtype U16 is not supported"));
    // 2^61 floats of 4 bytes are 2^63: the product must not wrap.
    CHECK(contains(one("F64", "[4611686018427387904]", "[0,0]", ""), "[" + path + "]"));
    CHECK(contains(one("F64", "[2305843009213693952]", "[0,0]", ""), "0 bytes for F64"));
    CHECK(contains(one("U8", "[1,1,1,1,1,1,1]", "[0,1]", "a"), "tensor 'a'"));
    const std::string a = R"("a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]})";
    const std::string b = R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]})";
    CHECK(contains(error(with_header("{" + a + "," + b + "}", "abc")), "overlap"));
    CHECK(contains(error(with_header("{" + a + "," + a + "}", "ab")), "stands twice"));
    CHECK(contains(error(with_header("{" + a + "}", "abc")), "1 bytes after"));
    CHECK(contains(error(with_header("{\"a\":3}", "")), "not {dtype, shape, data_offsets}"));
    CHECK(contains(error(with_header("{\"__metadata__\":{\"a\":1}}")), "not a string"));
    CHECK(contains(error(with_header("{\"__metadata__\":[]}")), "not an object"));
    CHECK(contains(error(with_header("[]")), "not a safetensors file"));
    CHECK(contains(error(with_header("")), "not a safetensors file"));
    CHECK(contains(error(std::string(8, '\xff')), "not a safetensors file"));
    CHECK(contains(error("PK\3\4 something else"), "not a safetensors file"));
    CHECK(contains(error(with_header("{\"a\":" + std::string(100000, '['))), "deeper"));
    CHECK(contains(error(with_header(std::string(1000, '{'))), "not valid JSON"));
}

TEST_CASE("safetensors: half and brain floats of others are read as floats") {
    const auto read = [&](const std::string& dtype, const std::vector<uint16_t>& halves) {
        std::string data;
        for (const uint16_t h : halves) {
            data += char(h & 0xff);
            data += char(h >> 8);
        }
        const std::string file = with_header(
            "{\"a\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + std::to_string(halves.size()) +
                "],\"data_offsets\":[0," + std::to_string(data.size()) + "]}}",
            data);
        return parse_safetensors(Bytes(file.begin(), file.end()), "x")
            .tensors.at("a")
            .to_vector<float>();
    };
    const auto half = read("F16", {0x3c00, 0xc000, 0x0001, 0x83ff, 0x7bff, 0x7c00, 0x7e00, 0x8000});
    CHECK(half[0] == 1);
    CHECK(half[1] == -2);
    CHECK(half[2] == 0x1p-24f);
    CHECK(half[3] == -1023 * 0x1p-24f);
    CHECK(half[4] == 65504);
    CHECK(half[5] == INFINITY);
    CHECK(std::isnan(half[6]));
    CHECK((half[7] == 0 && std::signbit(half[7])));
    CHECK(read("BF16", {0x3f80, 0xc040, 0x7f80}) == std::vector<float>{1, -3, INFINITY});
}
