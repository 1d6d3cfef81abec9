// Published figures of targets, and a network laid out within them.
#include "hw/target.h"

#include <algorithm>

namespace nc {

namespace {

[[noreturn]] void refuse(const Population& p, const Chip& chip, const std::string& what,
                         const Limit& limit) {
    throw Error("[target] " + chip.name + ": '" + p.name + "' " + what + "; the limit is " +
                    std::to_string(limit.value) + " (" + limit.source + ")",
                ErrorKind::model);
}

// Bits an unsigned value takes.
int bits_of(uint64_t value) {
    int bits = 0;
    for (; value != 0; value >>= 1) ++bits;
    return bits;
}

// Weights a channel's neurons hold: a convolution's kernel once, all others as they are.
uint64_t weights_of_a_channel(const Synapses& s, size_t channels) {
    return s.weight.size() / channels * (s.pooled ? s.pool.kh * s.pool.kw : 1);
}

int delay_of(const IntegerNetwork& net, const Population& p, const Synapses& s) {
    return p.depth - net.populations[s.from].depth - 1 + s.delay;
}

void check_values(const IntegerNetwork& net, const Population& p, const Chip& chip) {
    for (const Synapses& s : p.synapses) {
        for (const int8_t w : s.weight)
            if (chip.weight_bits &&
                bits_of(uint64_t(std::abs(int(w)))) + 1 > chip.weight_bits->value)
                refuse(p, chip, "has a weight of " + std::to_string(w), *chip.weight_bits);
        const int delay = delay_of(net, p, s);
        if (chip.delay && s.from != 0 && delay > chip.delay->value)
            refuse(p, chip,
                   "hears '" + net.populations[s.from].name + "' " + std::to_string(delay) +
                       " steps late",
                   *chip.delay);
        // Pools are counted in events of the source itself.
        if (chip.payload_bits && s.from == 0 && chip.payload_bits->value < 8)
            refuse(p, chip, "hears graded events of 8 bits", *chip.payload_bits);
    }
    for (const int32_t theta : p.threshold)
        if (chip.threshold_bits && bits_of(uint64_t(theta)) > chip.threshold_bits->value)
            refuse(p, chip, "has a threshold of " + std::to_string(theta), *chip.threshold_bits);
    for (const int32_t b : p.bias)
        if (p.spiking && !hears_input(p) && !bias_parts(b, chip))
            refuse(p, chip,
                   "has a bias of " + std::to_string(b) +
                       ", which no mantissa and exponent of its widths give",
                   chip.bias_mantissa_bits ? *chip.bias_mantissa_bits : *chip.bias_exponent_bits);
    if (chip.decay_bits && bits_of(uint64_t(p.decay)) > chip.decay_bits->value)
        refuse(p, chip, "has a decay of " + std::to_string(p.decay), *chip.decay_bits);
}

PlacedPopulation place(const IntegerNetwork& net, const Population& p, const Chip& chip) {
    check_values(net, p, chip);
    PlacedPopulation out;
    out.name = p.name;
    out.neurons = p.size();
    const size_t channels = p.channels(), pixels = p.size() / channels;
    uint64_t weights = 0;  // of one channel
    for (const Synapses& s : p.synapses) {
        weights += weights_of_a_channel(s, channels);
        out.delay = std::max(out.delay, s.from == 0 ? 0 : delay_of(net, p, s));
    }
    out.fan_in = weights;
    if (chip.fan_in && int64_t(out.fan_in) > chip.fan_in->value)
        refuse(p, chip, "has neurons of " + std::to_string(out.fan_in) + " synapses", *chip.fan_in);
    const uint64_t bits = weights * uint64_t(chip.weight_bits ? chip.weight_bits->value : 8);
    size_t most = p.size();  // neurons of a core
    if (chip.neurons_per_core) most = std::min(most, size_t(chip.neurons_per_core->value));
    size_t wide = std::min(channels, most);  // channels of a core
    if (chip.bits_per_core && bits > 0) {
        if (bits > uint64_t(chip.bits_per_core->value))
            refuse(p, chip,
                   "has " + std::to_string(weights) + " weights a neuron, " + std::to_string(bits) +
                       " bits of a core's memory",
                   *chip.bits_per_core);
        wide = std::min(wide, size_t(uint64_t(chip.bits_per_core->value) / bits));
    }
    const size_t slices = (channels + wide - 1) / wide;
    wide = (channels + slices - 1) / slices;  // evenly
    const size_t high = std::min(pixels, std::max<size_t>(1, most / wide));
    const size_t parts = (pixels + high - 1) / high;
    out.cores = slices * parts;
    out.neurons_of_a_core = wide * ((pixels + parts - 1) / parts);
    out.bits_of_a_core = bits * wide;
    out.bits = bits * channels * parts;
    return out;
}

Json limits(const Chip& chip) {
    Json out;
    const auto add = [&](const char* name, const std::optional<Limit>& limit) {
        out[name] =
            limit ? Json{{"value", limit->value}, {"source", limit->source}} : Json(nullptr);
    };
    add("cores_per_chip", chip.cores);
    add("neurons_per_core", chip.neurons_per_core);
    add("memory_bits_per_core", chip.bits_per_core);
    add("weight_bits", chip.weight_bits);
    add("fan_in", chip.fan_in);
    add("delay", chip.delay);
    add("threshold_bits", chip.threshold_bits);
    add("bias_mantissa_bits", chip.bias_mantissa_bits);
    add("bias_exponent_bits", chip.bias_exponent_bits);
    add("decay_bits", chip.decay_bits);
    add("state_bits", chip.state_bits);
    add("payload_bits", chip.payload_bits);
    return out;
}

}  // namespace

Target digital_45nm() {
    const std::string source =
        "M. Horowitz, Computing's energy problem, ISSCC 2014, 45 nm, 0.9 V, 32-bit float: ";
    return {"digital-45nm",
            {4.6, source + "multiplication 3.7 pJ and addition 0.9 pJ"},
            {0.9, source + "addition 0.9 pJ"}};
}

Chip loihi2() {
    const std::string brief = "Intel Labs, Loihi 2 technology brief, 2021";
    const std::string lava = "Lava, bit-accurate process models of LIF and Dense";
    Chip c;
    c.name = "loihi2";
    c.cores = {128, brief};
    c.neurons_per_core = {8192, brief + ": a million neurons over 128 cores"};
    c.bits_per_core = {int64_t(192) * 1024 * 8,
                       brief + ": 192 KB a core, divided as the network needs"};
    c.weight_bits = {8, lava};
    // Of Loihi 2 itself no figure is published; its software trains within the first Loihi's.
    c.delay = {62, "lava-dl, Delay(max_delay = 62)"};
    c.threshold_bits = {17, lava};
    c.bias_mantissa_bits = {13, lava};
    c.bias_exponent_bits = {3, lava};
    c.decay_bits = {12, lava};
    c.state_bits = {24, lava};
    c.payload_bits = {32, brief + ": graded spikes of up to 32 bits"};
    return c;
}

Chip chip_named(const std::string& name) {
    if (name == "loihi2" || name == "loihi" || name == "loihi2_sim") return loihi2();
    throw Error("[target] unknown target '" + name + "'", ErrorKind::usage,
                suggestion(name, {"loihi2"}));
}

bool hears_input(const Population& p) {
    return std::any_of(p.synapses.begin(), p.synapses.end(),
                       [](const Synapses& s) { return s.from == 0; });
}

std::optional<BiasParts> bias_parts(int32_t bias, const Chip& chip) {
    const int64_t most = int64_t(1)
                         << (chip.bias_mantissa_bits ? chip.bias_mantissa_bits->value - 1 : 31);
    const int last = chip.bias_exponent_bits ? (1 << chip.bias_exponent_bits->value) - 1 : 31;
    int64_t mantissa = bias;
    for (int exponent = 6; exponent <= last; ++exponent, mantissa /= 2) {
        if (mantissa >= -most && mantissa < most) return BiasParts{int32_t(mantissa), exponent};
        if (mantissa % 2 != 0) break;
    }
    return std::nullopt;
}

Placement place(const IntegerNetwork& net, const Chip& chip) {
    Placement out;
    out.chip = chip;
    for (size_t i = 1; i < net.populations.size(); ++i) {
        const PlacedPopulation placed = place(net, net.populations[i], chip);
        out.neurons += placed.neurons;
        out.cores += placed.cores;
        out.bits += placed.bits;
        out.populations.push_back(placed);
    }
    if (chip.cores)
        out.chips = (out.cores + size_t(chip.cores->value) - 1) / size_t(chip.cores->value);
    return out;
}

Json to_json(const Placement& p) {
    Json populations = Json::array();
    for (const PlacedPopulation& l : p.populations)
        populations.push_back({{"name", l.name},
                               {"neurons", l.neurons},
                               {"cores", l.cores},
                               {"neurons_of_the_fullest_core", l.neurons_of_a_core},
                               {"synapse_bits_of_the_fullest_core", l.bits_of_a_core},
                               {"synapse_bits", l.bits},
                               {"fan_in", l.fan_in},
                               {"delay", l.delay}});
    return {{"target", p.chip.name},
            {"label", "modelled: weights only, without addresses, routes and neuron states"},
            {"neurons", p.neurons},
            {"cores", p.cores},
            {"chips", p.chips > 0 ? Json(p.chips) : Json(nullptr)},
            {"synapse_bits", p.bits},
            {"populations", populations},
            {"limits", limits(p.chip)}};
}

}  // namespace nc
