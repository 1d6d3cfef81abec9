// NIR graphs of several inputs and outputs: lowered to one of each, and written as they were.
#include "io/named_inputs.h"
#include "tests/nir_networks.h"

using namespace nc;
using namespace nc::test;

namespace {

// y = w_a a + w_b b over maps (2, 2, 1) and (1, 2, 1), and b a step later by itself.
NirNode two_maps() {
    const auto conv = [](const std::vector<float>& w) {
        return node("Conv2d", {{"input_shape", whole({2, 1})},
                               {"weight", numbers(w, {1, w.size(), 1, 1})},
                               {"bias", numbers({0})},
                               {"stride", whole({1, 1})},
                               {"padding", whole({0, 0})},
                               {"dilation", whole({1, 1})},
                               {"groups", {{}, std::vector<int64_t>{1}}}});
    };
    NirNode g;
    g.type = "NIRGraph";
    g.nodes["left"] = node("Input", {{"shape", whole({2, 2, 1})}});
    g.nodes["Right"] = node("Input", {{"shape", whole({1, 2, 1})}});
    g.nodes["wa"] = conv({1, 10});
    g.nodes["wb"] = conv({100});
    g.nodes["late"] = node("Delay", {{"delay", numbers({1e-4f, 1e-4f}, {1, 2, 1})}});
    g.nodes["sum"] = node("Scale", {{"scale", numbers({1, 1}, {1, 2, 1})}});
    g.nodes["output"] = node("Output", {{"shape", whole({1, 2, 1})}});
    g.edges = {{"left", "wa"},    {"Right", "wb"}, {"wa", "sum"},    {"wb", "sum"},
               {"Right", "late"}, {"late", "sum"}, {"sum", "output"}};
    return g;
}

// Features p -> double -> big and p + q -> small.
NirNode two_outputs() {
    NirNode g;
    g.type = "NIRGraph";
    g.nodes["p"] = node("Input", {{"shape", whole({2})}});
    g.nodes["q"] = node("Input", {{"shape", whole({2})}});
    g.nodes["double"] = node("Scale", {{"scale", numbers({2, 2})}});
    g.nodes["both"] = node("Linear", {{"weight", numbers({1, 1}, {1, 2})}});
    g.nodes["big"] = node("Output", {{"shape", whole({2})}});
    g.nodes["small"] = node("Output", {{"shape", whole({1})}});
    g.edges = {{"p", "double"}, {"double", "big"}, {"p", "both"}, {"q", "both"}, {"both", "small"}};
    return g;
}

Graph read_output(const NirNode& g, const std::string& output) {
    return nir_to_graph(g, "net.nir", default_dt, output);
}

}  // namespace

TEST_CASE("several inputs lie side by side in one, in the order of their names") {
    const Graph g = read(two_maps());
    const std::vector<NamedInput> inputs = named_inputs(g);
    REQUIRE(inputs.size() == 2);
    CHECK(inputs[0].name == "Right");  // by bytes, as everywhere in a file
    CHECK(inputs[1].name == "left");
    CHECK((inputs[0].first == 0 && inputs[0].channels == 1));
    CHECK((inputs[1].first == 1 && inputs[1].channels == 2));
    // [2, 1, 3]: b a0 a1 at each of two places.
    const std::vector<float> first = {1, 2, 3, 4, 5, 6}, second = {-1, 0, 1, 0.5f, 0, 0};
    CHECK(run_steps(g, {first, second}) == std::vector<float>{132, 465, 0 + 10 - 100 + 1, 50 + 4});
    const NirNode again = graph_to_nir(nir_form(g));
    CHECK(same_tree(graph_to_nir(nir_form(read(again))), again));
    CHECK(again.nodes.at("left").type == "Input");
    CHECK(again.nodes.at("Right").type == "Input");
    CHECK(again.nodes.count("input") == 0);
    CHECK(same_fields(again.nodes.at("left").fields, two_maps().nodes.at("left").fields));
    CHECK(run_steps(read(again), {first, second}) == run_steps(g, {first, second}));
}

TEST_CASE("an input that lies beside no other, and what only looks like inputs, is one") {
    const NirNode one = chain({2}, {node("Scale", {{"scale", numbers({1, 2})}})}, {2});
    const auto alone = named_inputs(read(one));
    REQUIRE(alone.size() == 1);
    CHECK((alone[0].name == "input" && alone[0].channels == 2));
    const auto with = [](const std::vector<float>& a, const std::vector<float>& b) {
        NirNode g = chain({2}, {}, {1});
        g.nodes["a"] = node("Linear", {{"weight", numbers(a, {1, 2})}});
        g.nodes["b"] = node("Linear", {{"weight", numbers(b, {1, 2})}});
        g.nodes["sum"] = node("Scale", {{"scale", numbers({1})}});
        g.edges = {{"input", "a"}, {"input", "b"}, {"a", "sum"}, {"b", "sum"}, {"sum", "output"}};
        return named_inputs(read(g)).size();
    };
    CHECK(with({1, 0}, {0, 1}) == 2);  // which is the same network
    CHECK(with({0, 1}, {1, 0}) == 2);
    CHECK(with({1, 0}, {1, 0}) == 1);
    CHECK(with({1, 0}, {0, 2}) == 1);
    CHECK(with({1, 1}, {0, 1}) == 1);
    CHECK(with({0, 0}, {0, 1}) == 1);
}

TEST_CASE("inputs that cannot be one are refused with their sizes") {
    NirNode g = two_maps();
    g.nodes["Right"].fields["shape"] = whole({1, 2, 2});
    CHECK(contains(refused(g),
                   "[net.nir] the inputs 'Right' (1, 2, 2) and 'left' (2, 2, 1) differ "
                   "in more than their channels"));
    g.nodes["Right"].fields["shape"] = whole({2});
    CHECK(contains(refused(g), "'Right' (2) and 'left' (2, 2, 1) differ"));
    g = two_outputs();
    g.nodes["q"].fields["shape"] = whole({16000000});
    CHECK(contains(error_of([&] { read_output(g, "small"); }),
                   "2 inputs have 16000002 channels together, more than 2048"));
    g = two_maps();
    g.edges.emplace_back("wa", "Right");
    CHECK(contains(refused(g), "the edge 'wa' -> 'Right' enters an input"));
    g = two_maps();
    g.nodes["third"] = node("Input", {{"shape", whole({1, 2, 1})}});
    CHECK(contains(refused(g), "'third' is on no path"));
}

TEST_CASE("of several outputs the one that is named is kept, with what leads to it") {
    const NirNode g = two_outputs();
    const std::string which = refused(g);
    CHECK(contains(which, "[net.nir] the graph has 2 outputs: 'big', 'small'"));
    CHECK(contains(which, "--output NAME"));
    const std::string wrong = error_of([&] { read_output(g, "bigg"); });
    CHECK(contains(wrong, "[net.nir] no output is named 'bigg'"));
    CHECK(contains(wrong, "did you mean 'big'?"));

    const Graph small = read_output(g, "small");
    CHECK(named_inputs(small).size() == 2);
    CHECK(run_steps(small, {{1, 2, 30, 40}}) == std::vector<float>{73});
    const Graph big = read_output(g, "big");  // p alone leads to it
    CHECK(big.nodes.size() == 3);
    Compute compute;
    CHECK(run(compute, big, Tensor::from<float>({3, 4}, {1, 2}), 1).to_vector<float>() ==
          std::vector<float>{6, 8});

    NirNode one = chain({2}, {node("Scale", {{"scale", numbers({1, 2})}})}, {2});
    CHECK(read_output(one, "output").nodes.size() == 3);
    CHECK(contains(error_of([&] { read_output(one, "small"); }), "known: output"));
    NirNode odd = g;
    odd.edges.emplace_back("big", "both");
    CHECK(contains(error_of([&] { read_output(odd, "small"); }),
                   "the edge 'big' -> 'both' leaves an output"));
    odd = g;
    odd.nodes["stray"] = node("Scale", {{"scale", numbers({1, 2})}});
    odd.edges.emplace_back("p", "stray");
    CHECK(contains(error_of([&] { read_output(odd, "small"); }), "'stray' is on no path"));
}
