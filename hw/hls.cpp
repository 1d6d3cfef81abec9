// A folder of C++ for HLS: fixed templates, a network's constants, and what must come out.
#include "hw/hls.h"

#include "hw/rtl_writer.h"
#include "io/bytes.h"

namespace nc {
namespace {

using rtl::str;

const char* const stand_in =
    R"hls(// A vendor's integers of any width: two's complement, wrapping when assigned.
#pragma once

template <int W>
class ap_int {
 public:
    static_assert(W >= 1 && W <= 63, "width");
    ap_int() : value_(0) {}
    ap_int(long long x) : value_((long long)((unsigned long long)x << (64 - W)) >> (64 - W)) {}
    template <int U>
    ap_int(const ap_int<U>& x) : ap_int((long long)x) {}
    operator long long() const { return value_; }
    ap_int& operator+=(long long x) { return *this = ap_int(value_ + x); }
    ap_int& operator-=(long long x) { return *this = ap_int(value_ - x); }

 private:
    long long value_;
};

template <int W>
class ap_uint {
 public:
    static_assert(W >= 1 && W <= 62, "width");
    ap_uint() : value_(0) {}
    ap_uint(long long x) : value_(x & ((1LL << W) - 1)) {}
    operator long long() const { return value_; }

 private:
    long long value_;
};
)hls";

const char* const spiking =
    R"hls(// What every population and every synapse does; constants come as the classes P and S.
#pragma once

#include @INTERFACE@

#ifndef __SYNTHESIS__
// Defined by main.cpp: what a neuron did at a step.
void trace(long long u, long long v, int s);
#endif

struct Tap {
    int accumulator, weight;
};

struct Event {
    ap_uint<16> y, x;
    ap_uint<24> c;
    ap_int<9> value;
};

template <int SIZE, int KEPT>
struct Queue {
    Event event[KEPT][SIZE];
    int count[KEPT];
};

// Every event's rows of weights, added to rows of accumulators.
template <class S, int ROWS, int A, int SIZE, int KEPT>
void scatter(const Queue<SIZE, KEPT>& queue, int slot, ap_int<A> (&accumulator)[ROWS][LANES]) {
    for (int e = 0; e < queue.count[slot]; ++e) {
        const Event event = queue.event[slot][e];
        const int y = int(event.y), x = int(event.x), c = int(event.c);
        for (int i = S::row_start[y]; i < S::row_start[y + 1]; ++i)
            for (int j = S::column_start[x]; j < S::column_start[x + 1]; ++j)
                for (int b = 0; b < S::blocks; ++b) {
#ifdef __SYNTHESIS__
#pragma HLS pipeline II = 1
#endif
                    const int w = S::row[i].weight + S::column[j].weight + c * S::blocks + b;
                    const int r =
                        S::row[i].accumulator + S::column[j].accumulator + S::first[c] + b;
                    for (int l = 0; l < LANES; ++l) {
#ifdef __SYNTHESIS__
#pragma HLS unroll
#endif
                        const ap_int<8> weight = S::weight[w * LANES + l];
                        if (S::graded) {
                            const ap_int<17> product = weight * event.value;
                            accumulator[r][l] += product;
                        } else {
                            accumulator[r][l] += weight;
                        }
                    }
                }
    }
}

template <class P>
struct Core {
    ap_int<P::accumulator_bits> accumulator[P::rows][LANES], current[P::rows][LANES];
    ap_int<P::membrane_bits> membrane[P::rows][LANES];
    Queue<P::spiking ? P::height * P::width * P::channels : 1, P::kept> sent;
};

template <class P>
ap_int<P::membrane_bits> level(int row, int lane) {
    const int c = row % P::blocks * LANES + lane;
    const int at = P::each ? row / P::blocks * P::channels + c : c;
    return ap_int<P::membrane_bits>(P::threshold[at]);
}

template <class P>
void clear(Core<P>& core) {
    for (int r = 0; r < P::rows; ++r)
        for (int l = 0; l < LANES && r % P::blocks * LANES + l < P::channels; ++l) {
            core.accumulator[r][l] = 0;
            core.current[r][l] = 0;
            core.membrane[r][l] = 0;
            if (P::spiking && P::half_start)
                core.membrane[r][l] = (level<P>(r, l) >> 1) * (1 << P::fraction);
        }
}

// Updates, compares, resets and sends.
template <class P>
void sweep(Core<P>& core, int slot) {
    int count = 0;
    for (int y = 0; y < P::height; ++y)
        for (int x = 0; x < P::width; ++x)
            for (int b = 0; b < P::blocks; ++b)
                for (int l = 0; l < LANES; ++l) {
                    const int c = b * LANES + l, r = (y * P::width + x) * P::blocks + b;
                    if (c >= P::channels) continue;
                    const ap_int<P::accumulator_bits> u =
                        core.accumulator[r][l] + core.current[r][l];
                    const ap_int<P::accumulator_bits> drive = u + P::bias[c];
                    ap_int<P::membrane_bits> v = core.membrane[r][l];
                    if (P::fraction > 0) {  // decays towards zero
                        ap_int<P::membrane_bits + 1> size = v;
                        if (v < 0) size = -size;
                        const ap_int<P::membrane_bits + 14> product = size * (4096 - P::decay);
                        size = product >> 12;
                        if (v < 0) size = -size;
                        v = size;
                    }
                    v += drive * (1 << P::fraction);
                    bool spike = false;
                    if (P::spiking) {
                        const ap_int<P::membrane_bits> theta = level<P>(r, l) * (1 << P::fraction);
                        spike = v >= theta;
                        if (spike) {
                            v -= theta;
                            Event& event = core.sent.event[slot][count++];
                            event.y = y;
                            event.x = x;
                            event.c = c;
                            event.value = 1;
                        }
                    }
                    core.membrane[r][l] = v;
                    core.accumulator[r][l] = 0;
#ifndef __SYNTHESIS__
                    const long long seen = (long long)v;
                    trace((long long)u * 64, P::spiking ? seen * (64 >> P::fraction) : seen, spike);
#endif
                }
    core.sent.count[slot] = count;
}

// A frame's non-zero values.
template <class P, int SIZE, int KEPT>
void receive(const ap_int<8>* input, Queue<SIZE, KEPT>& queue, int slot) {
    int count = 0;
    for (int y = 0; y < P::height; ++y)
        for (int x = 0; x < P::width; ++x)
            for (int c = 0; c < P::channels; ++c) {
                const ap_int<8> value = input[(y * P::width + x) * P::channels + c];
                if (value == 0) continue;
                Event& event = queue.event[slot][count++];
                event.y = y;
                event.x = x;
                event.c = c;
                event.value = value;
            }
    queue.count[slot] = count;
}
)hls";

const char* const main_text =
    R"hls(// Plays the stimulus; every u, v, s and logit must be what the simulator gave.
#include @INTERFACE@

#include <cstdio>
#include <iostream>

using namespace std;

static FILE* expected;
static long compared = 0, different = 0;

static void compare(bool same) {
    ++compared;
    if (!same) ++different;
}

void trace(long long u, long long v, int s) {
    long long want_u, want_v;
    int want_s;
    const int read = fscanf(expected, "%lld %lld %d", &want_u, &want_v, &want_s);
    compare(read == 3 && u == want_u && v == want_v && s == want_s);
}

int main() {
    FILE* stimulus = fopen("stimulus.txt", "r");
    expected = fopen("expected.txt", "r");
    if (!stimulus || !expected) {
        cout << "stimulus.txt or expected.txt is missing\n";
        return 2;
    }
    static ap_int<8> input[FRAMES * INPUTS];
    static ap_int<LOGIT_BITS> logits[LOGITS];
    int samples = 0, value = 0;
    for (bool more = true; more; samples += more) {
        for (int i = 0; i < FRAMES * INPUTS && more; ++i) {
            more = fscanf(stimulus, "%d", &value) == 1;
            input[i] = value;
        }
        if (!more) break;
        network(input, logits);
        for (int k = 0; k < LOGITS; ++k) {
            long long want;
            compare(fscanf(expected, "%lld", &want) == 1 && logits[k] == want);
        }
    }
    cout << samples << " samples, " << compared << " compared, " << different << " different\n";
    return different != 0 || samples == 0;
}
)hls";

// A list of numbers as a constant array.
template <class Values>
std::string array(const std::string& type, const std::string& name, const Values& values) {
    std::string out = "constexpr " + type + " " + name + "[] = {", line;
    for (const auto& x : values) {
        line += std::to_string(x) + ",";
        if (line.size() > 90) {
            out += "\n    " + line;
            line.clear();
        }
    }
    return out + "\n    " + line + "};\n";
}

// Lists of taps, one after the other, and where each begins.
std::string taps(const std::string& name, const std::vector<std::vector<FpgaTap>>& axis) {
    std::string out = "constexpr Tap " + name + "[] = {";
    std::vector<size_t> start = {0};
    for (const auto& list : axis) {
        out += "\n    ";
        for (const FpgaTap& tap : list)
            out.append("{").append(str(tap.accumulator) + ", " + str(tap.weight) + "}, ");
        start.push_back(start.back() + list.size());
    }
    return out + "{0, 0}};\n" + array("int", name + "_start", start);
}

std::string constant(const std::string& name, int64_t value) {
    return "    static constexpr int " + name + " = " + std::to_string(value) + ";\n";
}

// Steps of a population's events that someone may ask for.
size_t kept(const FpgaPlan& plan, size_t i) {
    size_t out = 1;
    for (const FpgaPopulation& p : plan.populations)
        for (const FpgaSynapses& s : p.synapses)
            if (s.from == i) out = std::max(out, size_t(s.delay) + 1);
    return out;
}

std::string data(const IntegerNetwork& net, const FpgaPlan& plan) {
    std::string out =
        "// The network's constants.\n#pragma once\n\n#include \"spiking.h\"\n\nstruct Input {\n" +
        constant("height", int64_t(plan.populations[0].height)) +
        constant("width", int64_t(plan.populations[0].width)) +
        constant("channels", int64_t(plan.populations[0].channels)) + "};\n";
    for (size_t i = 1; i < plan.populations.size(); ++i) {
        const FpgaPopulation& p = plan.populations[i];
        const Population& what = net.populations[i];
        std::vector<int32_t> threshold = what.threshold;
        const bool each = threshold.size() > p.channels;
        if (!each && what.spiking)
            for (size_t c = threshold.size(); c < p.channels; ++c)
                threshold.push_back(what.threshold[c % what.threshold.size()]);
        if (threshold.empty()) threshold = {0};
        const std::string n = str(i);
        out += "\n// " + p.name + "\n" + array("int", "threshold_" + n, threshold) +
               array("int", "bias_" + n, what.bias) + "struct P" + n + " {\n" +
               constant("height", int64_t(p.height)) + constant("width", int64_t(p.width)) +
               constant("channels", int64_t(p.channels)) + constant("blocks", int64_t(p.blocks)) +
               constant("rows", int64_t(p.rows)) + constant("fraction", p.fraction) +
               constant("decay", what.decay) + constant("accumulator_bits", p.accumulator_bits) +
               constant("membrane_bits", p.membrane_bits) +
               constant("kept", int64_t(kept(plan, i))) +
               "    static constexpr bool spiking = " + (what.spiking ? "true" : "false") +
               ", half_start = " + (what.half_start ? "true" : "false") +
               ", each = " + (each ? "true" : "false") +
               ";\n    static constexpr const int *threshold = threshold_" + n + ", *bias = bias_" +
               n + ";\n};\n";
        for (size_t k = 0; k < p.synapses.size(); ++k) {
            const FpgaSynapses& s = p.synapses[k];
            const std::string name = n + "_" + str(k);
            out += taps("row_" + name, s.rows) + taps("column_" + name, s.columns) +
                   array("int", "first_" + name, s.first) +
                   array("signed char", "weight_" + name, s.weight) + "struct S" + name + " {\n" +
                   constant("blocks", int64_t(s.blocks)) +
                   "    static constexpr bool graded = " + (s.from == 0 ? "true" : "false") +
                   ";\n    static constexpr const Tap *row = row_" + name + ", *column = column_" +
                   name + ";\n    static constexpr const int *row_start = row_" + name +
                   "_start, *column_start = column_" + name + "_start, *first = first_" + name +
                   ";\n    static constexpr const signed char *weight = weight_" + name + ";\n};\n";
        }
    }
    return out;
}

std::string network(const FpgaPlan& plan, int T, bool temporal) {
    const size_t P = plan.populations.size(), input_kept = temporal ? kept(plan, 0) : 1;
    std::string out =
        "// One sample through the network, step by step.\n#include \"network.h\"\n\n#include "
        "\"network_data.h\"\n\nvoid network(const ap_int<8> input[FRAMES * INPUTS], "
        "ap_int<LOGIT_BITS> logits[LOGITS]) {\n    static Queue<INPUTS, " +
        str(input_kept) + "> events;\n";
    std::string clears, loads, steps;
    for (size_t i = 1; i < P; ++i) {
        const std::string n = str(i);
        out += "    static Core<P" + n + "> c" + n + ";\n";
        clears += "    clear(c" + n + ");\n";
        for (size_t k = 0; k < plan.populations[i].synapses.size(); ++k) {
            const FpgaSynapses& s = plan.populations[i].synapses[k];
            const std::string call = "scatter<S" + n + "_" + str(k) + ">(";
            if (s.from == 0 && !temporal) {
                loads += "    " + call + "events, 0, c" + n + ".current);\n";
                continue;
            }
            const std::string t = s.delay ? "(t - " + std::to_string(s.delay) + ")" : "t";
            const size_t slots = s.from == 0 ? input_kept : kept(plan, s.from);
            steps += "        " +
                     (s.delay ? "if (t >= " + std::to_string(s.delay) + ") " : std::string()) +
                     call +
                     (s.from == 0 ? "events" : std::string("c").append(str(s.from)) + ".sent") +
                     ", " + t + " % " + str(slots) + ", c" + n + ".accumulator);\n";
        }
        steps += "        sweep(c" + n + ", t % P" + n + "::kept);\n";
    }
    out += clears;
    if (!temporal) out += "    receive<Input>(input, events, 0);\n";
    out += loads + "    for (int t = 0; t < " + std::to_string(T) + "; ++t) {\n";
    if (temporal)
        out += "        receive<Input>(input + t * INPUTS, events, t % " + str(input_kept) + ");\n";
    const std::string last = str(P - 1);
    return out + steps + "    }\n    for (int k = 0; k < LOGITS; ++k) logits[k] = c" + last +
           ".membrane[k / LANES][k % LANES];\n}\n";
}

}  // namespace

RtlReport write_hls(const IntegerNetwork& net, const FpgaPlan& plan,
                    const std::vector<int16_t>& input, size_t N, int T, const std::string& folder,
                    const RtlOptions& options) {
    rtl::check_cores(net, plan, T, options.temporal);
    const size_t frames = size_t(options.temporal ? T : 1), size = net.populations[0].size();
    const size_t K = net.populations.back().size();
    std::vector<std::string> expected(N);
    RtlReport out;
    out.step_bound = plan.step_bound(options.temporal);
    out.run = run_fpga(plan, net, input, N, T, options.temporal, [&](const IntegerStep& step) {
        const size_t neurons = net.populations[step.population].size();
        for (size_t at = 0; at < step.count; ++at) {
            const bool spike = step.bits && (step.bits[at / 64] >> at % 64 & 1);
            expected[at / neurons] += std::to_string(step.u[at]) + " " +
                                      std::to_string(step.v[at]) + (spike ? " 1\n" : " 0\n");
        }
    });
    std::string stimulus, all;
    for (size_t n = 0; n < N; ++n) {
        for (size_t t = 0; t < frames; ++t)
            for (size_t j = 0; j < size; ++j)
                stimulus += std::to_string(input[(t * N + n) * size + j]) + "\n";
        all += expected[n];
        for (size_t k = 0; k < K; ++k) all += std::to_string(out.run.logits[n * K + k]) + "\n";
    }
    const std::string header =
        "// The network's interface.\n#pragma once\n\n#include <ap_int.h>\n\nconstexpr int LANES "
        "= " +
        str(plan.lanes) + ", FRAMES = " + str(frames) + ", INPUTS = " + str(size) +
        ", LOGITS = " + str(K) +
        ";\nconstexpr int LOGIT_BITS = " + std::to_string(plan.populations.back().membrane_bits) +
        ";\n\n// input: signed bytes" + (options.temporal ? ", a frame a step" : "") +
        "; logits: sums over " + std::to_string(T) +
        " steps.\nvoid network(const ap_int<8> input[FRAMES * INPUTS], ap_int<LOGIT_BITS> "
        "logits[LOGITS]);\n";
    const std::string readme =
        "# A spiking network in C++ for high-level synthesis\n\nTop function: `network` in "
        "network.cpp; " +
        str(plan.lanes) +
        " weights a cycle where loops are unrolled. Widths are "
        "proven from the weights for up to " +
        std::to_string(plan.T) + " steps. main.cpp plays " + str(N) +
        " samples and compares every u, v and s (1/64 weight; of the readout v is the sum, in "
        "weights) and every logit.\n\n```\ng++ -std=c++17 -O1 -Wall -Werror -Istand_in main.cpp "
        "network.cpp -o check && ./check\n```\n\nA synthesis tool brings its own ap_int.h: leave "
        "stand_in out. Not synthesised yet: the pragmas are as the vendor's manual has them.\n";
    const rtl::Gaps interface = {{"INTERFACE", "\"network.h\""}};
    const std::vector<std::pair<std::string, std::string>> files = {
        {"network.h", header},
        {"network.cpp", network(plan, T, options.temporal)},
        {"network_data.h", data(net, plan)},
        {"spiking.h", rtl::fill(spiking, interface)},
        {"main.cpp", rtl::fill(main_text, interface)},
        {"stand_in/ap_int.h", stand_in},
        {"stimulus.txt", stimulus},
        {"expected.txt", all},
        {"README.md", readme}};
    out.files = write_folder(folder, files, options.force);
    return out;
}

}  // namespace nc
