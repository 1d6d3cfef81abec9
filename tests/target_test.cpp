// Placement on a chip: by hand, and every limit named when it does not fit.
#include "hw/target.h"

#include "tests/check.h"
#include "tests/integer_networks.h"

using namespace nc;
using namespace nc::test;

namespace {

// The message of the Error that placing throws.
std::string refused(const IntegerNetwork& net, const Chip& chip) {
    try {
        place(net, chip);
    } catch (const Error& e) {
        CHECK(e.kind == ErrorKind::model);
        return e.what();
    }
    return "";
}

bool names(const std::string& message, const std::string& layer, const std::string& limit) {
    CAPTURE(message);
    return message.find("'" + layer + "'") != std::string::npos &&
           message.find(limit) != std::string::npos;
}

}  // namespace

TEST_CASE("placement: a dense layer by memory, a convolution by neurons") {
    Chip chip;
    chip.name = "toy";
    chip.weight_bits = {8, "made up"};
    chip.cores = {4, "made up"};
    chip.neurons_per_core = {50, "made up"};
    chip.bits_per_core = {3000, "made up"};
    IntegerBuilder dense = integer_mlp({30, 40, 10}, 1);
    for (Population& p : dense.net.populations)
        for (int32_t& b : p.bias) b = 1;
    const Placement d = place(dense.net, chip);
    REQUIRE(d.populations.size() == 2);
    // 30 weights of 8 bits a neuron: 12 neurons fit, 40 take 4 cores of 10.
    CHECK(d.populations[0].fan_in == 30);
    CHECK(d.populations[0].cores == 4);
    CHECK(d.populations[0].neurons_of_a_core == 10);
    CHECK(d.populations[0].bits_of_a_core == 2400);
    CHECK(d.populations[0].bits == 40 * 30 * 8);
    // 40 weights: 9 fit, 10 take 2 cores of 5.
    CHECK(d.populations[1].cores == 2);
    CHECK(d.populations[1].neurons_of_a_core == 5);
    CHECK(d.neurons == 50);
    CHECK(d.cores == 6);
    CHECK(d.chips == 2);

    // 12 x 12 x 4 from one channel by 3 x 3: the kernel, 288 bits, on each of 12 cores of 12
    // pixels.
    const IntegerBuilder conv = integer_conv(2);
    const Placement c = place(conv.net, chip);
    CHECK(c.populations[0].fan_in == 9);
    CHECK(c.populations[0].cores == 12);
    CHECK(c.populations[0].neurons_of_a_core == 48);
    CHECK(c.populations[0].bits_of_a_core == 9 * 4 * 8);
    CHECK(c.populations[0].bits == 12 * 9 * 4 * 8);
    // 6 x 6 x 8 through a pool of 4: 144 weights a channel, two channels a core, 25 pixels at most.
    CHECK(c.populations[1].fan_in == 9 * 4 * 4);
    CHECK(c.populations[1].cores == 4 * 2);
    CHECK(c.populations[1].neurons_of_a_core == 2 * 18);
    uint64_t bits = 0, cores = 0;
    for (const PlacedPopulation& p : c.populations) {
        CHECK(p.neurons_of_a_core <= 50);
        CHECK(p.bits_of_a_core <= 3000);
        CHECK(p.cores * p.neurons_of_a_core >= p.neurons);
        bits += p.bits;
        cores += p.cores;
    }
    CHECK(c.bits == bits);
    CHECK(c.cores == cores);
}

TEST_CASE("placement: what does not fit is named, with the layer") {
    IntegerBuilder b = integer_mlp({30, 20, 10}, 3);
    const Chip chip = loihi2();
    CHECK(refused(b.net, chip).empty());
    Chip small = chip;
    small.bits_per_core = {20 * 8 - 1, "memory made up"};
    CHECK(names(refused(b.net, small), "layer1", "memory made up"));
    small = chip;
    small.fan_in = {29, "fan-in made up"};
    CHECK(names(refused(b.net, small), "layer1", "fan-in made up"));
    small.fan_in = {30, "fan-in made up"};
    CHECK(refused(b.net, small).empty());
    small = chip;
    small.weight_bits = {4, "weights made up"};
    CHECK(names(refused(b.net, small), "layer1", "weights made up"));
    small = chip;
    b.net.populations[1].threshold[3] = 131071;
    CHECK(refused(b.net, small).empty());
    small.threshold_bits = {16, "thresholds made up"};
    CHECK(names(refused(b.net, small), "layer1", "thresholds made up"));

    IntegerBuilder r = integer_residual(4);
    CHECK(refused(r.net, chip).empty());
    small = chip;
    small.delay = {1, "delays made up"};
    CHECK(names(refused(r.net, small), "layer4", "delays made up"));

    // A bias in a register; with the input's current it needs none.
    IntegerBuilder deep = integer_mlp({30, 20, 20, 10}, 5);
    deep.net.populations[1].bias[0] = 100001;
    CHECK(refused(deep.net, chip).empty());
    deep.net.populations[2].bias[0] = 4097;
    CHECK(names(refused(deep.net, chip), "layer2", "bias of 4097"));
    deep.net.populations[2].bias[0] = -8192;
    CHECK(refused(deep.net, chip).empty());
}

TEST_CASE("placement: mantissa and exponent give the bias back") {
    const Chip chip = loihi2();
    for (int32_t bias = -9000; bias <= 9000; ++bias) {
        const auto parts = bias_parts(bias, chip);
        const bool fits =
            (bias >= -4096 && bias <= 4095) || (bias % 2 == 0 && bias >= -8192 && bias <= 8190);
        CHECK(parts.has_value() == fits);
        if (parts) CHECK(parts->mantissa * (1 << parts->exponent) == bias * 64);
    }
}

TEST_CASE("placement: every limit of a target has its source") {
    const Json limits =
        to_json(place(integer_mlp({3, 4, 2}, 6).net, chip_named("loihi")))["limits"];
    size_t known = 0;
    for (const auto& [key, limit] : limits.items()) {
        if (limit.is_null()) continue;
        ++known;
        CHECK(limit["value"].get<int64_t>() > 0);
        CHECK(limit["source"].get<std::string>().size() > 3);
    }
    CHECK(known > 5);
    CHECK(limits["fan_in"].is_null());
    CHECK_THROWS_AS(chip_named("loihi3"), Error);
}
