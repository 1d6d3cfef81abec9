// The FPGA's integers against Loihi's: every u, v, s and logit, on networks with everything in
// them.
#include "hw/fpga.h"

#include <algorithm>
#include <map>

#include "hw/loihi.h"
#include "hw/rtl.h"
#include "io/bytes.h"
#include "tests/check.h"
#include "tests/integer_networks.h"

using namespace nc;
using namespace nc::test;

namespace {

using Trace = std::map<std::pair<size_t, int>, std::vector<int64_t>>;

ObserveIntegers record(Trace& trace) {
    return [&trace](const IntegerStep& s) {
        auto& at = trace[{s.population, s.t}];
        for (size_t j = 0; j < s.count; ++j) {
            at.push_back(s.u[j]);
            at.push_back(s.v[j]);
            at.push_back(s.bits ? int64_t(s.bits[j / 64] >> j % 64 & 1) : -1);
        }
    };
}

// Runs both; returns how many spikes of how many neuron-steps there were.
std::pair<uint64_t, uint64_t> compare(IntegerBuilder& b, size_t N, int T, bool temporal,
                                      size_t lanes, int threads = 1) {
    Compute compute(Device{}, 1);
    const auto events = b.events(temporal ? N * size_t(T) : N);
    Trace want, got;
    const LoihiRun loihi = run_loihi(compute, b.net, events, N, T, temporal, record(want));
    const FpgaPlan plan = fpga_plan(b.net, T, lanes, lanes % 3 == 1);
    const FpgaRun fpga = run_fpga(plan, b.net, events, N, T, temporal, record(got), threads);
    CHECK(loihi.wraps == 0);
    CHECK(loihi.clips == 0);
    CHECK(want.size() == (b.net.populations.size() - 1) * size_t(T));
    CHECK(got == want);
    CHECK(fpga.logits == loihi.logits);
    CHECK(fpga.spikes == loihi.spikes);
    CHECK(fpga.neuron_steps == loihi.neuron_steps);
    CHECK(fpga.worst_step <= plan.step_bound(temporal));
    return {fpga.spikes, fpga.neuron_steps};
}

}  // namespace

TEST_CASE("fpga: multilayer networks equal Loihi in every u, v, s") {
    for (const int32_t decay : {0, 2048, 1000, 4095})
        for (const size_t lanes : {size_t(1), size_t(4), size_t(8), size_t(64)}) {
            IntegerBuilder b = integer_mlp({20, 33, 17, 5}, lanes + size_t(decay), decay);
            const auto [spikes, steps] = compare(b, 5, 9, false, lanes, 2);
            CHECK(spikes > steps / 100);
            CHECK(spikes < steps);
            IntegerBuilder frames = integer_mlp({20, 33, 17, 5}, lanes, decay);
            compare(frames, 3, 9, true, lanes);
        }
}

TEST_CASE("fpga: convolutions, pools, groups, residuals and delays equal Loihi") {
    for (uint64_t seed = 1; seed <= 6; ++seed)
        for (const bool temporal : {false, true}) {
            IntegerBuilder b = integer_residual(seed);
            if (seed > 3)
                for (auto& p : b.net.populations)
                    if (p.spiking) {
                        p.decay = 2048;
                        p.half_start = seed == 4;
                    }
            const auto [spikes, steps] =
                compare(b, 3, 8, temporal, size_t(1) << seed % 5, int(seed % 2 + 1));
            CHECK(spikes > steps / 50);
            CHECK(spikes < steps / 2);
        }
    IntegerBuilder small = integer_conv(3);
    const auto [spikes, steps] = compare(small, 2, 8, false, 4);
    CHECK(spikes > steps / 50);
}

TEST_CASE("fpga: the input may be heard twice, pooled, and late") {
    IntegerBuilder b({6, 6, 3}, 5);
    const size_t a = b.add({3, 3, 3});
    const auto pool = IntegerBuilder::pool({6, 6, 3}, 2, 2);
    b.conv(0, a, {}, 0, &pool);
    b.diagonal(0, a, 0, &pool);
    b.thresholds(a, 3, 4000);
    const size_t flat = b.add({27});
    b.diagonal(a, flat);  // through a flattening
    b.thresholds(flat, 27, 60);
    const size_t last = b.add({4}, false);
    b.linear(flat, last);
    b.linear(0, last, 3);
    compare(b, 3, 7, false, 4);
    compare(b, 3, 7, true, 4);
}

TEST_CASE("fpga: plans prove widths, bound cycles and refuse what does not fit, by name") {
    // One neuron, weights by hand: |current| up to 127 * 128 + 100 * 128 = 29056 and a bias of 4.
    IntegerBuilder b({2}, 1);
    const size_t n = b.add({1}), last = b.add({1}, false);
    b.linear(0, n);
    b.linear(n, last);
    b.net.populations[n].synapses[0].weight = {127, -100};
    b.net.populations[n].bias = {4};
    b.net.populations[n].threshold = {1000};
    b.net.populations[last].bias = {0};
    b.net.populations[last].synapses[0].weight = {-3};
    FpgaPlan plan = fpga_plan(b.net, 4, 1);
    CHECK(plan.populations[n].accumulator_bits == 16);  // 127 * 127 + 100 * 128 + 4 = 28933
    CHECK(plan.populations[n].membrane_bits == 18);     // 1000 + 4 * 28933 < 2^17
    CHECK(plan.populations[last].accumulator_bits == 3);
    CHECK(plan.populations[last].membrane_bits == 5);
    // Two events and a marker (3 + 2 * 3 + 2 weights), the sweep (1 + 1 + a spike), start and end.
    CHECK(plan.step_bound(true) == (3 + 6 + 2 + 1 + 1 + 1 + 2) + (3 + 3 + 1 + 1 + 1 + 2));
    CHECK(plan.step_bound(false) == (1 + 1 + 1 + 1 + 2) + (3 + 3 + 1 + 1 + 1 + 2));
    b.net.populations[n].decay = 2048;
    CHECK(fpga_plan(b.net, 4).populations[n].membrane_bits == 24);

    const auto refused = [&](auto f) { return error_of(f); };
    CHECK(contains(refused([&] { fpga_plan(b.net, 4, 3); }), "lanes must be a power of 2"));
    CHECK(contains(refused([&] { fpga_plan(b.net, 0); }), "T must be at least 1"));
    CHECK(contains(refused([&] {
                       run_fpga(plan, b.net, {1, 2}, 1, 5, false);
                   }),
                   "T = 5, but widths are proven for up to 4 steps"));
    CHECK(contains(refused([&] { run_fpga(plan, b.net, {1}, 1, 4, false); }), "1 input events"));
    IntegerBuilder wide = integer_mlp({200000, 1}, 1);
    wide.net.populations[1].synapses[0].weight.assign(200000, 127);
    CHECK(contains(refused([&] { fpga_plan(wide.net, 4); }),
                   "readout1: its accumulators need 33 bits"));
    CHECK(contains(refused([&] {
                       fpga_plan(integer_mlp({784, 2}, 1).net, 1 << 30);
                   }),
                   "readout1: its membranes need"));
}

TEST_CASE("rtl: writes a folder once, and refuses by name what its cores do not have") {
    TempFolder folder;
    IntegerBuilder b = integer_mlp({6, 5, 3}, 2);
    const FpgaPlan plan = fpga_plan(b.net, 3, 2);
    const auto events = b.events(2);
    const auto write = [&](bool force) {
        return write_rtl(b.net, plan, events, 2, 3, folder / "rtl", {.force = force});
    };
    const RtlReport report = write(false);
    CHECK(report.run.cycles.size() == 2);
    CHECK(report.run.worst_step <= report.step_bound);
    for (const std::string& file : report.files) CHECK(!read_file(folder / "rtl/" + file).empty());
    CHECK(contains(error_of([&] { write(false); }), "is not empty"));
    CHECK(write(true).files == report.files);
    // Every event of the stimulus is a line; the readout's last sums are the logits.
    const auto lines = [&](const std::string& file) {
        const auto bytes = read_file(folder / "rtl/" + file);
        return size_t(std::count(bytes.begin(), bytes.end(), '\n'));
    };
    CHECK(lines("stimulus.hex") == 2 * 6);
    CHECK(lines("expected/core_1.hex") == 2 * 3 * 5);
    CHECK(lines("expected/logits.hex") == 2 * 3);

    const auto refused = [&](IntegerBuilder& n, const std::string& why) {
        const FpgaPlan p = fpga_plan(n.net, 2);
        const auto x = n.events(1);
        CHECK(contains(error_of([&] { write_rtl(n.net, p, x, 1, 2, folder / "no"); }), why));
        CHECK_FALSE(std::filesystem::exists(folder / "no"));
    };
    IntegerBuilder late({4}, 1);
    late.linear(0, late.add({2}, false), 1);
    refused(late, "readout1: a static input has no delay");
    IntegerBuilder map({4, 4, 1}, 1);
    map.conv(0, map.add({4, 4, 2}, false), {});
    refused(map, "is no readout of shape [F]");
    IntegerBuilder deaf({4}, 1);
    deaf.thresholds(deaf.add({3}), 3, 9);
    deaf.linear(1, deaf.add({2}, false));
    refused(deaf, "layer1 hears nothing");
    CHECK(contains(error_of([&] { write_rtl(b.net, plan, events, 2, 4, folder / "no"); }),
                   "T = 4, but widths are proven for 1 to 3 steps"));
}
