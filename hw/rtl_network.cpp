// The top: the controller of all cores, the input's events, the logits' way out.
#include "hw/rtl_writer.h"

namespace nc::rtl {

void check_cores(const IntegerNetwork& net, const FpgaPlan& plan, int T, bool temporal) {
    const size_t P = plan.populations.size();
    if (T < 1 || T > plan.T)
        fail("T = " + std::to_string(T) + ", but widths are proven for 1 to " +
             std::to_string(plan.T) + " steps");
    for (size_t i = 1; i < P; ++i) {
        const FpgaPopulation& p = plan.populations[i];
        if (p.synapses.empty()) fail(p.name + " hears nothing");
        if (!net.populations[i].spiking && i + 1 < P)
            fail(p.name + ": only the last population may be a readout");
        for (const FpgaSynapses& s : p.synapses)
            if (s.from == 0 && s.delay > 0 && !temporal)
                fail(p.name + ": a static input has no delay");
    }
    const FpgaPopulation& readout = plan.populations.back();
    if (net.populations.back().spiking || readout.height * readout.width != 1)
        fail(readout.name + " is no readout of shape [F]");
}

Writer::Writer(const IntegerNetwork& net, const FpgaPlan& plan, int T, bool temporal)
    : net_(net), plan_(plan), T_(T), temporal_(temporal) {
    check_cores(net, plan, T, temporal);
}

void Writer::run() {
    files.push_back({"nc_ram.sv", rtl::ram});
    files.push_back({"nc_rom.sv", rtl::rom});
    for (size_t i = 1; i < plan_.populations.size(); ++i) {
        for (size_t k = 0; k < plan_.populations[i].synapses.size(); ++k) synapses(i, k);
        core(i);
    }
    network();
}

void Writer::network() {
    const size_t P = plan_.populations.size(), L = plan_.lanes;
    const FpgaPopulation &input = plan_.populations[0], &readout = plan_.populations[P - 1];
    const Fields in(input, true);
    const size_t V = size_t(readout.membrane_bits), OR = row_wires(P - 1);
    const int depth = net_.populations.back().depth;
    const int super = plan_.pipelined ? T_ + depth - 1 : T_;
    const std::string TN = str(wires_for(size_t(super) + 1));

    // Places of the input's elements.
    std::string walk, carry = "in_valid && in_ready", last, zero, counters;
    const std::pair<std::string, size_t> axes[] = {
        {"in_c", input.channels}, {"in_x", input.width}, {"in_y", input.height}};
    for (const auto& [name, count] : axes) {
        if (count == 1) continue;
        const std::string D = str(wires_for(count)) + "'d";
        counters += counter(name, count);
        walk += "            if (" + carry + ") " + name + " <= " + name + " == " + D +
                str(count - 1) + " ? " + D + "0 : " + name + " + " + D + "1;\n";
        const std::string end = name + " == " + D + str(count - 1);
        carry += " && " + end;
        last += (last.empty() ? "" : " && ") + end;
        zero += "            " + name + " <= " + D + "0;\n";
    }
    std::string places = counters + "    assign in_last = " + (last.empty() ? "1'b1" : last) +
                         ";\n    assign in_event = {state == MARK" + (in.y ? ", in_y" : "") +
                         (in.x ? ", in_x" : "") + (in.c ? ", in_c" : "") + ", in_data};\n";
    if (!walk.empty())
        places += "    always_ff @(posedge clk)\n        if (state == CLEAR) begin\n" + zero +
                  "        end else begin\n" + walk + "        end\n";

    std::string cores, active;
    for (size_t i = 1; i < P; ++i) {
        const FpgaPopulation& p = plan_.populations[i];
        const std::string n = str(i), at = str(i - 1);
        const Fields out(p, false);
        if (net_.populations[i].spiking)
            cores += "    logic push_" + n + ";\n    logic [" + str(out.wide() - 1) + ":0] event_" +
                     n + ";\n";
        cores += "    core_" + n + " c" + n + " (\n        .clk(clk), .rst(rst), .clear(clear),";
        for (size_t k = 0; k < p.synapses.size(); ++k) {
            const size_t from = p.synapses[k].from;
            cores += " .push_" + str(k) + "(" + (from ? "push_" + str(from) : "in_push") +
                     "), .event_" + str(k) + "(" + (from ? "event_" + str(from) : "in_event") +
                     "),";
        }
        if (loads(i)) cores += " .load(state == LOAD),";
        if (net_.populations[i].spiking)
            cores += " .push(push_" + n + "), .event_out(event_" + n + "),";
        else
            cores += " .out_row(out_row), .out_sums(out_sums),";
        cores += "\n        .go(state == STEP && active[" + at + "]), .busy(busy[" + at + "]));\n";
        const int d = net_.populations[i].depth - 1;
        if (plan_.pipelined) {
            std::string when = "1'b1";
            if (d > 0) when = "t >= " + TN + "'d" + std::to_string(d);
            if (T_ + d < super)
                when = (d > 0 ? when + " && " : "") + "t < " + TN + "'d" + std::to_string(T_ + d);
            active += "    assign active[" + at + "] = " + when + ";\n";
        }
    }
    const std::string PN = str(P - 1);
    if (!plan_.pipelined)
        active = "    always_ff @(posedge clk)\n        if (clear || step_end) active <= " + PN +
                 "'d1;\n        else if (state == STEPPING && busy == " + PN +
                 "'d0) active <= active << 1;\n";

    const size_t LB = bits_for(L), rows = readout.rows;
    const size_t last_lane = (readout.channels - 1) % L;
    std::string output;
    const std::string R = str(OR) + "'d", LD = str(LB) + "'d";
    if (LB > 0) {
        output += "    logic [" + str(LB - 1) + ":0] out_lane;\n    assign out_data =\n";
        for (size_t l = 0; l < L; ++l)
            output += "        " + (l + 1 < L ? "out_lane == " + LD + str(l) + " ? " : "") +
                      "out_sums[" + str(l * V + V - 1) + ":" + str(l * V) + "]" +
                      (l + 1 < L ? " :\n" : ";\n");
    } else {
        output += "    assign out_data = out_sums;\n";
    }
    output +=
        "    assign out_last = out_row == " + R + str(rows - 1) +
        (LB > 0 ? " && out_lane == " + LD + str(last_lane) : "") +
        ";\n    always_ff @(posedge clk)\n        if (clear) begin\n            out_row <= " + R +
        "0;\n" + (LB > 0 ? "            out_lane <= " + LD + "0;\n" : "") +
        "        end else if (out_valid && out_ready) begin\n";
    if (LB > 0)
        output += "            out_lane <= out_lane + " + LD +
                  "1;\n            if (out_lane == " + LD + str(L - 1) + ") out_row <= out_row + " +
                  R + "1;\n";
    else
        output += "            out_row <= out_row + " + R + "1;\n";
    output += "        end\n";

    std::string next = "STEP";
    if (temporal_)
        next = plan_.pipelined && super > T_
                   ? "t < " + TN + "'d" + std::to_string(T_ - 1) + " ? RECEIVE : STEP"
                   : "RECEIVE";
    const Gaps gaps = {
        {"SUMMARY", str(P - 1) + " cores, " + str(L) + " lanes, T = " + std::to_string(T_) +
                        (temporal_ ? ", a frame a step" : ", static samples")},
        {"CORES", cores},
        {"INPUT", places},
        {"OUTPUT", output},
        {"ACTIVE", active},
        {"OUT1", str(V - 1)},
        {"T1", str(wires_for(size_t(super) + 1) - 1)},
        {"TN", TN},
        {"PIPELINED", plan_.pipelined ? "; every core a step behind those it hears" : ""},
        {"P1", str(P - 2)},
        {"PN", PN},
        {"E1", str(in.wide() - 1)},
        {"OR1", str(OR - 1)},
        {"OUTROW1", str(L * V - 1)},
        {"LASTCORE", plan_.pipelined ? "" : " && active[" + str(P - 2) + "]"},
        {"TLAST", std::to_string(super - 1)},
        {"AFTERMARK", temporal_ ? "STEP" : "LOAD"},
        {"NEXTSTEP", next}};
    files.push_back({"network.sv", fill(rtl::network, gaps)});
    const size_t bytes = (V + 31) / 32 * 32;
    files.push_back(
        {"network_axis.sv", fill(rtl::axis, {{"BYTES1", str(bytes - 1)},
                                             {"OUT1", str(V - 1)},
                                             {"EXTENDED", widened("logit", V, bytes)}})});
}

}  // namespace nc::rtl
