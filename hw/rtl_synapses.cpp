// A synapse's module: its tables of taps, its weights, its queue.
#include "hw/rtl_writer.h"

namespace nc::rtl {

void Writer::taps(const std::string& file, const std::vector<std::vector<FpgaTap>>& axis,
                  size_t index, size_t accumulator, size_t weight) {
    std::string text;
    for (const auto& list : axis)
        for (size_t i = 0; i < size_t(1) << index; ++i) {
            Row row;
            const bool valid = i < list.size();
            row.put(valid, 1);
            row.put(i + 1 >= list.size(), 1);
            row.put(valid ? list[i].accumulator : 0, accumulator);
            row.put(valid ? list[i].weight : 0, weight);
            text += row.hex();
        }
    files.push_back({file, text});
}

void Writer::synapses(size_t i, size_t k) {
    const FpgaSynapses& s = plan_.populations[i].synapses[k];
    const FpgaPopulation& source = plan_.populations[s.from];
    const size_t L = plan_.lanes, cin = s.first.size();
    const bool graded = s.from == 0;
    const Fields fields(source, graded);
    const size_t RW = row_wires(i), rows = s.weight.size() / L, WW = wires_for(rows);
    const size_t queue = s.queued * (source.height * source.width * source.channels + 1);
    const auto index = [](const std::vector<std::vector<FpgaTap>>& axis) {
        size_t most = 1;
        for (const auto& list : axis) most = std::max(most, list.size());
        return wires_for(most);
    };
    const size_t RI = index(s.rows), CI = index(s.columns);
    const size_t term = graded ? 16 : 8, tap = 2 + RW + WW;
    const std::string name = "syn_" + str(i) + "_" + str(k);
    taps(name + "_rows.hex", s.rows, RI, RW, WW);
    taps(name + "_columns.hex", s.columns, CI, RW, WW);
    std::string weights, first;
    for (size_t r = 0; r < rows; ++r) {
        Row row;
        for (size_t l = L; l-- > 0;) row.put(s.weight[r * L + l], 8);
        weights += row.hex();
    }
    files.push_back({name + "_weights.hex", weights});
    const bool grouped =
        std::any_of(s.first.begin(), s.first.end(), [](uint32_t f) { return f != 0; });
    std::string first_table, blocks, logic;
    if (grouped) {
        for (const uint32_t f : s.first) {
            Row row;
            row.put(f, RW);
            first += row.hex();
        }
        files.push_back({name + "_groups.hex", first});
        first_table = "    // By channel, the block its group begins at.\n    logic [" +
                      str(RW - 1) + ":0] group;\n    nc_rom #(.WIDTH(" + str(RW) + "), .DEPTH(" +
                      str(cin) + "), .ADDRESS(" + str(fields.c) + "), .FILE(\"" + name +
                      "_groups.hex\")) groups (\n        .clk(clk), "
                      ".address(" +
                      fields.of_c("head") + "), .data(group));\n";
    }
    const size_t BB = wires_for(s.blocks);
    if (s.blocks > 1) {
        const std::string B = str(BB) + "'d";
        blocks = "    logic [" + str(BB - 1) + ":0] block;\n    assign block_last = block == " + B +
                 str(s.blocks - 1) +
                 ";\n    always_ff @(posedge clk) block <= state == RUN && !block_last ? "
                 "block + " +
                 B + "1 : " + B + "0;\n";
    } else {
        blocks = "    assign block_last = 1'b1;\n";
    }
    if (graded) {
        logic =
            "    logic signed [7:0] value, value_next;\n"
            "    always_ff @(posedge clk) begin\n"
            "        value_next <= head[7:0];\n"
            "        value <= value_next;\n"
            "    end\n"
            "    genvar lane;\n"
            "    generate\n"
            "        for (lane = 0; lane < " +
            str(L) +
            "; lane = lane + 1) begin : lanes\n"
            "            logic signed [7:0] weight;\n"
            "            logic signed [15:0] product;\n"
            "            assign weight = weights[lane*8 +: 8];\n"
            "            assign product = weight * value;\n"
            "            assign terms[lane*16 +: 16] = product;\n"
            "        end\n"
            "    endgenerate";
    } else {
        logic = "    assign terms = weights;";
    }
    const auto place = [](size_t bits, const std::string& field, const std::string& at) {
        return bits > 0 ? "{" + field + ", " + at + "}" : at;
    };
    const Gaps gaps = {
        {"I", str(i)},
        {"K", str(k)},
        {"NAME", plan_.populations[i].name},
        {"FROM", source.name},
        {"EW1", str(fields.wide() - 1)},
        {"EW", str(fields.wide())},
        {"RW1", str(RW - 1)},
        {"TERMS1", str(term * L - 1)},
        {"QA1", str(wires_for(queue) - 1)},
        {"QA", str(wires_for(queue))},
        {"QD", str(queue)},
        {"QLAST", str(queue - 1)},
        {"RI1", str(RI - 1)},
        {"CI1", str(CI - 1)},
        {"RI", str(RI)},
        {"CI", str(CI)},
        {"TAP1", str(tap - 1)},
        {"TAP2", str(tap - 2)},
        {"TAP", str(tap)},
        {"ROWDEPTH", str(s.rows.size() << RI)},
        {"COLUMNDEPTH", str(s.columns.size() << CI)},
        {"ROWADDRESS", str(fields.y + RI)},
        {"COLUMNADDRESS", str(fields.x + CI)},
        {"ROWINDEX", place(fields.y, fields.y ? fields.of_y("head") : "", "row_next")},
        {"COLUMNINDEX", place(fields.x, fields.x ? fields.of_x("head") : "", "column_next")},
        {"FIRSTTABLE", first_table},
        {"BLOCKS", blocks},
        {"WW1", str(WW - 1)},
        {"WW", str(WW)},
        {"WROW1", str(8 * L - 1)},
        {"WROW", str(8 * L)},
        {"WDEPTH", str(rows)},
        {"FIRST", grouped ? " + group" : ""},
        {"BLOCKROW", s.blocks > 1 ? " + " + str(RW) + "'(block)" : ""},
        {"CHANNEL",
         fields.c == 0 ? "" : " + " + times(str(WW) + "'(" + fields.of_c("head") + ")", s.blocks)},
        {"BLOCKWEIGHT", s.blocks > 1 ? " + " + str(WW) + "'(block)" : ""},
        {"TERMSLOGIC", logic}};
    files.push_back({name + ".sv", fill(rtl::synapses, gaps)});
}

}  // namespace nc::rtl
