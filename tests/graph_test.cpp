// Graphs: shapes, checks and their messages, order, edits.
#include "engine/graph_edit.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

Tensor zeros(const Shape& shape) {
    return Tensor::full<float>(shape, 0);
}
Tensor ones(const Shape& shape) {
    return Tensor::full<float>(shape, 1);
}

BatchNorm unit_norm(size_t channels) {
    const Shape c = {channels};
    return {ones(c), zeros(c), zeros(c), ones(c)};
}

Neuron unit_neuron() {
    Neuron n;
    n.theta = ones({1});
    return n;
}

// input [6, 6, 2] -> conv -> norm -> neuron -> pool -> flatten -> linear -> output
Graph small_net() {
    Graph g;
    size_t at = add_node(g, "input", Input{{6, 6, 2}}, {});
    at = add_node(g, "conv", Conv{zeros({3, 3, 2, 4}), zeros({4}), {.pad_h = 1, .pad_w = 1}}, {at});
    at = add_node(g, "norm", unit_norm(4), {at});
    at = add_node(g, "neuron", unit_neuron(), {at});
    at = add_node(g, "pool", AveragePool{}, {at});
    at = add_node(g, "flatten", Flatten{}, {at});
    at = add_node(g, "linear", Linear{zeros({36, 5}), zeros({5})}, {at});
    add_node(g, "output", Output{}, {at});
    return g;
}

// input [4] -> a -> relu -> add -> output, and input -> add beside it: x + f(x).
Graph residual_net() {
    Graph g;
    const size_t input = add_node(g, "input", Input{{4}}, {});
    const size_t a = add_node(g, "a", Linear{zeros({4, 4}), {}}, {input});
    const size_t relu = add_node(g, "relu", Activation{}, {a});
    const size_t add = add_node(g, "add", Add{}, {relu, input});
    add_node(g, "output", Output{}, {add});
    return g;
}

// The message of check() after this change to the small net.
template <class Change>
std::string refused(Change change) {
    Graph g = small_net();
    change(g);
    return error_of([&] { check(g); });
}

template <class Op>
Op& op_of(Graph& g, const char* name) {
    return std::get<Op>(g.nodes[find_node(g, name)].op);
}

}  // namespace

TEST_CASE("graph: shapes, counts and tensors of a network") {
    const Graph g = small_net();
    check(g);
    const std::vector<Shape> shapes = infer_shapes(g);
    const std::vector<Shape> wanted = {{6, 6, 2}, {6, 6, 4}, {6, 6, 4}, {6, 6, 4},
                                       {3, 3, 4}, {36},      {5},       {5}};
    CHECK(shapes == wanted);
    CHECK(is_spiking(g));
    CHECK_FALSE(is_residual(g));
    CHECK(is_residual(residual_net()));
    CHECK_FALSE(is_spiking(residual_net()));
    CHECK(weight_layers(g) == 2);
    CHECK(parameter_count(g) == 3 * 3 * 2 * 4 + 4 + 4 + 4 + 1 + 36 * 5 + 5);
    std::string fields;
    for (const Node& node : g.nodes)
        for_each_tensor(node, [&](const char* field, const Tensor& t, TensorRole role) {
            if (t.defined())
                fields += node.name + "." + field + (role == TensorRole::statistic ? "* " : " ");
        });
    CHECK(fields ==
          "conv.weight conv.bias norm.gamma norm.beta norm.mean* norm.variance* neuron.theta "
          "linear.weight linear.bias ");
    CHECK(operation_name(g.nodes[4].op) == "average_pool");
    CHECK(find_node(g, "pool") == 4);
    CHECK(inputs_of(residual_net(), 3) == std::vector<size_t>{2, 3});
    CHECK(outputs_of(residual_net(), 0) == std::vector<size_t>{0, 3});
    try {
        find_node(g, "pol");
        CHECK(false);
    } catch (const Error& e) {
        CHECK(contains(e.what(), "'pol'"));
        CHECK(e.hint == "did you mean 'pool'?");
    }
}

TEST_CASE("graph: every operation's shape") {
    const auto shape_after = [](const Shape& in, Operation op) {
        Graph g;
        const size_t input = add_node(g, "input", Input{in}, {});
        add_node(g, "output", Output{}, {add_node(g, "x", std::move(op), {input})});
        check(g);
        return infer_shapes(g)[1];
    };
    CHECK(shape_after({7, 6, 3}, MaxPool{{.kh = 3, .stride_h = 2}}) == Shape{3, 3, 3});
    CHECK(shape_after({7, 6, 3}, GlobalAveragePool{}) == Shape{3});
    CHECK(shape_after({7, 6, 3}, Flatten{}) == Shape{126});
    CHECK(shape_after({9}, Flatten{}) == Shape{9});
    CHECK(shape_after({7, 6, 3}, PRelu{ones({3})}) == Shape{7, 6, 3});
    CHECK(shape_after({7, 6, 3}, Qcfs{ones({1})}) == Shape{7, 6, 3});
    CHECK(shape_after({7, 6, 3}, Scale{ones({3})}) == Shape{7, 6, 3});
    CHECK(shape_after({7, 6, 3}, Activation{kernels::Activation::gelu}) == Shape{7, 6, 3});
    Neuron each = unit_neuron();
    each.theta = ones({7, 6, 3});
    each.v0 = zeros({3});
    CHECK(shape_after({7, 6, 3}, each) == Shape{7, 6, 3});
    CHECK(shape_after({8, 8, 4},
                      Conv{zeros({3, 3, 2, 6}), {}, {.stride_h = 2, .pad_h = 1, .groups = 2}}) ==
          Shape{4, 6, 6});
}

TEST_CASE("graph: check names what is wrong with names and edges") {
    CHECK(contains(refused([](Graph& g) { g.nodes[2].name = "conv"; }),
                   "two nodes are named 'conv'"));
    CHECK(contains(refused([](Graph& g) { g.nodes[2].name = "a b"; }), "'a b'"));
    CHECK(contains(refused([](Graph& g) { g.nodes[2].name = ""; }), "''"));
    CHECK(contains(refused([](Graph& g) { g.nodes[0].op = Flatten{}; }), "there is no input"));
    CHECK(contains(refused([](Graph& g) { g.nodes[7].op = Add{}; }), "there is no output"));
    CHECK(contains(refused([](Graph& g) { add_node(g, "second", Output{}, {6}); }),
                   "'output' and 'second'"));
    CHECK(contains(refused([](Graph& g) {
                       g.edges.push_back({3, 99});
                   }),
                   "edge 3 -> 99 of 8 nodes"));
    CHECK(contains(refused([](Graph& g) { g.edges.push_back(g.edges[1]); }),
                   "edge 'conv' -> 'norm' exists twice"));
    CHECK(contains(refused([](Graph& g) { g.edges[2].delay = -1; }), "'norm' -> 'neuron' has the"));
    CHECK(contains(refused([](Graph& g) { g.edges.push_back({7, 2}); }), "leaves an output"));
    CHECK(contains(refused([](Graph& g) { g.edges.push_back({3, 0}); }), "enters an input"));
    CHECK(contains(refused([](Graph& g) { add_node(g, "dead", Flatten{}, {4}); }), "'dead'"));
    CHECK(contains(refused([](Graph& g) {
                       add_node(g, "alone", Add{}, {});
                       g.edges.push_back({8, 7});
                   }),
                   "'alone' is on no path"));
    CHECK(contains(refused([](Graph& g) {
                       g.edges.push_back({3, 2});
                   }),
                   "cycle among edges of delay 0: 'n"));
    CHECK(contains(refused([](Graph& g) { g.edges.push_back({2, 2}); }), "'norm' -> 'norm'"));
    CHECK(refused([](Graph& g) { g.edges.push_back({3, 2, 1}); }) == "");  // a delay makes it fine
    CHECK(contains(error_of([] {
                       Graph g;
                       add_node(g, "x", Add{}, {3});
                   }),
                   "node 'x' after node 3 of 0"));
}

TEST_CASE("graph: check names node and shapes that do not fit") {
    const auto conv = [](Graph& g) -> Conv& { return op_of<Conv>(g, "conv"); };
    CHECK(contains(refused([&](Graph& g) {
                       conv(g).weight = zeros({3, 3, 3, 4});
                   }),
                   "node 'conv' (conv): [conv] channels differ: input [1, 6, 6, 2], weight"));
    CHECK(contains(refused([&](Graph& g) { conv(g).bias = zeros({3}); }),
                   "node 'conv' (conv): bias [3] for 4 outputs"));
    CHECK(contains(refused([&](Graph& g) { conv(g).weight = {}; }), "weight undefined"));
    CHECK(contains(refused([&](Graph& g) { conv(g).options.stride_h = 0; }), "zero"));
    CHECK(contains(refused([](Graph& g) {
                       op_of<Linear>(g, "linear").weight = zeros({35, 5});
                   }),
                   "node 'linear' (linear): weight [35, 5] for an input [36]"));
    CHECK(contains(refused([](Graph& g) { op_of<Linear>(g, "linear").bias = zeros({4}); }),
                   "bias [4] for 5 outputs"));
    CHECK(contains(refused([](Graph& g) { g.nodes[5].op = Add{}; }),
                   "node 'linear' (linear): the input has the shape [3, 3, 4], not [F]"));
    CHECK(contains(refused([](Graph& g) { op_of<BatchNorm>(g, "norm").mean = zeros({5}); }),
                   "node 'norm' (batch_norm): mean [5] for an input [6, 6, 4]"));
    CHECK(contains(refused([](Graph& g) { op_of<BatchNorm>(g, "norm").gamma = {}; }),
                   "gamma undefined and beta [4]"));
    CHECK(contains(refused([](Graph& g) { op_of<Neuron>(g, "neuron").theta = ones({2}); }),
                   "theta [2] for an input [6, 6, 4]"));
    CHECK(contains(refused([](Graph& g) { op_of<Neuron>(g, "neuron").theta = {}; }),
                   "theta undefined"));
    CHECK(contains(refused([](Graph& g) { op_of<Neuron>(g, "neuron").v0 = ones({5}); }), "v0 [5]"));
    CHECK(contains(refused([](Graph& g) { g.nodes[4].op = AveragePool{{.kh = 7}}; }),
                   "node 'pool' (average_pool): [pool] the window is larger"));
    CHECK(contains(refused([](Graph& g) { g.nodes[3].op = Qcfs{ones({3})}; }), "lambda [3]"));
    CHECK(contains(refused([](Graph& g) { g.nodes[3].op = PRelu{ones({3})}; }), "slope [3]"));
    CHECK(contains(refused([](Graph& g) { g.nodes[3].op = Scale{}; }), "scale undefined"));
    CHECK(contains(refused([](Graph& g) {
                       op_of<Input>(g, "input").shape = {6, 0, 2};
                   }),
                   "[6, 0, 2]"));
    CHECK(contains(refused([](Graph& g) { op_of<Input>(g, "input").shape = {6, 6}; }), "[6, 6]"));
    CHECK(contains(refused([](Graph& g) { g.edges.push_back({4, 2}); }), "cycle"));
    CHECK(contains(refused([](Graph& g) {
                       g.edges.push_back({0, 4});
                   }),
                   "node 'pool' (average_pool): its inputs differ: [6, 6, 4] and [6, 6, 2] from "
                   "'input'"));
}

TEST_CASE("graph: check names values out of range") {
    const auto neuron = [](Graph& g) -> Neuron& { return op_of<Neuron>(g, "neuron"); };
    const float infinity = std::numeric_limits<float>::infinity();
    CHECK(contains(refused([&](Graph& g) { neuron(g).theta = zeros({1}); }),
                   "node 'neuron': theta[0] is 0.000000, not positive"));
    CHECK(contains(refused([&](Graph& g) {
                       neuron(g).theta = Tensor::from<float>({1, 1, infinity, 1}, {4});
                   }),
                   "theta[2] is inf"));
    CHECK(contains(refused([&](Graph& g) { neuron(g).v0 = Tensor::full<float>({1}, NAN); }),
                   "v0[0] is nan"));
    CHECK(contains(refused([&](Graph& g) { neuron(g).rule.beta = 1.5; }), "beta is 1.5"));
    CHECK(contains(refused([&](Graph& g) { neuron(g).rule.surrogate_width = 0; }), "surrogate"));
    CHECK(contains(refused([&](Graph& g) { neuron(g).v0_fraction = NAN; }), "v0_fraction"));
    CHECK(contains(refused([](Graph& g) { g.nodes[3].op = Qcfs{ones({1}), 0}; }), "levels is 0"));
    CHECK(contains(refused([](Graph& g) { g.nodes[3].op = Qcfs{zeros({1})}; }), "lambda[0]"));
    CHECK(contains(refused([](Graph& g) { op_of<BatchNorm>(g, "norm").eps = 0; }), "eps is 0"));
    CHECK(contains(refused([](Graph& g) {
                       op_of<BatchNorm>(g, "norm").variance = Tensor::full<float>({4}, -1);
                   }),
                   "variance[0] is -1"));
}

TEST_CASE("graph: topological order, and recurrence through a delay") {
    Graph g;  // written back to front
    g.nodes = {{"output", Output{}}, {"b", Flatten{}}, {"a", Flatten{}}, {"input", Input{{4}}}};
    g.edges = {{1, 0}, {2, 1}, {3, 2}};
    check(g);
    CHECK(topological_order(g) == std::vector<size_t>{3, 2, 1, 0});
    const Graph in_order = sorted(g);
    CHECK(in_order.nodes[0].name == "input");
    CHECK(topological_order(in_order) == std::vector<size_t>{0, 1, 2, 3});

    // A weight layer fed only by the delayed output of the neuron it feeds.
    Graph r;
    const size_t input = add_node(r, "input", Input{{3}}, {});
    const size_t first = add_node(r, "first", Linear{zeros({3, 5}), {}}, {input});
    const size_t again = add_node(r, "again", Linear{zeros({5, 5}), {}}, {});
    const size_t neuron = add_node(r, "neuron", unit_neuron(), {first, again});
    add_node(r, "output", Output{}, {neuron});
    r.edges.push_back({neuron, again, 1});
    check(r);
    CHECK(infer_shapes(r)[again] == Shape{5});
    std::get<Linear>(r.nodes[again].op).weight = zeros({5, 4});
    CHECK(contains(error_of([&] { check(r); }), "[5] and [4] from 'again'"));
}

TEST_CASE("graph_edit: replace, insert, remove and sort") {
    const Graph g = small_net();
    const Graph replaced = replace(g, 3, Activation{});
    check(replaced);
    CHECK_FALSE(is_spiking(replaced));
    CHECK(is_spiking(g));  // the caller's graph is untouched

    const Graph after = insert_after(g, 3, "scale", Scale{ones({4})});
    check(after);
    CHECK(after.nodes[after.edges[inputs_of(after, 4)[0]].from].name == "scale");
    CHECK(remove(after, 8).edges == g.edges);

    Graph r = residual_net();
    const Graph on_edge = insert_on_edge(r, 3, "skip", Scale{ones({1})});
    check(on_edge);
    // The sum's order stays: relu first, then the skip.
    CHECK(on_edge.edges[inputs_of(on_edge, 3)[0]].from == 2);
    CHECK(on_edge.nodes[on_edge.edges[inputs_of(on_edge, 3)[1]].from].name == "skip");
    CHECK(remove(on_edge, 5).edges == r.edges);

    const Graph without_relu = remove(r, 2);
    check(without_relu);
    CHECK(without_relu.nodes.size() == 4);
    CHECK(without_relu.edges[inputs_of(without_relu, 2)[0]].from == 1);
    CHECK(without_relu.edges[inputs_of(without_relu, 2)[1]].from == 0);

    r.edges[2].delay = 2;  // relu -> add
    r.edges[1].delay = 1;  // a -> relu
    const Graph delayed = remove(r, 2);
    CHECK(delayed.edges[inputs_of(delayed, 2)[0]] == Edge{1, 2, 3});
    const Graph half = insert_on_edge(r, 2, "x", Scale{ones({1})});
    CHECK(half.edges[2] == Edge{5, 3});
    CHECK(half.edges.back() == Edge{2, 5, 2});

    Graph dead = small_net();
    add_node(dead, "dead", Flatten{}, {4});
    CHECK(sorted(dead).nodes.size() == 8);
    CHECK(sorted(dead).edges == g.edges);
    CHECK(unique_name(g, "conv") == "conv_2");
    CHECK(unique_name(g, "new") == "new");
}

TEST_CASE("graph_edit: edits that would change a sum or make no sense are refused") {
    const Graph g = small_net(), r = residual_net();
    CHECK(contains(error_of([&] { remove(g, 0); }), "'input' is the input"));
    CHECK(contains(error_of([&] { remove(g, 7); }), "'output' is the output"));
    CHECK(contains(error_of([&] { remove(g, 8); }), "no node 8 of 8"));
    CHECK(contains(error_of([&] { replace(g, 9, Add{}); }), "no node 9"));
    CHECK(contains(error_of([&] { insert_on_edge(g, 7, "x", Add{}); }), "no edge 7 of 7"));
    CHECK(contains(error_of([&] { insert_after(g, 8, "x", Add{}); }), "no node 8"));

    // input -> a -> relu -> add <- input: without a and relu the input would be added twice.
    CHECK(contains(error_of([&] { remove(remove(r, 1), 1); }), "a second edge 'input' -> 'add'"));

    // input + (a + relu): taking the inner sum apart changes the order of additions.
    Graph nested;
    const size_t input = add_node(nested, "input", Input{{4}}, {});
    const size_t a = add_node(nested, "a", Activation{}, {input});
    const size_t b = add_node(nested, "b", Activation{}, {input});
    const size_t inner = add_node(nested, "inner", Add{}, {a, b});
    const size_t outer = add_node(nested, "outer", Add{}, {input, inner});
    add_node(nested, "output", Output{}, {outer});
    check(nested);
    CHECK(contains(error_of([&] { remove(nested, inner); }), "the order of the sum into 'outer'"));
    std::swap(nested.edges[4], nested.edges[5]);  // (a + b) + input is a, b, input in order
    const Graph flat = remove(nested, inner);
    check(flat);
    CHECK(inputs_of(flat, 3).size() == 3);
}
