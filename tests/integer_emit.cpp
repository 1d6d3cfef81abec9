// Writes the RTL, or the C++ for HLS, of a test network: integer_emit
// mixed|small|coarse SAMPLES T LANES FOLDER [temporal] [pipelined] [hls].
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "hw/hls.h"
#include "tests/integer_networks.h"

using namespace nc;
using namespace nc::test;

namespace {

IntegerBuilder network(const std::string& name) {
    if (name == "mixed") {  // every kind of synapse, and IF neurons beside leaky ones
        IntegerBuilder b = integer_residual(4);
        b.net.populations[2].decay = 1365;
        b.net.populations[4].decay = 600;
        return b;
    }
    if (name == "small") return integer_mlp({16, 24, 16, 4}, 5);
    if (name == "coarse") {  // everything a multiple of 16: membranes often meet their threshold
        IntegerBuilder b = integer_mlp({16, 24, 16, 4}, 5);
        for (Population& p : b.net.populations) {
            for (Synapses& s : p.synapses)
                for (int8_t& w : s.weight) w = int8_t(w / 16 * 16);
            for (int32_t& x : p.bias) x = x / 16 * 16;
            for (int32_t& x : p.threshold) x = x / 32 * 32 + 32;
        }
        return b;
    }
    throw Error("no network " + name, ErrorKind::usage);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 6) return 2;
    try {
        IntegerBuilder b = network(argv[1]);
        const size_t N = size_t(std::atoi(argv[2]));
        const int T = std::atoi(argv[3]);
        RtlOptions options;
        bool pipelined = false, hls = false;
        for (int i = 6; i < argc; ++i) {
            options.temporal |= std::strcmp(argv[i], "temporal") == 0;
            pipelined |= std::strcmp(argv[i], "pipelined") == 0;
            hls |= std::strcmp(argv[i], "hls") == 0;
        }
        const FpgaPlan plan = fpga_plan(b.net, T, size_t(std::atoi(argv[4])), pipelined);
        const auto events = b.events(N * size_t(options.temporal ? T : 1));
        const RtlReport report =
            (hls ? write_hls : write_rtl)(b.net, plan, events, N, T, argv[5], options);
        std::printf(
            "%zu files; %llu of %llu neuron-steps spike; a step takes %llu cycles at most, "
            "took %llu\n",
            report.files.size(), (unsigned long long)report.run.spikes,
            (unsigned long long)report.run.neuron_steps, (unsigned long long)report.step_bound,
            (unsigned long long)report.run.worst_step);
    } catch (const Error& e) {
        std::fprintf(stderr, "error: %s\n", e.what());
        return 1;
    }
    return 0;
}
