// Weights of others: PyTorch's files read without running anything, laid over a network by name.
#include "io/weights.h"

#include "io/model.h"
#include "neurons/zoo.h"
#include "tests/check.h"
#include "tests/torch_pickle.h"

using namespace nc;
using namespace nc::test;

namespace {

StateDict read(const Bytes& file) {
    return load_pt(Source(file.data(), file.size(), "w.pt"));
}

// What is wrong and the hint, and that it counts as a bad model.
template <class F>
std::string refusal(F f) {
    try {
        f();
    } catch (const Error& e) {
        CHECK(e.kind == ErrorKind::model);
        return std::string(e.what()) + "; " + e.hint;
    }
    return "";
}

std::string refused_pickle(const std::string& pickle,
                           const std::vector<TorchStorage>& storages = {}) {
    const Bytes file = torch_file(pickle, storages);
    const std::string what = refusal([&] { read(file); });
    CHECK((what.empty() || contains(what, "[w.pt")));
    return what;
}

std::vector<float> counting(size_t n) {
    std::vector<float> out(n);
    for (size_t i = 0; i < n; ++i) out[i] = float(i);
    return out;
}

const TorchTensor six = {.stored = 6, .sizes = {2, 3}, .strides = {3, 1}};
const std::vector<TorchStorage> six_floats = {{"0", float_bytes(counting(6))}};

std::string one(const TorchTensor& t) {
    return p_dict({{"a", p_tensor(t)}});
}

// The weights of a graph as a file of others would name them.
StateDict weights_of(const Graph& graph) {
    StateDict out;
    for (const auto& [name, tensor] : graph_tensors(graph)) out.tensors.emplace_back(name, tensor);
    return out;
}

// The first part of matching names replaced; the file keeps its order.
StateDict renamed(StateDict file, const std::string& from, const std::string& to) {
    for (auto& [name, tensor] : file.tensors)
        if (name.rfind(from, 0) == 0) name = to + name.substr(from.size());
    return file;
}

void check_same(const Graph& a, const Graph& b) {
    const auto x = graph_tensors(a), y = graph_tensors(b);
    REQUIRE(x.size() == y.size());
    for (const auto& item : x) {
        CAPTURE(item.first);
        REQUIRE(y.count(item.first) == 1);
        const Tensor &tensor = item.second, &other = y.at(item.first);
        CHECK(tensor.shape() == other.shape());
        CHECK(tensor.to_vector<float>() == other.to_vector<float>());
    }
}

Graph network(const std::string& name, uint64_t seed, const std::string& activation = "relu") {
    ZooOptions options;
    options.seed = seed;
    options.activation = activation;
    return make_model(name, name == "mlp" ? Shape{12} : Shape{16, 16, 3}, 10, options);
}

}  // namespace

TEST_CASE("PyTorch: tensors of a state_dict, strided, shared, nested in a checkpoint") {
    const auto only = [](const Bytes& file) {
        const StateDict dict = read(file);
        REQUIRE(dict.tensors.size() == 1);
        CHECK(dict.tensors[0].first == "a");
        return dict.tensors[0].second;
    };
    Tensor t = only(torch_file(one(six), six_floats));
    CHECK(t.shape() == Shape{2, 3});
    CHECK(t.to_vector<float>() == counting(6));

    TorchTensor transposed = six;
    transposed.sizes = {3, 2};
    transposed.strides = {1, 3};
    t = only(torch_file(one(transposed), six_floats));
    CHECK(t.to_vector<float>() == std::vector<float>{0, 3, 1, 4, 2, 5});
    const TorchTensor part = {.stored = 6, .offset = 1, .sizes = {2}, .strides = {4}};
    CHECK(only(torch_file(one(part), six_floats)).to_vector<float>() == std::vector<float>{1, 5});
    const TorchTensor scalar = {.stored = 6, .offset = 5, .sizes = {}, .strides = {}};
    CHECK(only(torch_file(one(scalar), six_floats)).item() == 5);
    const TorchTensor empty = {.stored = 0, .sizes = {0, 3}, .strides = {3, 1}};
    CHECK(only(torch_file(one(empty), {})).shape() == Shape{0, 3});
    const TorchTensor repeated = {.stored = 6, .offset = 2, .sizes = {4, 1}, .strides = {0, 9}};
    CHECK(only(torch_file(one(repeated), six_floats)).to_vector<float>() ==
          std::vector<float>(4, 2));

    // A parameter, a tensor under two names, a module's state that is no tensor, dicts with
    // attributes, the classes of protocol 4.
    const std::string memoized = p_tensor(six) + "q\x01";
    const std::string ordered =
        "\x8c\x0b"
        "collections\x8c\x0bOrderedDict\x93)R";
    const std::string parameter =
        p_global("torch._utils", "_rebuild_parameter") + "h\x01\x88" + ordered + "\x87R";
    const std::string dict = ordered + "(" + p_text("x") + memoized + p_text("y") + parameter +
                             p_text("z") + "h\x01" + p_text("extra") + "Nu" +
                             p_dict({{"_metadata", "}"}}) + "b";
    const StateDict several = read(torch_file(dict, six_floats));
    REQUIRE(several.tensors.size() == 3);
    CHECK(several.tensors[1].first == "y");
    CHECK(several.tensors[1].second.to_vector<float>() == counting(6));
    CHECK(several.tensors[0].second.raw() == several.tensors[2].second.raw());
    CHECK(several.note.empty());

    const std::string optimizer = p_dict({{"state", "}"}, {"param_groups", "]" + p_int(1) + "a"}});
    const auto checkpoint = read(torch_file(p_dict({{"epoch", p_int(7)},
                                                    {"best", p_tensor(scalar)},
                                                    {"optimizer", optimizer},
                                                    {"ema", one(six)},
                                                    {"model", one(transposed)}}),
                                            six_floats));
    REQUIRE(checkpoint.tensors.size() == 1);
    CHECK(checkpoint.tensors[0].second.shape() == Shape{3, 2});
    CHECK(checkpoint.note == "the weights are under 'model'; not read: 'ema'");
    CHECK(read(torch_file(p_dict({{"a", p_dict({{"weird", one(six)}})}}), six_floats)).note ==
          "the weights are under 'a.weird'");
    CHECK(contains(refused_pickle(p_dict({{"u", one(six)}, {"v", one(six)}}), six_floats),
                   "several dicts of tensors: 'u', 'v'"));
}

TEST_CASE("PyTorch: every element type") {
    const auto value = [](const std::string& type, const std::string& bytes, DType dtype) {
        const TorchTensor t = {.type = type, .stored = 2, .sizes = {2}, .strides = {1}};
        const Tensor x = read(torch_file(one(t), {{"0", bytes}})).tensors.at(0).second;
        CHECK(x.dtype() == dtype);
        return x.slice(1, 2).item();
    };
    const double half = 0.5;
    CHECK(value("DoubleStorage", std::string(8, 0) + std::string((const char*)&half, 8),
                DType::f64) == 0.5);
    CHECK(value("HalfStorage", little(0xc0003c00, 4), DType::f32) == -2);
    CHECK(value("BFloat16Storage", little(0xc0403f80, 4), DType::f32) == -3);
    CHECK(value("LongStorage", little(1, 8) + little(uint64_t(-5), 8), DType::i64) == -5);
    CHECK(value("IntStorage", little(1, 4) + little(uint64_t(-5), 4), DType::i32) == -5);
    CHECK(value("ShortStorage", little(1, 2) + little(uint64_t(-5), 2), DType::i16) == -5);
    CHECK(value("CharStorage", "\x01\xfb", DType::i8) == -5);
    CHECK(value("ByteStorage", "\x01\xfb", DType::u8) == 251);
    CHECK(value("BoolStorage", std::string("\0\1", 2), DType::u8) == 1);
    CHECK(contains(refused_pickle(one({.type = "ComplexFloatStorage"})),
                   "asks for torch.ComplexFloatStorage, which is not read at byte"));
}

TEST_CASE("PyTorch: what is no state_dict is refused, with what to do instead") {
    const std::string save = "torch.save(model.state_dict(), ";
    const auto model =
        refused_pickle(p_global("torch.nn.modules.container", "Sequential") + ")\x81");
    CHECK(contains(model, "asks for torch.nn.modules.container.Sequential"));
    CHECK(contains(model, save));
    CHECK(contains(model, "torch.onnx.export"));
    CHECK(contains(refused_pickle(p_global("os", "system") + p_text("true") + "\x85R"),
                   "asks for os.system"));
    CHECK(contains(refused_pickle(p_tensor(six), six_floats), "no dict of tensors"));
    CHECK(contains(refused_pickle(p_dict({{"a", p_int(3)}})), "no tensors under names"));
    CHECK(contains(refused_pickle("}" + p_int(3) + p_tensor(six) + "s", six_floats), "no tensors"));

    const auto refuse = [](const std::string& text) {
        return refusal([&] { read(Bytes(text.begin(), text.end())); });
    };
    CHECK(contains(refuse("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M"),
                   "before version 1.6"));
    CHECK(contains(refuse(std::string("\x80\x02}.", 4)), "not a PyTorch file"));
    CHECK(contains(refuse(""), "not a PyTorch file"));
    CHECK(contains(refuse("PK\3\4"), "w.pt"));
    const auto refuse_zip = [&](const std::vector<Zipped>& entries) {
        const Bytes file = zip_of(entries);
        return refusal([&] { read(file); });
    };
    CHECK(contains(refuse_zip({{"x.npy", {1}, false}}), "without data.pkl"));
    CHECK(contains(refuse_zip({{"m/data.pkl", {'.'}, false}, {"m/constants.pkl", {'.'}, false}}),
                   "a compiled program"));
    CHECK(contains(refuse_zip({{"m/data.pkl", {'}', '.'}, false}, {"m/byteorder", {'b'}, false}}),
                   "big-endian"));
    CHECK(contains(refuse_zip({{"m/data.pkl", Bytes(100, ']'), true}}), "compressed"));
}

TEST_CASE("PyTorch: tensors that reach outside their storage, or repeat it without end") {
    const auto error = [&](const TorchTensor& t) { return refused_pickle(one(t), six_floats); };
    CHECK(error(six) == "");
    const std::string outside = "tensor 'a': it reaches outside its storage of 6 elements";
    CHECK(contains(error({.stored = 6, .offset = 1, .sizes = {2, 3}, .strides = {3, 1}}), outside));
    CHECK(contains(error({.stored = 6, .sizes = {2, 3}, .strides = {4, 1}}), outside));
    CHECK(contains(error({.stored = 6, .offset = 6, .sizes = {1}, .strides = {1}}), outside));
    CHECK(contains(error({.stored = 6, .sizes = {7}, .strides = {1}}), outside));
    CHECK(
        contains(error({.stored = 6, .offset = INT64_MAX, .sizes = {1}, .strides = {1}}), outside));
    CHECK(contains(error({.stored = 6, .sizes = {2}, .strides = {INT64_MAX}}), outside));
    CHECK(contains(error({.stored = 6, .sizes = {3, 3}, .strides = {1ll << 62, 1ll << 62}}),
                   outside));
    CHECK(contains(error({.stored = 7, .sizes = {7}, .strides = {1}}), "has 6 elements, not 7"));
    CHECK(contains(error({.type = "DoubleStorage", .stored = 6, .sizes = {6}, .strides = {1}}),
                   "has 3 elements, not 6"));
    CHECK(contains(error({.key = "1", .stored = 6, .sizes = {6}, .strides = {1}}),
                   "data/1 is not in the file"));
    CHECK(
        contains(error({.stored = 6, .sizes = {2, 3}, .strides = {1}}), "2 sizes, but 1 strides"));
    CHECK(contains(error({.stored = 6, .sizes = {-1}, .strides = {1}}), "not a count"));
    CHECK(contains(error({.stored = -6, .sizes = {1}, .strides = {1}}), "not a count"));
    CHECK(contains(
        error({.stored = 6, .sizes = {1, 1, 1, 1, 1, 1, 1}, .strides = {1, 1, 1, 1, 1, 1, 1}}),
        "tensor 'a'"));
    CHECK(contains(error({.stored = 6, .sizes = {1 << 20, 1 << 20}, .strides = {0, 0}}),
                   "it repeats"));
    CHECK(contains(error({.stored = 6, .sizes = {1ll << 31, 1ll << 31}, .strides = {0, 0}}),
                   "[w.pt"));
    // Many tensors that repeat it a little each.
    std::vector<std::pair<std::string, std::string>> many;
    for (int i = 0; i < 40; ++i)
        many.emplace_back(std::to_string(i),
                          p_tensor({.stored = 6, .sizes = {65536}, .strides = {0}}));
    CHECK(contains(refused_pickle(p_dict(many), six_floats), "it repeats"));
    CHECK(contains(refused_pickle(p_dict({{"a", p_tensor(six)}, {"a", p_tensor(six)}}), six_floats),
                   "'a' is there twice"));
}

TEST_CASE("PyTorch: pickles that want too much of their reader") {
    for (const char* hostile : {"",
                                "a",
                                "s",
                                "u",
                                "t",
                                "e",
                                "R",
                                "b",
                                "Q",
                                "q\x01",
                                "h\x05",
                                "}a",
                                "]N"
                                "s",
                                "(0",
                                "(1",
                                "(u",
                                "}(Nu",
                                "]]R",
                                "}]b"
                                "0",
                                "\xff",
                                "i",
                                "P",
                                "J",
                                "X\xff\xff\xff\xff",
                                "\x8a\xff",
                                "c",
                                "cos\n",
                                "\x93",
                                "NN\x93"}) {
        CAPTURE(hostile);
        CHECK(refused_pickle(hostile) != "");
    }
    CHECK(contains(refused_pickle("\x8d" + little(uint64_t(1) << 62, 8)), "truncated: a string"));
    CHECK(contains(refused_pickle("\x95" + little(uint64_t(1) << 62, 8)), "truncated: a frame"));
    CHECK(contains(refused_pickle("\x8b" + little(0xffffffff, 4)), "truncated: a number"));
    CHECK(contains(refused_pickle(std::string(1 << 20, ']') + "N"), "more than 1048576 values"));
    CHECK(contains(refused_pickle("N" + std::string(1 << 20, '2')), "stack of more than"));
    CHECK(contains(refused_pickle(std::string((1 << 20) + 1, '(')), "more than 1048576 marks"));
    CHECK(contains(refused_pickle("c" + std::string(300, 'm') + "\nx\n"), "name of more than 256"));
    CHECK(contains(refused_pickle(p_dict({{std::string(2000, 'n'), p_tensor(six)}}), six_floats),
                   "a name of 2000 bytes"));
    // Dicts inside each other, and in themselves, deep or in circles.
    CHECK(contains(refused_pickle("}q\x01" + p_text("") + "h\x01s"), "no tensors"));
    CHECK(contains(refused_pickle("}q\x01" + p_text("") + "}q\x02" + p_text("") + "h\x01ss"),
                   "within eight dicts"));
    std::string deep;
    for (int i = 0; i < 100000; ++i) deep += "}" + p_text("d");
    CHECK(contains(refused_pickle(deep + "}" + std::string(100000, 's')), "within eight dicts"));
    // Half a million keys, each with a dict of as many.
    std::string wide = "}q\x01(", names = "}q\x02(";
    for (int i = 0; i < 100000; ++i) {
        names += p_int(i) + "N";
        wide += p_text(std::to_string(i)) + "h\x02";
    }
    CHECK(contains(refused_pickle(names + "u0" + wide + "u"), "no tensors"));
}

TEST_CASE("PyTorch: a file survives truncation at every byte, damage and a lost checksum") {
    const Bytes good = torch_file(one(six), six_floats);
    for (size_t n = 0; n < good.size(); ++n) {
        CAPTURE(n);
        const Bytes cut(good.begin(), good.begin() + ptrdiff_t(n));
        CHECK(refusal([&] { read(cut); }) != "");
    }
    const std::string pickle = one(six);
    for (size_t n = 0; n < pickle.size(); ++n) {
        CAPTURE(n);
        CHECK(refused_pickle(pickle.substr(0, n), six_floats) != "");
    }
    std::mt19937_64 random(1);
    size_t refused = 0;
    for (int i = 0; i < 5000; ++i) {
        std::string bad = pickle;
        for (int k = 0; k < 2; ++k) bad[random() % bad.size()] = char(random());
        refused += refused_pickle(bad, six_floats) != "";
    }
    CHECK(refused > 2500);
    // The first byte of the only storage, found by what stands before it.
    Bytes flipped = good;
    const std::string name = "a/data/0";
    const auto at = std::search(flipped.begin(), flipped.end(), name.begin(), name.end());
    REQUIRE(at != flipped.end());
    at[ptrdiff_t(name.size()) + 3] ^= 1;
    CHECK(contains(refusal([&] { read(flipped); }), "w.pt"));
}

TEST_CASE("weights: a file's tensors over a network, by PyTorch's names") {
    const Graph from = network("resnet20", 1), to = network("resnet20", 2);
    const StateDict file = weights_of(from);
    std::vector<std::string> names;
    for (const auto& [name, tensor] : file.tensors) names.push_back(name);
    for (const char* name : {"conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean",
                             "bn1.running_var", "layer2.0.conv1.weight", "fc.weight", "fc.bias"})
        CHECK(std::count(names.begin(), names.end(), name) == 1);

    LaidOver laid = lay_over(to, file, "w.pt");
    check_same(laid.graph, from);
    CHECK(laid.notes.empty());

    // What PyTorch adds, wraps and stores in other precisions.
    StateDict other = file;
    for (auto& [name, tensor] : other.tensors) {
        if (name == "fc.bias") {
            const auto x = tensor.to_vector<float>();
            tensor = Tensor::from(std::vector<double>(x.begin(), x.end()), tensor.shape());
        }
        name = "module.model." + name;
    }
    other.tensors.emplace_back("module.model.bn1.num_batches_tracked",
                               Tensor::full<int64_t>({}, 391));
    other.note = "the weights are under 'x'";
    laid = lay_over(to, other, "w.pt");
    check_same(laid.graph, from);
    CHECK(laid.notes == std::vector<std::string>{"the weights are under 'x'",
                                                 "names are taken without 'module.model.'",
                                                 "double precision is rounded to float"});
}

TEST_CASE("weights: layers by other names are matched where shapes leave no doubt") {
    const Graph from = network("resnet20", 1), to = network("resnet20", 2);
    StateDict file = weights_of(from);
    for (const std::string stage : {"layer2", "layer3"}) {
        file = renamed(file, stage + ".0.shortcut_bn.", stage + ".0.downsample.1.");
        file = renamed(file, stage + ".0.shortcut.", stage + ".0.downsample.0.");
    }
    file = renamed(file, "fc.", "linear.");
    LaidOver laid = lay_over(to, file, "w.pt");
    check_same(laid.graph, from);
    REQUIRE(laid.notes.size() == 1);
    CHECK(contains(laid.notes[0], "layer2.0.downsample.1 as layer2.0.shortcut_bn"));
    CHECK(contains(laid.notes[0], "linear as fc"));

    // The same shape several times: by the numbers in the names, 3 before 12 ...
    const Graph mlp = network("mlp", 3);
    StateDict numbered = weights_of(mlp);
    int at = 0;
    for (const char* name : {"fc1", "fc_bn1", "fc2", "fc_bn2", "fc3"})
        numbered =
            renamed(numbered, std::string(name) + ".", "net." + std::to_string(3 * at++) + ".");
    laid = lay_over(network("mlp", 4), numbered, "w.pt");
    check_same(laid.graph, mlp);
    CHECK(contains(laid.notes.at(0), "net.3 as fc_bn1, net.6 as fc2, net.9 as fc_bn2"));
    // ... not by others,
    const auto words =
        renamed(renamed(weights_of(mlp), "fc_bn1.", "norm_a."), "fc_bn2.", "norm_b.");
    std::string wrong = refusal([&] { lay_over(network("mlp", 4), words, "w.pt"); });
    CHECK(contains(wrong, "missing: fc_bn1.weight [256]"));
    CHECK(contains(wrong, "unexpected: norm_b.running_var [256]"));
    // nor where the network computes them side by side.
    Graph fork;
    const size_t in = add_node(fork, "in", Input{{4}}, {});
    const auto square = [&](uint64_t seed) {
        return Linear{Tensor::from(normal_values(16, seed), {4, 4}), {}};
    };
    const size_t a = add_node(fork, "a", square(1), {in}), b = add_node(fork, "b", square(2), {in});
    add_node(fork, "out", Output{}, {add_node(fork, "sum", Add{}, {a, b})});
    const auto two = renamed(renamed(weights_of(fork), "a.", "0."), "b.", "1.");
    wrong = refusal([&] { lay_over(fork, two, "w.pt"); });
    CHECK(contains(wrong, "missing: a.weight [4, 4]"));
}

TEST_CASE("weights: everything that does not fit is listed at once") {
    const Graph graph = network("resnet20", 1);
    StateDict file = weights_of(graph);
    file = renamed(file, "layer1.0.bn2.", "other.");
    auto& tensors = file.tensors;
    const auto named = [&](const std::string& name) {
        return std::find_if(tensors.begin(), tensors.end(),
                            [&](const auto& item) { return item.first == name; });
    };
    named("fc.weight")->second = Tensor::full<float>({1000, 64}, 0);
    named("conv1.weight")->second = Tensor::full<int32_t>({16, 3, 3, 3}, 0);
    tensors.erase(named("fc.bias"));
    tensors.erase(named("other.bias"));
    tensors.emplace_back("conv1.bias", Tensor::full<float>({16}, 0));
    const std::string wrong = refusal([&] { lay_over(graph, file, "w.pt"); });
    for (const char* line :
         {"\n  missing: fc.bias [10]", "\n  missing: layer1.0.bn2.running_mean [16]",
          "\n  unexpected: other.weight [16]", "\n  unexpected: conv1.bias [16]",
          "\n  of another shape: fc.weight is [1000, 64], the network has [10, 64]",
          "\n  not floating point: conv1.weight is i32"})
        CHECK(contains(wrong, line));
    CHECK(contains(wrong, "[w.pt] the weights do not fit the network:"));
    CHECK(contains(wrong, "torch.onnx.export"));

    StateDict bad = weights_of(graph);
    for (auto& [name, tensor] : bad.tensors)
        if (name == "fc.bias") tensor = Tensor::full<float>({10}, std::nanf(""));
    CHECK(contains(refusal([&] { lay_over(graph, bad, "w.pt"); }), "'fc.bias' holds nan"));
    for (auto& [name, tensor] : bad.tensors) {
        if (name == "fc.bias") tensor = Tensor::full<float>({10}, 0);
        if (name == "bn1.running_var") tensor = Tensor::full<float>({16}, -1);
    }
    CHECK(contains(refusal([&] { lay_over(graph, bad, "w.pt"); }), "[w.pt]"));
    CHECK(contains(refusal([&] { lay_over(graph, {}, "w.pt"); }), "missing: conv1.weight"));
}

TEST_CASE("weights: thresholds stay where the file has none, and files are told apart") {
    const Graph relu = network("resnet20", 1), qcfs = network("resnet20", 2, "qcfs");
    const LaidOver laid = lay_over(qcfs, weights_of(relu), "w.pt");
    REQUIRE(laid.notes.size() == 1);
    CHECK(contains(laid.notes[0], "left as they are: act1.lambda"));
    const auto tensors = graph_tensors(laid.graph), before = graph_tensors(relu);
    CHECK(tensors.at("fc.weight").to_vector<float>() == before.at("fc.weight").to_vector<float>());
    CHECK(tensors.at("act1.lambda").to_vector<float>()[0] == 2);

    const TempFolder folder;
    const std::string path = folder / "m.safetensors";
    Model model;
    model.graph = qcfs;
    model.state["fc.weight"] = Tensor::full<float>({10, 64}, 0);
    save_model(path, model);
    check_same(lay_over(network("resnet20", 5, "qcfs"), load_weights(path), path).graph, qcfs);

    const Bytes file = torch_file(one(six), six_floats);
    write_file(folder / "w.bin", file.data(), file.size());
    CHECK(load_weights(folder / "w.bin").tensors.size() == 1);
    write_file(folder / "w.pt", "something");
    CHECK(contains(refusal([&] { load_weights(folder / "w.pt"); }), "not a PyTorch file"));
    write_file(folder / "w.h5", "something");
    CHECK(contains(refusal([&] { load_weights(folder / "w.h5"); }), "not a safetensors file"));
    CHECK(contains(refusal([&] { load_weights(folder / "none.pt"); }), "No such file"));
}
