// ONNX models in: what each operation and spelling becomes, run against sums written out here, and
// what is refused.
#include "io/onnx.h"

#include <algorithm>
#include <numeric>

#include "io/bytes.h"
#include "neurons/forward.h"
#include "tests/check.h"
#include "tests/onnx_file.h"

using namespace nc;
using namespace nc::test;

namespace {

Graph graph_of(const OnnxFile& file) {
    return parse_onnx(file.bytes(), "m.onnx").graph;
}

std::string refusal(const OnnxFile& file) {
    return error_of([&] { parse_onnx(file.bytes(), "m.onnx"); });
}

// Logits of one sample given as the file has it: channels first.
std::vector<float> run(const Graph& g, const std::vector<float>& x) {
    Shape shape;
    for (const Node& node : g.nodes)
        if (const auto* input = std::get_if<Input>(&node.op)) shape = input->shape;
    std::vector<float> ours = x;
    if (shape.rank() == 3)
        for (size_t c = 0; c < shape[2]; ++c)
            for (size_t p = 0; p < shape[0] * shape[1]; ++p)
                ours[p * shape[2] + c] = x[c * shape[0] * shape[1] + p];
    Compute compute;
    const auto y = forward(compute, g, {}, Tensor::from(ours, shape.with_leading(1)), {});
    return mean_logits(compute, nullptr, y).value.to_vector<float>();
}

std::vector<std::string> kinds(const Graph& g) {
    std::vector<std::string> out;
    for (const Node& node : g.nodes) out.emplace_back(operation_name(node.op));
    return out;
}

using Names = std::vector<std::string>;
using Floats = std::vector<float>;

std::vector<float> counting(size_t n, float from = 1) {
    std::vector<float> out(n);
    std::iota(out.begin(), out.end(), from);
    return out;
}

void check_near(const Floats& got, const Floats& want) {
    REQUIRE(got.size() == want.size());
    for (size_t i = 0; i < got.size(); ++i) {
        INFO("at " << i << ": " << got[i] << ", wanted " << want[i]);
        CHECK(std::abs(got[i] - want[i]) <= 1e-5f * (1 + std::abs(want[i])));
    }
}

// A map [c, h, w], all of it as the output.
struct Map {
    size_t c, h, w;
    Floats v;
    float at(size_t k, int64_t y, int64_t x) const {
        const bool in = y >= 0 && x >= 0 && y < int64_t(h) && x < int64_t(w);
        return in ? v[(k * h + size_t(y)) * w + size_t(x)] : 0;
    }
};

// The definition, with any padding: weights [co, ci, kh, kw].
Map convolved(const Map& x, const Floats& w, size_t co, size_t k, const Sizes& pads,
              size_t stride) {
    Map y{co,
          (x.h + size_t(pads[0] + pads[2]) - k) / stride + 1,
          (x.w + size_t(pads[1] + pads[3]) - k) / stride + 1,
          {}};
    for (size_t o = 0; o < co; ++o)
        for (size_t i = 0; i < y.h; ++i)
            for (size_t j = 0; j < y.w; ++j) {
                double sum = 0;
                for (size_t c = 0; c < x.c; ++c)
                    for (size_t a = 0; a < k; ++a)
                        for (size_t b = 0; b < k; ++b)
                            sum += double(w[((o * x.c + c) * k + a) * k + b]) *
                                   x.at(c, int64_t(i * stride + a) - pads[0],
                                        int64_t(j * stride + b) - pads[1]);
                y.v.push_back(float(sum));
            }
    return y;
}

// y = everything of value `from`, a map of n values: a Flatten and a unit matrix.
void all_of(OnnxFile& file, const std::string& from, size_t n) {
    Floats unit(n * n, 0);
    for (size_t i = 0; i < n; ++i) unit[i * n + i] = 1;
    file.constant(floats("unit", {int64_t(n), int64_t(n)}, unit));
    file.node("Flatten", {from}, "flat").node("MatMul", {"flat", "unit"}, "y");
}

}  // namespace

TEST_CASE("onnx: linear layers in their spellings") {
    OnnxFile gemm({0, 2});
    gemm.constant(floats("fc.weight", {3, 2}, {1, 2, 3, 4, 5, 6}))
        .constant(floats("fc.bias", {3}, {10, 20, 30}))
        .node("Gemm", {"x", "fc.weight", "fc.bias"}, "y",
              {one_int("transB", 1), one_float("alpha", 2), one_float("beta", 0.5f)});
    CHECK(kinds(graph_of(gemm)) == Names{"input", "linear", "output"});
    CHECK(graph_of(gemm).nodes[1].name == "fc");
    CHECK(run(graph_of(gemm), {1, 10}) == Floats{2 * 21 + 5, 2 * 43 + 10, 2 * 65 + 15});

    OnnxFile matmul({1, 2});
    matmul.constant(floats("w", {2, 3}, {1, 3, 5, 2, 4, 6}))
        .constant(floats("b", {3}, {10, 20, 30}))
        .node("MatMul", {"x", "w"}, "xw")
        .node("Add", {"b", "xw"}, "y");
    CHECK(kinds(graph_of(matmul)) == Names{"input", "linear", "output"});
    CHECK(run(graph_of(matmul), {1, 10}) == Floats{31, 63, 95});

    // The product is needed twice: the bias is not the layer's.
    OnnxFile shared({1, 2}, "z");
    shared.constant(floats("w", {2, 3}, {1, 3, 5, 2, 4, 6}))
        .constant(floats("b", {3}, {10, 20, 30}))
        .node("MatMul", {"x", "w"}, "xw")
        .node("Add", {"xw", "b"}, "y")
        .node("Sub", {"y", "xw"}, "z");
    check_near(run(graph_of(shared), {1, 10}), {10, 20, 30});
}

TEST_CASE("onnx: a flattened map is read channel by channel, however the flattening is spelled") {
    const auto head = [](OnnxFile& file) {
        file.constant(floats("w", {8, 1}, {0, 1, 0, 0, 0, 0, 100, 0}))
            .node("MatMul", {"flat", "w"}, "y");
    };
    const Floats x = counting(8);  // [2, 2, 2]: the second of channel 0, the third of channel 1
    const Floats want = {2 + 700};

    OnnxFile flatten({0, 2, 2, 2});
    flatten.node("Flatten", {"x"}, "flat");
    head(flatten);
    CHECK(run(graph_of(flatten), x) == want);

    OnnxFile chain({0, 2, 2, 2});
    chain.constant(integers("zero", {0}))
        .constant(integers("minus", {-1}))
        .constant(integers("first", {0}))
        .node("Shape", {"x"}, "shape")
        .node("Gather", {"shape", "zero"}, "n", {one_int("axis", 0)})
        .node("Squeeze", {"n"}, "n0")
        .node("Unsqueeze", {"n0", "first"}, "n1")
        .node("Cast", {"n1"}, "n2", {one_int("to", 7)})
        .node("Concat", {"n2", "minus"}, "to", {one_int("axis", 0)})
        .node("Reshape", {"x", "to"}, "flat");
    head(chain);
    CHECK(run(graph_of(chain), x) == want);

    OnnxFile sized({1, 2, 2, 2});
    sized.node("Constant", {}, "to", {value_of(integers("", {1, 8}))})
        .node("Reshape", {"x", "to"}, "flat");
    head(sized);
    CHECK(run(graph_of(sized), x) == want);

    OnnxFile mixed({4, 2, 2, 2});
    mixed.constant(integers("to", {8, 4})).node("Reshape", {"x", "to"}, "y");
    CHECK(contains(refusal(mixed), "mixes samples"));
}

TEST_CASE("onnx: padding of any kind goes into the convolution") {
    const Map x{2, 5, 4, counting(40)};
    for (const size_t stride : {1, 2})
        for (const Sizes& own : {Sizes{0, 0, 0, 0}, Sizes{1, 1, 1, 1}, Sizes{1, 0, 2, 1}})
            for (const Sizes& before : {Sizes{0, 0, 0, 0}, Sizes{0, 1, 0, 0}, Sizes{2, 0, 1, 1}}) {
                Sizes pads;
                for (size_t i = 0; i < 4; ++i) pads.push_back(own[i] + before[i]);
                const Floats w = normal_values(3 * 2 * 9, 7);
                const Map want = convolved(x, w, 3, 3, pads, stride);
                OnnxFile file({1, 2, 5, 4});
                file.constant(floats("w", {3, 2, 3, 3}, w))
                    .constant(
                        integers("p", {0, 0, before[0], before[1], 0, 0, before[2], before[3]}))
                    .node("Pad", {"x", "p"}, "padded")
                    .node("Conv", {"padded", "w"}, "c",
                          {ints("pads", own), ints("strides", {int64_t(stride), int64_t(stride)}),
                           ints("kernel_shape", {3, 3})});
                all_of(file, "c", want.v.size());
                check_near(run(graph_of(file), x.v), want.v);
            }
    OnnxFile edges({1, 2, 5, 4});
    edges.constant(floats("w", {1, 2, 1, 1}, {1, 1}))
        .constant(integers("p", {0, 0, 1, 1, 0, 0, 1, 1}))
        .node("Pad", {"x", "p"}, "padded", {words("mode", "reflect")})
        .node("Relu", {"padded"}, "y");
    CHECK(contains(refusal(edges), "'/padded' (Pad): pads with something else than zeros"));
}

TEST_CASE("onnx: auto_pad, dilation and groups") {
    OnnxFile file({1, 2, 5, 5});
    file.constant(floats("w", {2, 1, 2, 2}, {1, 0, 0, 0, 0, 0, 0, 1}))
        .node("Conv", {"x", "w"}, "c",
              {words("auto_pad", "SAME_UPPER"), one_int("group", 2), ints("dilations", {2, 2})});
    all_of(file, "c", 50);
    // Windows span 3: one row and column of zeros on every side.
    const Map x{2, 5, 5, counting(50)};
    Floats want;
    for (size_t c = 0; c < 2; ++c)
        for (int64_t i = 0; i < 5; ++i)
            for (int64_t j = 0; j < 5; ++j)
                want.push_back(c == 0 ? x.at(0, i - 1, j - 1) : x.at(1, i + 1, j + 1));
    check_near(run(graph_of(file), x.v), want);
}

TEST_CASE("onnx: BatchNorm stays a node and takes its module's name") {
    OnnxFile file({1, 1, 1, 2});
    file.constant(floats("bn.weight", {1}, {2}))
        .constant(floats("bn.bias", {1}, {1}))
        .constant(floats("bn.running_mean", {1}, {3}))
        .constant(floats("bn.running_var", {1}, {3.75f}))
        .node("Identity", {"bn.running_var"}, "variance")
        .node("BatchNormalization", {"x", "bn.weight", "bn.bias", "bn.running_mean", "variance"},
              "b", {one_float("epsilon", 0.25f), one_float("momentum", 0.75f)});
    all_of(file, "b", 2);
    const Graph g = graph_of(file);
    CHECK(g.nodes[1].name == "bn");
    CHECK(std::get<BatchNorm>(g.nodes[1].op).momentum == 0.25);
    check_near(run(g, {3, 7}), {1, 5});
}

TEST_CASE("onnx: pooling") {
    const auto pooled = [](const std::string& op, const std::vector<Message>& attributes,
                           size_t n) {
        OnnxFile file({1, 1, 3, 3});
        file.node(op, {"x"}, "p", attributes);
        all_of(file, "p", n);
        return run(graph_of(file), counting(9));
    };
    const Message kernel = ints("kernel_shape", {2, 2});
    CHECK(pooled("AveragePool", {kernel}, 4) == Floats{3, 4, 6, 7});
    CHECK(pooled("MaxPool", {kernel, one_int("ceil_mode", 1)}, 4) == Floats{5, 6, 8, 9});
    CHECK(pooled("AveragePool",
                 {kernel, ints("pads", {1, 1, 1, 1}), ints("strides", {3, 3}),
                  one_int("count_include_pad", 1)},
                 4) == Floats{0.25f, 0.75f, 1.75f, 2.25f});
    // Without its padding an average is that of what it meets.
    const Message border = ints("pads", {1, 1, 1, 1});
    CHECK(pooled("AveragePool", {kernel, border, ints("strides", {3, 3})}, 4) ==
          Floats{1, 3, 7, 9});
    check_near(pooled("AveragePool", {ints("kernel_shape", {3, 3}), border}, 9),
               {3, 3.5f, 4, 4.5f, 5, 5.5f, 6, 6.5f, 7});
    OnnxFile noted({1, 1, 3, 3});
    noted.node("AveragePool", {"x"}, "p", {kernel, border});
    all_of(noted, "p", 16);
    const auto notes = parse_onnx(noted.bytes(), "m.onnx").notes;
    REQUIRE(notes.size() == 1);
    CHECK(contains(notes[0], "'p' averages without its padding"));
    OnnxFile twice({1, 2, 1, 3});  // zeros put around a map before count
    twice.constant(integers("p", {0, 0, 0, 1, 0, 0, 0, 1}))
        .node("Pad", {"x", "p"}, "zeros")
        .node("AveragePool", {"zeros"}, "p1",
              {ints("kernel_shape", {1, 5}), ints("pads", {0, 1, 0, 1})});
    all_of(twice, "p1", 6);
    check_near(run(graph_of(twice), {1, 2, 3, 10, 20, 30}), {1.5f, 1.2f, 1.5f, 15, 12, 15});
    CHECK(pooled("GlobalAveragePool", {}, 1) == Floats{5});
    CHECK(pooled("GlobalMaxPool", {}, 1) == Floats{9});
    CHECK(pooled("ReduceMean", {ints("axes", {2, 3})}, 1) == Floats{5});
    CHECK(pooled("ReduceMean", {ints("axes", {-1}), one_int("keepdims", 1)}, 3) == Floats{2, 5, 8});

    const auto refused = [](const std::vector<Message>& attributes) {
        OnnxFile file({1, 1, 4, 4});
        file.node("AveragePool", {"x"}, "p", attributes);
        all_of(file, "p", 4);
        return refusal(file);
    };
    const Message three = ints("kernel_shape", {3, 3});
    CHECK(contains(refused({three, ints("pads", {0, 0, 1, 1}), one_int("count_include_pad", 1)}),
                   "differs from side to side"));
    CHECK(
        contains(refused({three, ints("strides", {2, 2}), one_int("ceil_mode", 1)}), "ceil_mode"));
}

TEST_CASE("onnx: activations are known by what they compute") {
    const auto kind = [](const Graph& g) -> const Activation& {
        return std::get<Activation>(g.nodes.at(1).op);
    };
    using kernels::Activation;
    OnnxFile silu({1, 4});
    silu.node("Sigmoid", {"x"}, "s").node("Mul", {"s", "x"}, "y");
    CHECK(kinds(graph_of(silu)) == Names{"input", "activation", "output"});
    CHECK(kind(graph_of(silu)).kind == Activation::silu);

    OnnxFile named({1, 4});
    named.node("HardSwish", {"x"}, "y");
    CHECK(kind(graph_of(named)).kind == Activation::hard_swish);
    check_near(run(graph_of(named), {-4, -1.5f, 1, 4}), {0, -0.375f, 4.f / 6, 4});
    OnnxFile gated({1, 4});
    gated.node("HardSigmoid", {"x"}, "s", {one_float("alpha", 1.f / 6), one_float("beta", 0.5f)})
        .node("Mul", {"x", "s"}, "y");
    CHECK(kinds(graph_of(gated)) == Names{"input", "activation", "output"});
    CHECK(kind(graph_of(gated)).kind == Activation::hard_swish);
    OnnxFile clipped({1, 4});
    clipped.constant(floats("three", {}, {3}))
        .constant(floats("low", {}, {0}))
        .constant(floats("six", {}, {6}))
        .node("Add", {"x", "three"}, "a")
        .node("Clip", {"a", "low", "six"}, "b")
        .node("Mul", {"x", "b"}, "c")
        .node("Div", {"c", "six"}, "y");
    CHECK(kind(graph_of(clipped)).kind == Activation::hard_swish);

    OnnxFile gelu({1, 4});
    gelu.constant(floats("r", {}, {1.41421354f}))
        .constant(floats("one", {1}, {1}))
        .constant(floats("half", {}, {0.5f}))
        .node("Div", {"x", "r"}, "a")
        .node("Erf", {"a"}, "b")
        .node("Add", {"b", "one"}, "c")
        .node("Mul", {"x", "c"}, "d")
        .node("Mul", {"d", "half"}, "y");
    CHECK(kinds(graph_of(gelu)) == Names{"input", "activation", "output"});
    CHECK(kind(graph_of(gelu)).kind == Activation::gelu);

    OnnxFile clip({1, 3});
    clip.constant(floats("low", {}, {0}))
        .constant(floats("high", {}, {6}))
        .node("Clip", {"x", "low", "high"}, "y");
    CHECK(kind(graph_of(clip)).kind == Activation::relu6);
    OnnxFile narrow({1, 3});
    narrow.node("Clip", {"x"}, "y", {one_float("min", 0), one_float("max", 1.5f)});
    check_near(run(graph_of(narrow), {-1, 1, 7}), {0, 1, 1.5f});

    OnnxFile leaky({1, 3});
    leaky.node("LeakyRelu", {"x"}, "a", {one_float("alpha", 0.25f)})
        .constant(floats("slope", {3}, {0.5f, 1, 2}))
        .node("PRelu", {"a", "slope"}, "y");
    check_near(run(graph_of(leaky), {-4, 4, -4}), {-0.5f, 4, -2});

    // x sqrt(x) is none of them, and neither is a product of two layers.
    OnnxFile other({1, 4});
    other.node("Sqrt", {"x"}, "t").node("Mul", {"x", "t"}, "y");
    CHECK(contains(refusal(other), "no activation known here is computed by Sqrt '/t', Mul '/y'"));
    OnnxFile gate({1, 4});
    gate.node("Relu", {"x"}, "a").node("Sigmoid", {"x"}, "b").node("Mul", {"a", "b"}, "y");
    CHECK(contains(refusal(gate), "'/y' (Mul): joins two activations"));
}

TEST_CASE("onnx: sums, residuals, and a ReLU that is used twice") {
    OnnxFile file({1, 2});
    file.node("Relu", {"x"}, "a")
        .node("Add", {"a", "x"}, "sum")
        .node("Relu", {"sum"}, "b")
        .node("Sub", {"b", "sum"}, "d")
        .node("Add", {"d", "d"}, "y");
    const Graph g = graph_of(file);
    // sum = (2, -3 + 0), b = (4, 0), d = b - sum
    check_near(run(g, {2, -3}), {0, 6});
    const Names all = kinds(g);
    CHECK(std::count(all.begin(), all.end(), "activation") == 2);

    OnnxFile silu({1, 2});
    silu.node("Sigmoid", {"x"}, "s").node("Mul", {"x", "s"}, "a").node("Add", {"x", "a"}, "y");
    check_near(run(graph_of(silu), {0, 100}), {0, 200});

    OnnxFile orders({1, 2, 1, 2});
    orders.constant(floats("w", {4, 4}, Floats(16, 1)))
        .node("Flatten", {"x"}, "flat")
        .node("MatMul", {"flat", "w"}, "l")
        .node("Add", {"l", "flat"}, "y");
    CHECK(contains(refusal(orders), "in another order"));
}

TEST_CASE("onnx: constants one a channel, and maps side by side") {
    OnnxFile file({1, 2, 1, 2});
    file.constant(floats("mean", {1, 2, 1, 1}, {1, 10}))
        .constant(floats("std", {2, 1, 1}, {2, 4}))
        .node("Sub", {"x", "mean"}, "a")
        .node("Div", {"a", "std"}, "b")
        .node("Relu", {"b"}, "r")
        .node("Concat", {"x", "r"}, "c", {one_int("axis", 1)});
    all_of(file, "c", 8);
    check_near(run(graph_of(file), {5, 1, 14, 2}), {5, 1, 14, 2, 2, 0, 1, 0});

    OnnxFile rows({1, 2, 1, 2});
    rows.constant(floats("k", {2}, {1, 2})).node("Mul", {"x", "k"}, "y");
    CHECK(contains(refusal(rows), "only one number, or one a channel"));
    OnnxFile wide({1, 2, 1, 2});
    wide.node("Concat", {"x", "x"}, "y", {one_int("axis", 3)});
    CHECK(contains(refusal(wide), "along axis 3"));
}

TEST_CASE("onnx: weights in 8 bits are taken as the numbers they stand for") {
    OnnxFile file({1, 2});
    file.constant(tensor("q", {2, 2}, 3, raw(std::vector<int8_t>{-128, 10, 0, 127})))
        .constant(floats("s", {2}, {0.5f, 2}))
        .constant(tensor("z", {2}, 3, raw(std::vector<int8_t>{0, 7})))
        .constant(floats("act", {}, {0.1f}))
        .constant(tensor("zero", {}, 2, std::string(1, '\0')))
        .node("DequantizeLinear", {"q", "s", "z"}, "w", {one_int("axis", 1)})
        .node("QuantizeLinear", {"x", "act", "zero"}, "xq")
        .node("DequantizeLinear", {"xq", "act", "zero"}, "xd")
        .node("MatMul", {"xd", "w"}, "y");
    check_near(run(graph_of(file), {1, 10}), {-64, 6 + 2400});
    const auto notes = parse_onnx(file.bytes(), "m.onnx").notes;
    REQUIRE(notes.size() == 1);
    CHECK(contains(notes[0], "1 roundings of activations to 8 bits are left out"));
}

TEST_CASE("onnx: a softmax at the end is left out, and said to be") {
    OnnxFile file({1, 2});
    file.node("Relu", {"x"}, "a").node("Softmax", {"a"}, "y");
    const OnnxNetwork net = parse_onnx(file.bytes(), "m.onnx");
    CHECK(run(net.graph, {3, -1}) == Floats{3, 0});
    REQUIRE(net.notes.size() == 1);
    CHECK(contains(net.notes[0], "Softmax"));
}
