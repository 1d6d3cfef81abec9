// Loihi in integers: recorded vectors of Lava, and single neurons by hand.
#include "hw/loihi.h"
#include "io/json.h"
#include "io/npy.h"
#include "tests/check.h"
#include "tests/integer_networks.h"

using namespace nc;
using namespace nc::test;

namespace {

// A file of NC_GOLDEN, or "" after saying that the case is skipped.
std::string golden_or_skip(const std::string& file) {
    const char* root = std::getenv("NC_GOLDEN");
    if (!root || !*root) {
        skip("NC_GOLDEN is not set");
        return "";
    }
    const std::string path = std::string(root) + "/" + file;
    if (!std::filesystem::exists(path)) {
        skip("NC_GOLDEN has no " + file);
        return "";
    }
    return path;
}

// [rows][columns] of a JSON value, and the same transposed, flat.
std::vector<int32_t> flat(const Json& rows) {
    std::vector<int32_t> out;
    for (const auto& row : rows)
        for (const auto& x : row) out.push_back(x.get<int32_t>());
    return out;
}
std::vector<int32_t> transposed(const Json& rows) {
    std::vector<int32_t> out;
    for (size_t j = 0; !rows.empty() && j < rows[0].size(); ++j)
        for (const auto& row : rows) out.push_back(row[j].get<int32_t>());
    return out;
}

std::vector<const kernels::Table<float>*> every_table() {
    auto out = tables_to_test();
    out.push_back(&kernels::reference());
    return out;
}

}  // namespace

TEST_CASE("golden: every Lava case gives its u, v and s on every table") {
    const std::string path = golden_or_skip("loihi/lava_lif_vectors.json");
    if (path.empty()) return;
    const Json file = read_json(path);
    CHECK(file.at("cases").size() > 0);
    for (const auto* table : every_table()) {
        Compute compute(*table, 1);
        for (const Json& c : file.at("cases")) {
            const std::string name = c.at("name");
            CAPTURE(name);
            CAPTURE(table->name);
            const Json &lif = c.at("lif"), &dense = c.at("dense");
            for (const auto& item : dense.items()) {
                const std::string& key = item.key();
                CHECK_MESSAGE((key == "weight_exp" || key == "num_weight_bits" ||
                               key == "num_message_bits" || key == "sign_mode"),
                              key);
            }
            LavaDense synapses;
            synapses.weight = flat(c.at("weights"));
            synapses.weight_exp = dense.value("weight_exp", 0);
            synapses.weight_bits = dense.value("num_weight_bits", 8);
            synapses.message_bits = dense.value("num_message_bits", 0);
            LavaLif neurons;
            neurons.du = lif.at("du");
            neurons.dv = lif.at("dv");
            neurons.vth = lif.at("vth");
            neurons.bias_mant = lif.value("bias_mant", 0);
            neurons.bias_exp = lif.value("bias_exp", 0);
            const size_t n = c.at("weights").size(), inputs = c.at("spikes_in").size();
            const size_t steps = c.at("steps");
            const auto initial = [&](const char* key) {
                if (!lif.contains(key)) return std::vector<int32_t>();
                if (lif.at(key).is_array()) return lif.at(key).get<std::vector<int32_t>>();
                return std::vector<int32_t>(n, lif.at(key).get<int32_t>());
            };
            neurons.u = initial("u");
            neurons.v = initial("v");
            const LavaTrace trace = run_lava(compute, synapses, neurons,
                                             transposed(c.at("spikes_in")), n, inputs, steps);
            CHECK(trace.u == transposed(c.at("u")));
            CHECK(trace.v == transposed(c.at("v")));
            const std::vector<int32_t> s(trace.s.begin(), trace.s.end());
            CHECK(s == transposed(c.at("s")));
        }
    }
}

TEST_CASE("golden: a recorded Loihi run of 256 neurons over 2000 steps, spike for spike") {
    const std::string path = golden_or_skip("loihi/dense/weight.npy");
    if (path.empty()) return;
    const std::string folder = std::filesystem::path(path).parent_path().string();
    const auto integers = [&](const std::string& file, size_t& rows, size_t& columns) {
        const Tensor t = load_npy(folder + "/" + file);
        rows = t.shape()[0];
        columns = t.shape()[1];
        std::vector<int32_t> out;
        if (t.dtype() == DType::f64)
            for (const double x : t.to_vector<double>()) out.push_back(int32_t(x));
        else if (t.dtype() == DType::f32)
            for (const float x : t.to_vector<float>()) out.push_back(int32_t(x));
        else if (t.dtype() == DType::i64)
            for (const int64_t x : t.to_vector<int64_t>()) out.push_back(int32_t(x));
        else
            out = t.to_vector<int32_t>();
        return out;
    };
    size_t neurons = 0, inputs = 0, in_rows = 0, steps = 0, out_rows = 0, out_steps = 0;
    LavaDense dense;
    dense.weight = integers("weight.npy", neurons, inputs);
    const auto in = integers("in.npy", in_rows, steps);
    const auto want = integers("out.npy", out_rows, out_steps);
    REQUIRE((in_rows == inputs && out_rows == neurons && out_steps == steps));
    std::vector<int32_t> spikes(in.size());
    for (size_t i = 0; i < inputs; ++i)
        for (size_t t = 0; t < steps; ++t) spikes[t * inputs + i] = in[i * steps + t];
    LavaLif lif;
    lif.du = 4095;
    lif.dv = 415;
    lif.vth = 6;
    Compute compute;
    const LavaTrace trace = run_lava(compute, dense, lif, spikes, neurons, inputs, steps);
    size_t different = 0, sent = 0;
    for (size_t n = 0; n < neurons; ++n)
        for (size_t t = 0; t < steps; ++t) {
            different += (want[n * steps + t] != 0) != (trace.s[t * neurons + n] != 0);
            sent += want[n * steps + t] != 0;
        }
    CHECK(different == 0);
    CHECK(sent > 1000);
}

TEST_CASE("lava: stored weights by hand") {
    using Signs = LavaDense::Signs;
    const auto stored = [](std::vector<int32_t> weight, int bits, Signs signs) {
        LavaDense dense;
        dense.weight = std::move(weight);
        dense.weight_bits = bits;
        dense.signs = signs;
        return stored_weights(dense);
    };
    using V = std::vector<int32_t>;
    CHECK(stored({-300, -3, 3, 255}, 8, Signs::automatic) == V{-256, -4, 2, 254});
    CHECK(stored({7, 300, 0}, 8, Signs::automatic) == V{7, 255, 0});
    CHECK(stored({-7, -300}, 8, Signs::automatic) == V{-7, -255});
    CHECK(stored({-7, -255}, 6, Signs::inhibitory) == V{-4, -252});
    CHECK(stored({-7, 7}, 6, Signs::mixed) == V{-8, 0});
    CHECK(contains(error_of([] {
                       Compute compute;
                       LavaDense dense;
                       dense.weight = {1, 2};
                       run_lava(compute, dense, {}, {0}, 1, 3, 1);
                   }),
                   "2 weights and 1 inputs for 1 neurons, 3 inputs and 1 steps"));
}

TEST_CASE("loihi: sums that no register holds are refused, not wrapped") {
    Compute compute(Device{}, 1);
    const auto refused = [&](size_t inputs) {
        IntegerBuilder b = integer_mlp({inputs, 1, 2}, 1);
        std::fill_n(b.net.populations[1].synapses[0].weight.begin(), inputs, int8_t(127));
        const std::vector<int16_t> events(inputs, 127);
        return error_of([&] { run_loihi(compute, b.net, events, 1, 2, false); });
    };
    CHECK(refused(1000).empty());
    CHECK(contains(refused(2000), "layer1: a weighted sum does not fit 24 bits"));
    CHECK(contains(refused(200000), "which leaves 32 bits"));
}
