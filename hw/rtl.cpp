// A folder of SystemVerilog: modules, testbench, stimulus, expected traces, README.
#include "hw/rtl.h"

#include <filesystem>
#include <set>

#include "hw/rtl_writer.h"
#include "io/bytes.h"

namespace nc {
namespace {

using rtl::fail;
using rtl::fill;
using rtl::Row;
using rtl::str;
using rtl::Writer;

std::string hex(int64_t value, size_t bits) {
    Row row;
    row.put(value, bits);
    return row.hex();
}

// By population and sample, what an observer sees: a word {u, v, s} a line, then in words, "t
// neuron u v s". u and v in 1/64 weight, a readout's v in weights.
using Traces = std::vector<std::vector<std::string>>;
ObserveIntegers record(const IntegerNetwork& net, size_t N, Traces& traces) {
    traces.assign(net.populations.size(), std::vector<std::string>(N));
    return [&net, &traces, N](const IntegerStep& step) {
        const size_t size = net.populations[step.population].size();
        for (size_t n = 0; n < N; ++n)
            for (size_t j = 0; j < size; ++j) {
                const size_t at = n * size + j;
                const bool spike = step.bits && (step.bits[at / 64] >> at % 64 & 1);
                Row row;
                row.put(step.u[at], 64);
                row.put(step.v[at], 64);
                row.put(spike, 4);
                std::string line = row.hex();
                line.back() = ' ';
                traces[step.population][n] += line + "// " + std::to_string(step.t) + " " + str(j) +
                                              " " + std::to_string(step.u[at]) + " " +
                                              std::to_string(step.v[at]) +
                                              (spike ? " 1\n" : " 0\n");
            }
    };
}

// Bytes of the stimulus in the order the hardware takes them: sample by sample, frame by frame.
std::string stimulus(const std::vector<int16_t>& input, size_t N, size_t frames, size_t size) {
    std::string out;
    for (size_t n = 0; n < N; ++n)
        for (size_t t = 0; t < frames; ++t)
            for (size_t j = 0; j < size; ++j) {
                const int16_t x = input[(t * N + n) * size + j];
                if (x < -128 || x > 127) fail("an input event of " + std::to_string(x));
                Row row;
                row.put(x, 8);
                out += row.hex();
            }
    return out;
}

std::string testbench(const IntegerNetwork& net, const FpgaPlan& plan, size_t N, int T,
                      size_t frames, uint64_t cycles) {
    const size_t V = size_t(plan.populations.back().membrane_bits);
    const size_t sample = frames * net.populations[0].size();
    std::string checks;
    for (size_t i = 1; i < plan.populations.size(); ++i) {
        const FpgaPopulation& p = plan.populations[i];
        const bool spiking = net.populations[i].spiking;
        checks += fill(rtl::testbench_core,
                       {{"SPIKE", spiking ? "dut.inner.c@I@.spike_row[lane_@I@]" : "1'b0"},
                        {"I", str(i)},
                        {"NAME", p.name},
                        {"COUNT1", str(N * size_t(T) * net.populations[i].size() - 1)},
                        {"SIZE", str(net.populations[i].size())},
                        {"T", std::to_string(T)},
                        {"A1", str(uint64_t(p.accumulator_bits) - 1)},
                        {"V1", str(uint64_t(p.membrane_bits) - 1)},
                        {"A", str(uint64_t(p.accumulator_bits))},
                        {"V", str(uint64_t(p.membrane_bits))},
                        {"L", str(plan.lanes)},
                        {"ROWLANES", str(p.blocks * plan.lanes)},
                        {"C", str(p.channels)},
                        {"VSCALE", std::to_string(spiking ? 64 >> p.fraction : 1)}});
    }
    return fill(rtl::testbench, {{"CHECKS", checks},
                                 {"BYTES1", str((V + 31) / 32 * 32 - 1)},
                                 {"STIMULUS1", str(N * sample - 1)},
                                 {"N", str(N)},
                                 {"LOGITS1", str(N * net.populations.back().size() - 1)},
                                 {"TIMES1", str(N - 1)},
                                 {"FRAMES", str(sample)},
                                 {"LIMIT", str(2 * cycles + 4 * N * (sample + 100))}});
}

std::string readme(const IntegerNetwork& net, const FpgaPlan& plan, size_t N, int T,
                   bool temporal) {
    std::string out =
        "# A spiking network in SystemVerilog\n\n"
        "One core a population: an event queue and an address generator for each of its synapses, "
        "weight memories of " +
        str(plan.lanes) +
        " weights a row, accumulators, and a sweep that "
        "updates, compares, resets and sends. T = " +
        std::to_string(T) + " steps a sample" +
        (temporal ? ", a frame of input at each" : ", the current of the input computed once") +
        (plan.pipelined ? "; layers work at the same time, each a step behind those it hears"
                        : "; one layer after the other") +
        ".\n\n| core | population | shape | neuron | accumulator bits | membrane bits | weight "
        "bytes "
        "| cycles a step, at most |\n|---|---|---|---|---|---|---|---|\n";
    for (size_t i = 1; i < plan.populations.size(); ++i) {
        const FpgaPopulation& p = plan.populations[i];
        const Population& what = net.populations[i];
        size_t bytes = 0;
        for (const FpgaSynapses& s : p.synapses) bytes += s.weight.size();
        out += "| core_" + str(i) + " | " + p.name + " | " + what.shape.str() + " | " +
               (!what.spiking ? "readout"
                : what.decay  ? "LIF"
                              : "IF") +
               " | " + std::to_string(p.accumulator_bits) + " | " +
               std::to_string(p.membrane_bits) + " | " + str(bytes) + " | " + str(p.step_bound) +
               " |\n";
    }
    out +=
        "\nWidths are proven from the weights, biases, thresholds and every possible input for up "
        "to " +
        std::to_string(plan.T) +
        " steps: nothing can overflow. LIF membranes have 6 bits "
        "below the weights' unit.\n\nMemories: " +
        str(plan.memory_bits()) +
        " bits.\n\nCycles of a step, at most: " + str(plan.step_bound(temporal)) +
        ". A core needs 1 + "
        "rows + spikes for its sweep and, a synapse, 3 + 3 events + events x taps x rows of "
        "weights; "
        "the controller 2 around " +
        (plan.pipelined ? "the slowest core" : "each core") +
        "; the bound lets every neuron spike at every step and every input be non-zero.\n\n"
        "## Files\n\n"
        "- network.sv: the whole; network_axis.sv: between AXI streams (a signed byte a beat in, "
        "samples back to back; a logit a beat out, `tlast` with a sample's last).\n"
        "- core_I.sv: a population; syn_I_K.sv: its synapses; nc_ram.sv, nc_rom.sv: memories.\n"
        "- *.hex: what the memories hold; read from the folder the tool runs in.\n"
        "- testbench.sv, stimulus.hex, expected/: " +
        str(N) +
        " samples; core_I.hex has a line for "
        "every sample, step and neuron, a word {u, v, s} and after it `t neuron u v s` in decimal "
        "(u and "
        "v in 1/64 weight; of the readout v is the sum so far, in weights), logits.hex and "
        "cycles.hex "
        "what comes out and how long it takes.\n\n"
        "## Commands, in this folder\n\n"
        "```\n"
        "verilator --lint-only -Wall --top-module network_axis $(ls *.sv | grep -v testbench)\n"
        "verilator --binary -Wno-fatal -Wno-WIDTH --top-module testbench *.sv && "
        "./obj_dir/Vtestbench\n"
        "iverilog -g2012 -s testbench -o testbench.vvp *.sv && vvp -n testbench.vvp\n"
        "yosys -p \"read_verilog -defer -sv $(ls *.sv | grep -v testbench | tr '\\n' ' '); "
        "synth_ice40 -top "
        "network_axis -json network.json; stat\"\n"
        "yosys -p \"read_verilog -defer -sv $(ls *.sv | grep -v testbench | tr '\\n' ' '); "
        "synth_xilinx "
        "-family xc7 -top network_axis; stat\"\n"
        "nextpnr-ice40 --hx8k --package ct256 --json network.json --pcf-allow-unconstrained\n"
        "```\n\n"
        "The testbench ends with `S samples, C compared, D different`; `+samples=S` plays fewer.\n";
    return out;
}

}  // namespace

std::vector<std::string> write_folder(const std::string& folder,
                                      const std::vector<std::pair<std::string, std::string>>& files,
                                      bool force) {
    namespace fs = std::filesystem;
    std::set<fs::path> folders = {folder};
    for (const auto& file : files) folders.insert((fs::path(folder) / file.first).parent_path());
    for (const fs::path& one : folders) {
        std::error_code bad;
        if (fs::exists(one, bad) && !fs::is_directory(one, bad))
            throw Error("[folder] " + one.string() + " is a file", ErrorKind::usage);
        if (fs::is_directory(one, bad) && !fs::is_empty(one, bad) && !force)
            throw Error("[folder] " + one.string() + " is not empty", ErrorKind::usage,
                        "--force overwrites what is there, or choose another name");
    }
    std::vector<std::string> names;
    for (const fs::path& one : folders) make_folder(one.string());
    for (const auto& [name, text] : files) {
        write_file(folder + "/" + name, text);
        names.push_back(name);
    }
    return names;
}

RtlReport write_rtl(const IntegerNetwork& net, const FpgaPlan& plan,
                    const std::vector<int16_t>& input, size_t N, int T, const std::string& folder,
                    const RtlOptions& options) {
    Writer writer(net, plan, T, options.temporal);
    RtlReport out;
    out.step_bound = plan.step_bound(options.temporal);
    Traces traces;
    out.run = run_fpga(plan, net, input, N, T, options.temporal, record(net, N, traces));
    writer.run();
    auto& files = writer.files;
    const size_t frames = size_t(options.temporal ? T : 1);
    uint64_t cycles = 0;
    std::string all_cycles, logits;
    for (const uint64_t c : out.run.cycles) {
        cycles += c;
        all_cycles += hex(int64_t(c), 32);
    }
    for (const int64_t logit : out.run.logits) logits += hex(logit, 64);
    files.push_back({"stimulus.hex", stimulus(input, N, frames, net.populations[0].size())});
    files.push_back({"testbench.sv", testbench(net, plan, N, T, frames, cycles)});
    files.push_back({"expected/cycles.hex", all_cycles});
    files.push_back({"expected/logits.hex", logits});
    for (size_t i = 1; i < traces.size(); ++i) {
        std::string text;
        for (const std::string& sample : traces[i]) text += sample;
        files.push_back({"expected/core_" + str(i) + ".hex", text});
    }
    files.push_back({"README.md", readme(net, plan, N, T, options.temporal)});
    out.files = write_folder(folder, files, options.force);
    return out;
}

}  // namespace nc
