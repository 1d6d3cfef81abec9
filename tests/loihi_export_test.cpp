// What is written for Loihi, read back, is the same network; what is damaged is refused.
#include "hw/loihi_export.h"
#include "hw/loihi.h"
#include "tests/check.h"
#include "tests/integer_networks.h"

using namespace nc;
using namespace nc::test;

namespace {

// Everything a run shows.
struct Trace {
    std::vector<int32_t> u, v;
    std::vector<uint64_t> bits;
    std::vector<int64_t> logits;
    int steps = 0;
    bool operator==(const Trace&) const = default;
};

Trace trace(const IntegerNetwork& net, const std::vector<int16_t>& input, size_t N, int T) {
    Compute compute(Device{}, 1);
    Trace out;
    const LoihiRun run = run_loihi(compute, net, input, N, T, false, [&](const IntegerStep& s) {
        out.u.insert(out.u.end(), s.u, s.u + s.count);
        out.v.insert(out.v.end(), s.v, s.v + s.count);
        if (s.bits) out.bits.insert(out.bits.end(), s.bits, s.bits + (s.count + 63) / 64);
    });
    CHECK(run.spikes > 0);
    CHECK(run.spikes < run.neuron_steps);
    out.logits = run.logits;
    out.steps = run.steps;
    return out;
}

IntegerBuilder reset_to_zero(IntegerBuilder b) {
    for (Population& p : b.net.populations) {
        p.reset_to_zero = p.spiking;
        if (p.spiking) p.threshold.assign(1, p.threshold.front());
    }
    return b;
}

}  // namespace

TEST_CASE("loihi export: read back, every network runs the same, value for value") {
    IntegerBuilder networks[] = {integer_mlp({30, 25, 20, 10}, 1),
                                 integer_mlp({30, 25, 10}, 2, 2048), integer_residual(3),
                                 integer_conv(4), reset_to_zero(integer_conv(5))};
    for (IntegerBuilder& b : networks) {
        const size_t N = 3;
        const int T = 9;
        const Json json = parse_json(to_loihi(b.net, T).dump(), "net.json");
        const LoihiFile file = from_loihi(json, "net.json");
        CHECK(file.T == T);
        const auto input = b.events(N);
        const Trace want = trace(b.net, input, N, T);
        CHECK(trace(file.network, input, N, T) == want);
        CHECK(json["steps"] == want.steps);
        CHECK(to_loihi(file.network, T) == json);
        // As a synapse on the chip holds them: even, within 8 bits and a sign.
        for (const Json& p : json["populations"])
            for (const Json& s : p["synapses"]) {
                LavaDense dense;
                dense.weight = s["weight_mantissa"].get<std::vector<int32_t>>();
                dense.signs = LavaDense::Signs::mixed;
                CHECK(stored_weights(dense) == dense.weight);
            }
    }
}

TEST_CASE("loihi export: a neuron that resets to zero runs as Lava's, compared strictly") {
    size_t spikes = 0;
    for (uint64_t seed = 7; seed < 12; ++seed) {
        IntegerBuilder b = reset_to_zero(integer_mlp({12, 9, 4}, seed));
        Population& p = b.net.populations[1];
        p.threshold = {700};
        const int T = 20;
        const auto input = b.events(1);
        Compute compute(Device{}, 1);
        std::vector<int32_t> v, s;
        run_loihi(compute, b.net, input, 1, T, false, [&](const IntegerStep& step) {
            if (step.population != 1) return;
            v.insert(v.end(), step.v, step.v + step.count);
            for (size_t i = 0; i < step.count; ++i) s.push_back(int32_t(step.bits[0] >> i & 1));
        });
        // The same by Lava's own model: graded events, a step of latency, threshold - 1.
        LavaDense dense;
        for (size_t o = 0; o < 9; ++o)
            for (size_t i = 0; i < 12; ++i)
                dense.weight.push_back(2 * p.synapses[0].weight[i * 9 + o]);
        dense.weight_exp = -1;
        dense.message_bits = 8;
        dense.signs = LavaDense::Signs::mixed;
        std::vector<int32_t> events;
        for (int t = 0; t < T + 1; ++t) events.insert(events.end(), input.begin(), input.end());
        for (size_t o = 0; o < 9; ++o) {
            LavaLif lif;
            lif.du = 4095;
            lif.vth = p.threshold[0] - 1;
            // The bias works from the first step on, before any spike arrives: taken off v(0).
            lif.bias_mant = p.bias[o];
            lif.bias_exp = 6;
            lif.v.assign(9, (p.threshold[0] >> 1) * 64 - p.bias[o] * 64);
            const LavaTrace lava = run_lava(compute, dense, lif, events, 9, 12, size_t(T) + 1);
            for (size_t t = 0; t < size_t(T); ++t) {
                CHECK(lava.v[(t + 1) * 9 + o] == v[t * 9 + o]);
                CHECK(lava.s[(t + 1) * 9 + o] == s[t * 9 + o]);
                spikes += size_t(s[t * 9 + o]);
            }
        }
    }
    CHECK(spikes > 20);
    const IntegerBuilder b = reset_to_zero(integer_mlp({12, 9, 4}, 7));
    CHECK(lava_script(b.net, "n.json").find("parent / \"n.json\"") != std::string::npos);
}

TEST_CASE("loihi export: the script for Lava is refused by name") {
    const auto refused = [](const IntegerNetwork& net, const char* layer, const char* why) {
        try {
            lava_script(net, "net.json");
            FAIL("not refused: " << why);
        } catch (const Error& e) {
            CHECK(e.kind == ErrorKind::model);
            CHECK(std::string(e.what()).find(layer) != std::string::npos);
            CHECK(std::string(e.what()).find(why) != std::string::npos);
        }
    };
    IntegerBuilder b = integer_mlp({12, 9, 9, 4}, 8);
    refused(b.net, "'layer1'", "resets to zero");
    b = reset_to_zero(integer_mlp({12, 9, 9, 4}, 8));
    b.net.populations[2].decay = 2048;
    refused(b.net, "'layer2'", "multiples of 64");
    b = reset_to_zero(integer_mlp({12, 9, 9, 4}, 8));
    b.net.populations[2].threshold.assign(9, 50);
    CHECK_NOTHROW(lava_script(b.net, "net.json"));
    b.net.populations[2].threshold[4] = 51;
    refused(b.net, "'layer2'", "several thresholds");
}

TEST_CASE("loihi export: a damaged document is refused, whatever is damaged") {
    IntegerBuilder b = integer_residual(9);
    const Json good = to_loihi(b.net, 4);
    from_loihi(good, "net.json");
    size_t refused = 0, places = 0;
    // Every value of the document in turn, lists but their first element, becomes something else.
    const auto visit = [&](const auto& self, const Json& here, const std::string& at) -> void {
        for (const Json& other : {Json(nullptr), Json("odd"), Json(-1e9), Json::array()}) {
            Json bad = good;
            Json& target = bad[Json::json_pointer(at)];
            if (target == other) continue;
            target = other;
            ++places;
            try {
                from_loihi(bad, "net.json");
            } catch (const Error& e) {
                CHECK(e.kind == ErrorKind::model);
                CHECK(std::string(e.what()).find("net.json") != std::string::npos);
                ++refused;
            }
        }
        if (here.is_object())
            for (const auto& [key, value] : here.items()) self(self, value, at + "/" + key);
        if (here.is_array() && !here.empty()) self(self, here[0], at + "/0");
    };
    for (const auto& [key, value] : good.items()) visit(visit, value, "/" + key);
    Json wide = good;  // sizes whose products leave 64 bits
    for (const char* at : {"/input/shape", "/populations/0/shape"})
        wide[Json::json_pointer(at)] = {32768, 32768, 32768};
    CHECK(contains(error_of([&] { from_loihi(wide, "net.json"); }), "is too large"));
    // What only people read (target, depth, steps, latency, fraction and input bits) is not.
    CHECK(refused > 150);
    CHECK(refused + 60 > places);
    CHECK_THROWS_AS(to_loihi(b.net, 0), Error);
    b.net.populations[3].bias[0] = 4097;
    CHECK_THROWS_AS(to_loihi(b.net, 4), Error);
}
