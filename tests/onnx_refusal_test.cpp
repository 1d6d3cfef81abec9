// ONNX models that are unsupported, broken or hostile: refused by name, in little time and memory.
#include <random>

#include "io/bytes.h"
#include "io/onnx.h"
#include "tests/check.h"
#include "tests/onnx_file.h"

using namespace nc;
using namespace nc::test;

namespace {

std::string refusal(const OnnxFile& file) {
    return error_of([&] { parse_onnx(file.bytes(), "m.onnx"); });
}

// A network with most kinds of nodes and tensors.
OnnxFile everything() {
    OnnxFile file({0, 1, 4, 4});
    file.constant(floats("w", {2, 1, 3, 3}, normal_values(18, 1)))
        .constant(
            Message().number(1, 2).number(2, 1).text(4, raw(std::vector<float>{1, 2})).text(8, "b"))
        .constant(integers("to", {-1, 8}))
        .constant(tensor("half", {8, 3}, 10, std::string(48, '\x3c')))
        .node("Conv", {"x", "w", "b"}, "c", {ints("pads", {1, 1, 1, 1})})
        .node("Sigmoid", {"c"}, "s")
        .node("Mul", {"c", "s"}, "a")
        .node("AveragePool", {"a"}, "p", {ints("kernel_shape", {2, 2}), ints("strides", {2, 2})})
        .node("Reshape", {"p", "to"}, "flat")
        .node("MatMul", {"flat", "half"}, "y");
    return file;
}

}  // namespace

TEST_CASE("onnx: every node that is not supported is listed, with its name") {
    OnnxFile file({1, 1, 4, 4});
    file.node("Elu", {"x"}, "a")
        .node("InstanceNormalization", {"a"}, "b")
        .node("Relu", {"x"}, "r")
        .node("LRN", {"r"}, "c")
        .node("Add", {"b", "c"}, "d")
        .node("Resize", {"r"}, "e")
        .node("Attention", {"r"}, "f", {}, "com.microsoft")
        .node("Concat", {"d", "e", "f"}, "g", {one_int("axis", 1)})
        .node("GRU", {"x"}, "dead")
        .node("Flatten", {"g"}, "y");
    const std::string text = refusal(file);
    CHECK(contains(text, "m.onnx has 4 nodes that are not supported:\n"));
    for (const char* name :
         {"'/a' (Elu)", "'/c' (LRN)", "'/e' (Resize)", "'/f' (com.microsoft::Attention)"})
        CHECK(contains(text, name));
    // What comes after them is not at fault; what the output does not need does not matter.
    for (const char* name : {"/g", "/d'", "/dead"}) CHECK(!contains(text, name));
}

TEST_CASE("onnx: what is no network is refused") {
    const TempFolder folder;
    const std::string path = folder / "text.onnx";
    write_file(path, "hello");
    CHECK(contains(error_of([&] { load_onnx(path); }), "text.onnx is not an ONNX model"));
    CHECK(contains(error_of([&] { load_onnx(folder / "none.onnx"); }), "none.onnx"));

    const auto relu = [](OnnxFile file) { return refusal(file.node("Relu", {"x"}, "y")); };
    CHECK(contains(relu(OnnxFile({1, 2}).add_input("z", {1, 2})), "two inputs, 'x' and 'z'"));
    CHECK(contains(relu(OnnxFile({0, 3, 0, 8})), "no fixed size along axis 2"));
    CHECK(contains(relu(OnnxFile({1, 2, 3, 4, 5})), "[1, 2, 3, 4, 5]"));
    CHECK(
        contains(relu(OnnxFile({1, int64_t(1) << 40, int64_t(1) << 40, 2})), "too many elements"));
    CHECK(contains(relu(OnnxFile({1, 3, 2, 2})), "output 'y' is a feature map"));
    CHECK(contains(relu(OnnxFile({1, 2}, "z")), "'z' is used before it is computed"));
    CHECK(contains(refusal(OnnxFile({1, 2}).node("Relu", {"y"}, "y")),
                   "'/y' (Relu): 'y' is used before it is computed"));
    CHECK(contains(refusal(OnnxFile({1, 2}).node("Relu", {"x"}, "y").node("Relu", {"x"}, "y")),
                   "'y' is computed twice"));
    CHECK(contains(
        refusal(OnnxFile({1, 2}).node("Constant", {}, "y", {value_of(floats("", {1, 2}, {1, 2}))})),
        "does not depend on the input"));
    CHECK(contains(refusal(OnnxFile({1, 2, 2, 2}).node("Flatten", {"x"}, "y")),
                   "a flattened feature map"));
}

TEST_CASE("onnx: weights that do not fit are refused") {
    const auto with = [](const Message& weights) {
        return refusal(OnnxFile({1, 2}).constant(weights).node("MatMul", {"x", "w"}, "y"));
    };
    CHECK(with(floats("w", {2, 3}, std::vector<float>(6))) == "");
    CHECK(contains(with(floats("w", {3, 2}, std::vector<float>(6))),
                   "'/y' (MatMul): weights [3, 2] on [1, 2]"));
    CHECK(contains(with(floats("w", {2, 3}, std::vector<float>(5))), "has 20 bytes, not 24"));
    CHECK(contains(with(floats("w", {2, 2}, {1, 2, 3, INFINITY})), "not finite"));
    CHECK(contains(with(tensor("w", {2, 1}, 8, "ab")), "ONNX's type 8"));
    CHECK(contains(with(tensor("w", {2, -1}, 1, "")), "a negative size"));
    CHECK(contains(with(tensor("w", {int64_t(1) << 62, 4}, 1, "")), "too many elements"));
    CHECK(contains(with(Message().number(1, 2).number(1, 1).number(2, 1).text(8, "w")),
                   "has not as many values"));
}

TEST_CASE("onnx: weights in a file beside the model") {
    const TempFolder folder;
    const std::string path = folder / "m.onnx";
    const auto with = [&](const std::string& location, const std::string& offset,
                          const std::string& length) {
        const auto entry = [](const char* key, const std::string& value) {
            return Message().text(1, key).text(2, value);
        };
        Message w = Message().number(1, 2).number(1, 1).number(2, 1).text(8, "w").number(14, 1);
        w.message(13, entry("location", location));
        if (!offset.empty()) w.message(13, entry("offset", offset));
        if (!length.empty()) w.message(13, entry("length", length));
        const auto bytes = OnnxFile({1, 2}).constant(w).node("MatMul", {"x", "w"}, "y").bytes();
        write_file(path, bytes.data(), bytes.size());
        return error_of([&] { load_onnx(path); });
    };
    const std::string missing = with("m.onnx.data", "4", "8");
    CHECK(contains(missing, "keeps its weights in 'm.onnx.data', which is not in its folder"));
    CHECK(contains(missing, "copy that file beside the model"));

    write_file(folder / "m.onnx.data", raw(std::vector<float>{7, 1, 2}));
    CHECK(with("m.onnx.data", "4", "8") == "");
    CHECK(with("./m.onnx.data", "4", "") == "");
    const Graph g = load_onnx(path).graph;
    CHECK(std::get<Linear>(g.nodes[1].op).weight.to_vector<float>() == std::vector<float>{1, 2});
    CHECK(contains(with("m.onnx.data", "8", "8"),
                   "8 bytes at byte 8 of 'm.onnx.data', which has 12"));
    CHECK(contains(with("m.onnx.data", "18446744073709551612", "8"), "which has 12"));
    CHECK(contains(with("m.onnx.data", "-4", "8"), "'-4' of its external data is no number"));
    CHECK(contains(with("m.onnx.data", "0", "12"), "12 bytes of external data for 8"));
    for (const char* outside :
         {"/etc/passwd", "../m.onnx.data", "a/../../m.onnx.data", "", "..\\a"})
        CHECK(contains(with(outside, "0", "8"), "outside the model's folder"));
}

TEST_CASE("onnx: a model that is cut short anywhere is refused") {
    const std::vector<uint8_t> whole = everything().bytes();
    CHECK(error_of([&] { parse_onnx(whole, "m.onnx"); }) == "");
    for (size_t n = 0; n < whole.size(); ++n) {
        const std::vector<uint8_t> part(whole.begin(), whole.begin() + std::ptrdiff_t(n));
        INFO(n << " of " << whole.size() << " bytes");
        CHECK(error_of([&] { parse_onnx(part, "m.onnx"); }) != "");
    }
}

TEST_CASE("onnx: a damaged model is read or refused") {
    const std::vector<uint8_t> whole = everything().bytes();
    std::mt19937_64 random(1);
    size_t refused = 0;
    constexpr size_t rounds = 4000;
    for (size_t round = 0; round < rounds; ++round) {
        std::vector<uint8_t> damaged = whole;
        for (size_t i = 0; i <= random() % 3; ++i)
            damaged[random() % damaged.size()] = uint8_t(random());
        refused += error_of([&] { parse_onnx(damaged, "m.onnx"); }) != "";
    }
    CHECK(refused > rounds / 10);
    CHECK(refused < rounds);
}

TEST_CASE("onnx: a small file cannot ask for much") {
    // Messages of two bytes each.
    std::string graph;
    for (size_t i = 0; i < 400000; ++i) graph += std::string("\x0a\0", 2);
    const std::string text = Message().text(7, graph).bytes();
    const std::vector<uint8_t> empty(text.begin(), text.end());
    CHECK(contains(error_of([&] { parse_onnx(empty, "m.onnx"); }), "is not an ONNX model"));

    // Each doubles the one before.
    OnnxFile doubling({1, 2});
    doubling.constant(floats("c0", {1, 2}, {1, 2}));
    for (int i = 0; i < 60; ++i) {
        const std::string from = "c" + std::to_string(i);
        doubling.node("Concat", {from, from}, "c" + std::to_string(i + 1), {one_int("axis", 1)});
    }
    doubling.node("MatMul", {"x", "c60"}, "y");
    CHECK(contains(refusal(doubling), "takes many times its size"));

    OnnxFile huge({1, 2});
    huge.constant(integers("to", {2, int64_t(1) << 35}))
        .node("ConstantOfShape", {"to"}, "w")
        .node("MatMul", {"x", "w"}, "y");
    CHECK(contains(refusal(huge), "takes many times its size"));

    OnnxFile channels({1, 300000, 1, 1});
    channels.node("Concat", {"x", "x"}, "c", {one_int("axis", 1)}).node("Flatten", {"c"}, "y");
    CHECK(contains(refusal(channels), "takes many times its size"));

    OnnxFile longest({1, 2});
    std::string from = "x";
    for (int i = 0; i < 15000; ++i) {
        const std::string to = i + 1 < 15000 ? "a" + std::to_string(i) : "y";
        longest.node("Add", {from, from}, to);
        from = to;
    }
    CHECK(refusal(longest) == "");
}
