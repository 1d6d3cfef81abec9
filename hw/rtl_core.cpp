// A population's module: accumulators, membranes, the sweep.
#include "hw/rtl_writer.h"

namespace nc::rtl {

bool Writer::loads(size_t i) const {
    if (temporal_) return false;
    for (const FpgaSynapses& s : plan_.populations[i].synapses)
        if (s.from == 0) return true;
    return false;
}

Writer::Parameters Writer::parameters(size_t i) const {
    const Population& p = net_.populations[i];
    Parameters out;
    for (const int32_t b : p.bias)
        out.bias = std::max(out.bias, size_t(std::bit_width(uint32_t(b < 0 ? ~b : b))) + 1);
    for (const int32_t t : p.threshold)
        out.threshold = std::max(out.threshold, size_t(std::bit_width(uint32_t(t))));
    out.each = p.spiking && p.threshold.size() > p.channels();
    return out;
}

void Writer::write_parameters(size_t i) {
    const Population& p = net_.populations[i];
    const FpgaPopulation& f = plan_.populations[i];
    const Parameters wide = parameters(i);
    std::string text;
    for (size_t r = 0; r < (wide.each ? f.rows : f.blocks); ++r) {
        Row row;
        for (size_t l = plan_.lanes; l-- > 0;) {
            const size_t c = r % f.blocks * plan_.lanes + l;
            const bool there = c < f.channels;
            if (p.spiking) {
                const size_t j = wide.each ? r / f.blocks * f.channels + c : c % p.threshold.size();
                row.put(there ? p.threshold[j] : 1, wide.threshold);
            }
            row.put(there ? p.bias[c] : 0, wide.bias);
        }
        text += row.hex();
    }
    files.push_back({"core_" + str(i) + "_parameters.hex", text});
}

std::string Writer::update(size_t i) const {
    const Population& p = net_.populations[i];
    const FpgaPopulation& f = plan_.populations[i];
    const Parameters wide = parameters(i);
    const size_t V = size_t(f.membrane_bits), A = size_t(f.accumulator_bits);
    const size_t F = size_t(f.fraction), P = wide.bias + wide.threshold;
    const std::string in = "            ";
    std::string drive = "drive";
    if (V > A + F) drive = widened("drive", A, V - F);
    if (F > 0) drive = "{" + drive + ", " + str(F) + "'d0}";
    std::string out;
    if (f.fraction > 0) {
        const std::string v12 = str(V + 12);
        out += in + "logic [" + str(V - 1) + ":0] size, left;\n" + in + "assign size = v[" +
               str(V - 1) + "] ? -v : v;\n" + in + "assign left = " + str(V) + "'((" +
               times(v12 + "'(size)", uint64_t(4096 - p.decay)) + ") >> 12);\n" + in +
               "assign fallen = v[" + str(V - 1) + "] ? -left : left;\n";
    } else {
        out += in + "assign fallen = v;\n";
    }
    out += in + "assign raised = fallen + " + drive + ";\n";
    if (!p.spiking)
        return out + in + "assign changed = mode == CLEAR ? " + str(V) + "'d0 : raised;";
    const std::string TH = str(wide.threshold);
    const std::string zeros = F > 0 ? ", " + str(F) + "'d0" : "";
    out += in + "logic [" + str(wide.threshold - 1) + ":0] threshold;\n" + in + "logic [" +
           str(V - 1) + ":0] level;\n" + in + "assign threshold = parameters[lane*" + str(P) + "+" +
           str(wide.bias) + " +: " + TH + "];\n" + in + "assign level = {" +
           str(V - wide.threshold - F) + "'d0, threshold" + zeros + "};\n" + in +
           "assign spike_row[lane] = $signed(raised) >= $signed(level);\n" + in +
           "assign changed = mode == CLEAR ? ";
    if (!p.half_start || wide.threshold == 1)
        out += str(V) + "'d0";
    else
        out += "{" + str(V - wide.threshold + 1 - F) + "'d0, threshold[" + str(wide.threshold - 1) +
               ":1]" + zeros + "}";
    return out + " :\n" + in + "    spike_row[lane] ? raised - level : raised;";
}

void Writer::core(size_t i) {
    const Population& what = net_.populations[i];
    const FpgaPopulation& p = plan_.populations[i];
    const size_t L = plan_.lanes, K = p.synapses.size(), RW = row_wires(i);
    const size_t A = size_t(p.accumulator_bits), V = size_t(p.membrane_bits);
    const size_t KW = wires_for(K + 1);
    const Parameters wide = parameters(i);
    const Fields out(p, false);
    const bool load = loads(i);
    write_parameters(i);

    std::string ports, instances, wanted, dones, addmux, terms, delays;
    int most_delay = 0;
    for (size_t k = 0; k < K; ++k) most_delay = std::max(most_delay, p.synapses[k].delay);
    const size_t DW = wires_for(size_t(most_delay) + 1);
    std::string rows_or, term_or;
    bool differ = false;
    for (size_t k = 0; k < K; ++k) {
        const FpgaSynapses& s = p.synapses[k];
        const Fields in(plan_.populations[s.from], s.from == 0);
        const std::string n = str(k), E = str(in.wide() - 1), me = str(KW) + "'d" + n;
        const size_t term = s.from == 0 ? 16 : 8;
        ports +=
            "    input  logic push_" + n + ",\n    input  logic [" + E + ":0] event_" + n + ",\n";
        instances += "    logic start_" + n + ", done_" + n + ", add_" + n + ";\n    logic [" +
                     str(RW - 1) + ":0] row_" + n + ";\n    logic [" + str(term * L - 1) +
                     ":0] terms_" + n + ";\n    syn_" + str(i) + "_" + n + " s" + n +
                     " (\n        .clk(clk), .rst(rst), .clear(clear), .push(push_" + n +
                     "), .push_event(event_" + n + "),\n        .start(start_" + n +
                     "), .done(done_" + n + "), .add(add_" + n + "), .row(row_" + n +
                     "), .terms(terms_" + n + "));\n    assign start_" + n +
                     " = state == NEXT && wanted && which == " + me + ";\n";
        std::string due = s.from == 0 && !temporal_ ? "mode == LOAD"
                          : load                    ? "mode == STEP"
                                                    : "1'b1";
        if (s.delay > 0) due += " && step >= " + str(DW) + "'d" + std::to_string(s.delay);
        wanted += (k ? " || " : "") + ("(which == " + me + " && " + due + ")");
        dones += (k ? " || done_" : "done_") + n;
        rows_or += (k ? " | " : "") + ("({" + str(RW) + "{add_" + n + "}} & row_" + n + ")");
        differ = differ || term != (p.synapses[0].from == 0 ? 16 : 8);
    }
    instances += "    logic wanted, done;\n    assign wanted = " + wanted +
                 ";\n    assign done = " + dones + ";\n";
    if (load) ports += "    input  logic load,\n";
    if (K == 1) {
        addmux = "    assign add = add_0;\n    assign add_row = row_0;\n";
    } else {
        std::string any;
        for (size_t k = 0; k < K; ++k) any += (k ? " | add_" : "add_") + str(k);
        addmux = "    assign add = " + any + ";\n    assign add_row = " + rows_or +
                 ";\n    logic [" + str(K - 1) +
                 ":0] adding_from;\n    always_ff @(posedge clk) adding_from <= {";
        for (size_t k = K; k-- > 0;) addmux += "add_" + str(k) + (k ? ", " : "};\n");
    }
    std::string term;
    for (size_t k = 0; k < K; ++k) {
        const size_t bits = p.synapses[k].from == 0 ? 16 : 8;
        const std::string lane =
            "terms_" + str(k) + "[lane*" + str(bits) + " +: " + str(bits) + "]";
        std::string x = lane;
        if (A > bits)
            x = "{{" + str(A - bits) + "{terms_" + str(k) + "[lane*" + str(bits) + "+" +
                str(bits - 1) + "]}}, " + lane + "}";
        else if (A < bits)
            x = "terms_" + str(k) + "[lane*" + str(bits) + " +: " + str(A) + "]";
        term += (k ? " | " : "") +
                (K == 1 ? x : "({" + str(A) + "{adding_from[" + str(k) + "]}} & " + x + ")");
    }
    if (K > 1) term = "(" + term + ")";

    // Block, and the pixel for events.
    std::string block, param_at, finish, spike_row, states, current;
    const size_t BB = wires_for(p.blocks);
    if (p.blocks > 1 && (!wide.each || what.spiking)) {
        const std::string B = str(BB) + "'d";
        block = counter("block", p.blocks) +
                "    logic block_last;\n    assign block_last = block == " + B + str(p.blocks - 1) +
                ";\n";
        if (!wide.each)
            block += "    logic [" + str(BB - 1) +
                     ":0] block_next;\n    assign block_next = state == NEXT "
                     "|| block_last ? " +
                     B + "0 : block + " + B + "1;\n";
        block += "    always_ff @(posedge clk)\n        if (state == NEXT) block <= " + B +
                 "0;\n        else if (row_end) block <= block_last ? " + B + "0 : block + " + B +
                 "1;\n";
    }
    param_at = wide.each ? "row_next" : p.blocks > 1 ? "block_next" : "1'b0";
    if (what.spiking) {
        ports +=
            "    output logic push,\n    output logic [" + str(out.wide() - 1) + ":0] event_out,\n";
        spike_row = "    logic [" + str(L - 1) + ":0] spike_row, mask, lowest;\n";
        const std::string carry = p.blocks > 1 ? " && block_last" : "";
        std::string walk;
        if (out.x > 0) {
            const std::string X = str(out.x) + "'d";
            finish += counter("x", p.width) + "    logic x_last;\n    assign x_last = x == " + X +
                      str(p.width - 1) + ";\n";
            walk += "            if (row_end" + carry + ") x <= x_last ? " + X + "0 : x + " + X +
                    "1;\n";
        }
        if (out.y > 0) {
            const std::string Y = str(out.y) + "'d";
            finish += counter("y", p.height);
            walk += "            if (row_end" + carry + (out.x > 0 ? " && x_last" : "") +
                    ") y <= y + " + Y + "1;\n";
        }
        if (!walk.empty())
            finish += "    always_ff @(posedge clk)\n        if (state == NEXT) begin\n" +
                      (out.x > 0 ? "            x <= " + str(out.x) + "'d0;\n" : "") +
                      (out.y > 0 ? "            y <= " + str(out.y) + "'d0;\n" : "") +
                      "        end else begin\n" + walk + "        end\n";
        // The lowest spike's lane.
        std::string lane;
        for (size_t b = bits_for(L); b-- > 0;) {
            std::string pattern;
            for (size_t l = L; l-- > 0;) pattern += l >> b & 1 ? '1' : '0';
            lane += (lane.empty() ? "" : ", ") + ("|(lowest & " + str(L) + "'b" + pattern + ")");
        }
        std::string place;
        if (out.c > 0) {
            std::string parts = p.blocks > 1 ? "block" : "";
            if (!lane.empty()) parts += (parts.empty() ? "" : ", ") + lane;
            place = ", " + str(out.c) + "'({" + parts + "})";
        }
        finish +=
            "    logic mark;\n"
            "    assign lowest = mask & (~mask + " +
            str(L) +
            "'d1);\n"
            "    assign row_end = state == SWEEP ? !(stepping && |spike_row)\n"
            "                                    : state == PUSH && (mask & ~lowest) == " +
            str(L) +
            "'d0;\n"
            "    assign push = state == PUSH || mark;\n"
            "    assign event_out = {mark" +
            (out.y ? ", y" : "") + (out.x ? ", x" : "") + place +
            "};\n"
            "    always_ff @(posedge clk) begin\n"
            "        mask <= state == SWEEP ? spike_row : mask & ~lowest;\n"
            "        mark <= !rst && mode == STEP && row_end && row_last;\n"
            "    end\n";
        states =
            "            SWEEP, PUSH: if (row_end) begin\n"
            "                row <= row_next;\n"
            "                state <= row_last ? IDLE : SWEEP;\n"
            "            end else state <= PUSH;";
    } else {
        ports += "    input  logic [" + str(RW - 1) + ":0] out_row,\n    output logic [" +
                 str(L * V - 1) + ":0] out_sums,\n";
        finish = "    assign row_end = state == SWEEP;\n    assign out_sums = membranes;\n";
        states =
            "            SWEEP: if (row_end) begin\n"
            "                row <= row_next;\n"
            "                if (row_last) state <= IDLE;\n"
            "            end";
    }
    const std::string kept = "kept[lane*" + str(A) + " +: " + str(A) + "]";
    if (load)
        current =
            "\n    // The static input's current, kept.\n    logic [" + str(A * L - 1) +
            ":0] current;\n    nc_ram #(.WIDTH(" + str(A * L) + "), .DEPTH(" +
            str(std::max<size_t>(2, p.rows)) + "), .ADDRESS(" + str(RW) +
            ")) current_memory (\n        .clk(clk), .write(state == SWEEP && mode == LOAD), "
            ".write_address(row), .write_data(accumulators),\n        .read_address(row_next), "
            ".read_data(current));\n";
    if (most_delay > 0) {
        const std::string D = str(DW) + "'d";
        delays = "    logic [" + str(DW - 1) +
                 ":0] step;\n    always_ff @(posedge clk)\n        if (clear) "
                 "step <= " +
                 D + "0;\n        else if (stepping && row_end && row_last && step != " + D +
                 std::to_string(most_delay) + ") step <= step + " + D + "1;\n";
        if (what.spiking)
            delays = "    logic [" + str(DW - 1) +
                     ":0] step;\n    always_ff @(posedge clk)\n        if "
                     "(clear) step <= " +
                     D + "0;\n        else if (mark && step != " + D + std::to_string(most_delay) +
                     ") step <= step + " + D + "1;\n";
    }
    const Gaps gaps = {{"SWEEPSTATES", states},
                       {"PUSH", what.spiking ? ", PUSH = 3'd4" : ""},
                       {"SYNAPSES", instances},
                       {"ADDMUX", addmux},
                       {"BLOCK", block},
                       {"CURRENT", current},
                       {"UPDATE", update(i)},
                       {"FINISH", finish},
                       {"SPIKEROW", spike_row},
                       {"PORTS", ports},
                       {"TERM", term},
                       {"DELAYS", ""},
                       {"ORLOAD", load ? " || load" : ""},
                       {"I", str(i)},
                       {"NAME", p.name},
                       {"SHAPE", what.shape.str()},
                       {"KIND", !what.spiking ? "readout"
                                : what.decay  ? "LIF"
                                              : "IF"},
                       {"L", str(L)},
                       {"K", str(K)},
                       {"KW1", str(KW - 1)},
                       {"KW", str(KW)},
                       {"RW1", str(RW - 1)},
                       {"RW", str(RW)},
                       {"ROWSLAST", str(p.rows - 1)},
                       {"PARAM1", str((wide.bias + wide.threshold) * L - 1)},
                       {"PARAM", str((wide.bias + wide.threshold) * L)},
                       {"PARAMDEPTH", str(wide.each ? p.rows : p.blocks)},
                       {"PARAMADDRESS", str(wide.each ? RW : BB)},
                       {"PARAMAT", param_at},
                       {"AROW1", str(A * L - 1)},
                       {"AROW", str(A * L)},
                       {"DEPTH", str(std::max<size_t>(2, p.rows))},
                       {"VROW1", str(V * L - 1)},
                       {"VROW", str(V * L)},
                       {"VREAD", what.spiking ? "row_next" : "state == IDLE ? out_row : row_next"},
                       {"A1", str(A - 1)},
                       {"A", str(A)},
                       {"V1", str(V - 1)},
                       {"V", str(V)},
                       {"B1", str(wide.bias - 1)},
                       {"B", str(wide.bias)},
                       {"P", str(wide.bias + wide.threshold)},
                       {"U", load ? "accumulators[lane*" + str(A) + " +: " + str(A) +
                                        "] + current[lane*" + str(A) + " +: " + str(A) + "]"
                                  : "accumulators[lane*" + str(A) + " +: " + str(A) + "]"},
                       {"BIAS", widened("bias", wide.bias, A)}};
    std::string text = fill(rtl::core, gaps);
    if (!delays.empty()) {  // before the synapses that ask for it
        const size_t at = text.find("    logic [" + str(KW - 1) + ":0] which;\n");
        text.insert(at, delays.substr(0, delays.find('\n') + 1));
        const size_t end = text.rfind("endmodule");
        text.insert(end, delays.substr(delays.find('\n') + 1));
    }
    files.push_back({"core_" + str(i) + ".sv", text});
}

}  // namespace nc::rtl
