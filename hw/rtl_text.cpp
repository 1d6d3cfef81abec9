// The modules' text. The subset that Verilator, Icarus and Yosys all take: widths exact,
// two's complement in plain vectors, reads a clock late, no memory cleared in a loop.
#include "hw/rtl_text.h"

#include "engine/error.h"

namespace nc::rtl {

std::string fill(std::string text, const Gaps& gaps) {
    for (const auto& [key, value] : gaps) {
        const std::string gap = "@" + key + "@";
        for (size_t at = text.find(gap); at != std::string::npos;
             at = text.find(gap, at + value.size()))
            text.replace(at, gap.size(), value);
    }
    const size_t left = text.find('@');
    for (size_t at = left; at != std::string::npos; at = text.find('@', at + 1))
        if (at + 1 < text.size() && text[at + 1] >= 'A' && text[at + 1] <= 'Z')
            throw Error("[rtl] a gap is left: " + text.substr(at, 20), ErrorKind::model);
    return text;
}

const char* const ram =
    R"sv(// A memory of one write and one read port. A row read while it is written gives its old value.
module nc_ram #(parameter WIDTH = 8, parameter DEPTH = 2, parameter ADDRESS = 1) (
    input  logic               clk,
    input  logic               write,
    input  logic [ADDRESS-1:0] write_address,
    input  logic [WIDTH-1:0]   write_data,
    input  logic [ADDRESS-1:0] read_address,
    output logic [WIDTH-1:0]   read_data
);
    logic [WIDTH-1:0] memory [0:DEPTH-1];
    always_ff @(posedge clk) begin
        if (write) memory[write_address] <= write_data;
        read_data <= memory[read_address];
    end
endmodule
)sv";

const char* const rom = R"sv(// A memory that holds a file.
module nc_rom #(parameter WIDTH = 8, parameter DEPTH = 2, parameter ADDRESS = 1, parameter FILE = "") (
    input  logic               clk,
    input  logic [ADDRESS-1:0] address,
    output logic [WIDTH-1:0]   data
);
    logic [WIDTH-1:0] memory [0:DEPTH-1];
    initial $readmemh(FILE, memory);
    always_ff @(posedge clk) data <= memory[address];
endmodule
)sv";

// Events are {marker, y, x, c}, of the input {marker, y, x, c, value}. A row (column) entry is
// {valid, last, accumulator offset, weight offset}.
const char* const synapses =
    R"sv(// Synapses @K@ of @NAME@, from @FROM@: event queue, address generator, weights.
module syn_@I@_@K@ (
    input  logic               clk,
    input  logic               rst,
    input  logic               clear,  // forget what is queued
    input  logic               push,
    input  logic [@EW1@:0] push_event,
    input  logic               start,  // take events up to the next marker
    output logic               done,
    output logic               add,    // an accumulator row is to be read; its terms come a clock later
    output logic [@RW1@:0] row,
    output logic [@TERMS1@:0] terms
);
    localparam [2:0] IDLE = 3'd0, FETCH = 3'd1, LOOK = 3'd2, LOAD = 3'd3, RUN = 3'd4;
    logic [2:0] state;

    logic [@QA1@:0] write_at, read_at;
    logic [@EW1@:0] head;
    nc_ram #(.WIDTH(@EW@), .DEPTH(@QD@), .ADDRESS(@QA@)) queue (
        .clk(clk), .write(push), .write_address(write_at), .write_data(push_event),
        .read_address(read_at), .read_data(head));
    logic marker;
    assign marker = head[@EW1@];

    // The taps of this row and of this column, the next of each read ahead.
    logic [@RI1@:0] row_at, row_next;
    logic [@CI1@:0] column_at, column_next;
    logic [@TAP1@:0] row_tap, column_tap;
    nc_rom #(.WIDTH(@TAP@), .DEPTH(@ROWDEPTH@), .ADDRESS(@ROWADDRESS@), .FILE("syn_@I@_@K@_rows.hex")) rows (
        .clk(clk), .address(@ROWINDEX@), .data(row_tap));
    nc_rom #(.WIDTH(@TAP@), .DEPTH(@COLUMNDEPTH@), .ADDRESS(@COLUMNADDRESS@), .FILE("syn_@I@_@K@_columns.hex")) columns (
        .clk(clk), .address(@COLUMNINDEX@), .data(column_tap));
@FIRSTTABLE@
    logic row_last, column_last, first_last, block_last, tap_end;
    logic [@RW1@:0] row_base, column_base, first_base;
    logic [@WW1@:0] row_weight, column_weight, first_weight;
@BLOCKS@
    assign tap_end = state == RUN && block_last;
    assign done = state == LOOK && marker;

    always_comb begin
        row_next = row_at;
        column_next = column_at;
        if (state == LOOK) begin
            row_next = @RI@'d0;
            column_next = @CI@'d0;
        end else if (state == LOAD) begin
            row_next = @RI@'d1;
            column_next = @CI@'d1;
        end else if (tap_end) begin
            column_next = column_last ? @CI@'d1 : column_at + @CI@'d1;
            if (column_last) row_next = row_at + @RI@'d1;
        end
    end

    logic event_end;
    assign event_end = done || (state == LOAD && !(row_tap[@TAP1@] && column_tap[@TAP1@])) ||
                       (tap_end && column_last && row_last);

    always_ff @(posedge clk) begin
        row_at <= row_next;
        column_at <= column_next;
        if (rst || clear) begin
            state <= IDLE;
            write_at <= @QA@'d0;
            read_at <= @QA@'d0;
        end else begin
            if (push) write_at <= write_at == @QA@'d@QLAST@ ? @QA@'d0 : write_at + @QA@'d1;
            if (event_end) read_at <= read_at == @QA@'d@QLAST@ ? @QA@'d0 : read_at + @QA@'d1;
            case (state)
                IDLE: if (start) state <= FETCH;
                FETCH: state <= LOOK;
                LOOK: state <= marker ? IDLE : LOAD;
                LOAD: state <= event_end ? FETCH : RUN;
                RUN: if (event_end) state <= FETCH;
                default: state <= IDLE;
            endcase
        end
        if (state == LOAD) begin
            {row_last, row_base, row_weight} <= row_tap[@TAP2@:0];
            {column_last, column_base, column_weight} <= column_tap[@TAP2@:0];
            {first_last, first_base, first_weight} <= column_tap[@TAP2@:0];
        end else if (tap_end) begin
            if (column_last) begin
                {row_last, row_base, row_weight} <= row_tap[@TAP2@:0];
                {column_last, column_base, column_weight} <= {first_last, first_base, first_weight};
            end else
                {column_last, column_base, column_weight} <= column_tap[@TAP2@:0];
        end
    end

    logic [@WW1@:0] weight_at;
    logic [@WROW1@:0] weights;
    nc_rom #(.WIDTH(@WROW@), .DEPTH(@WDEPTH@), .ADDRESS(@WW@), .FILE("syn_@I@_@K@_weights.hex")) weight_memory (
        .clk(clk), .address(weight_at), .data(weights));
    always_ff @(posedge clk) begin
        add <= !rst && state == RUN;
        row <= row_base + column_base@FIRST@@BLOCKROW@;
        weight_at <= row_weight + column_weight@CHANNEL@@BLOCKWEIGHT@;
    end
@TERMSLOGIC@
endmodule
)sv";

const char* const core =
    R"sv(// Population @I@, @NAME@: @SHAPE@, @KIND@. Accumulators and membranes in rows of @L@ lanes.
module core_@I@ (
    input  logic clk,
    input  logic rst,
    input  logic clear,
@PORTS@    input  logic go,
    output logic busy
);
    localparam [2:0] IDLE = 3'd0, NEXT = 3'd1, RUN = 3'd2, SWEEP = 3'd3@PUSH@;
    localparam [1:0] CLEAR = 2'd0, LOAD = 2'd1, STEP = 2'd2;
    logic [2:0] state;
    logic [1:0] mode;
    assign busy = state != IDLE;

    // Synapses, one after the other.
    logic [@KW1@:0] which;
@SYNAPSES@
    logic add;
    logic [@RW1@:0] add_row;
@ADDMUX@
    // The sweep's place; what it reads next.
    logic [@RW1@:0] row, row_next;
    logic row_last, row_end;
    assign row_last = row == @RW@'d@ROWSLAST@;
    assign row_next = state == NEXT ? @RW@'d0 : row + @RW@'d1;
    logic stepping;
    assign stepping = state == SWEEP && mode == STEP;
@BLOCK@
    logic [@PARAM1@:0] parameters;
    nc_rom #(.WIDTH(@PARAM@), .DEPTH(@PARAMDEPTH@), .ADDRESS(@PARAMADDRESS@), .FILE("core_@I@_parameters.hex")) parameter_memory (
        .clk(clk), .address(@PARAMAT@), .data(parameters));

    // Accumulators: a row that was written a cycle ago is taken from there.
    logic adding, forward;
    logic [@RW1@:0] adding_row, forward_row;
    logic [@AROW1@:0] accumulators, kept, sums, forward_sums;
    nc_ram #(.WIDTH(@AROW@), .DEPTH(@DEPTH@), .ADDRESS(@RW@)) accumulator_memory (
        .clk(clk), .write(adding || state == SWEEP),
        .write_address(adding ? adding_row : row),
        .write_data(adding ? sums : @AROW@'d0),
        .read_address(add ? add_row : row_next), .read_data(accumulators));
    assign kept = forward && forward_row == adding_row ? forward_sums : accumulators;
    always_ff @(posedge clk) begin
        adding <= !rst && add;
        adding_row <= add_row;
        forward <= !rst && adding;
        forward_row <= adding_row;
        forward_sums <= sums;
    end

    logic [@VROW1@:0] membranes, v_row;
    nc_ram #(.WIDTH(@VROW@), .DEPTH(@DEPTH@), .ADDRESS(@RW@)) membrane_memory (
        .clk(clk), .write(stepping || (state == SWEEP && mode == CLEAR)), .write_address(row), .write_data(v_row),
        .read_address(@VREAD@), .read_data(membranes));
@CURRENT@
    // What the sweep sees and does; a testbench looks at stepping, u_row, v_row and spike_row.
    logic [@AROW1@:0] u_row;
@SPIKEROW@    genvar lane;
    generate
        for (lane = 0; lane < @L@; lane = lane + 1) begin : lanes
            logic [@A1@:0] drive;
            logic [@V1@:0] v, fallen, raised, changed;
            logic [@B1@:0] bias;
            assign sums[lane*@A@ +: @A@] = kept[lane*@A@ +: @A@] + @TERM@;
            assign u_row[lane*@A@ +: @A@] = @U@;
            assign bias = parameters[lane*@P@ +: @B@];
            assign drive = u_row[lane*@A@ +: @A@] + @BIAS@;
            assign v = membranes[lane*@V@ +: @V@];
@UPDATE@
            assign v_row[lane*@V@ +: @V@] = changed;
        end
    endgenerate

@FINISH@
    always_ff @(posedge clk) begin
        if (rst) state <= IDLE;
        else case (state)
            IDLE: begin
                which <= clear ? @KW@'d@K@ : @KW@'d0;
                mode <= clear ? CLEAR : go ? STEP : LOAD;
                if (clear || go@ORLOAD@) state <= NEXT;
            end
            NEXT: begin
                row <= @RW@'d0;
                if (which == @KW@'d@K@) state <= SWEEP;
                else if (wanted) state <= RUN;
                else which <= which + @KW@'d1;
            end
            RUN: if (done) begin
                which <= which + @KW@'d1;
                state <= NEXT;
            end
@SWEEPSTATES@
            default: state <= IDLE;
        endcase
    end
@DELAYS@endmodule
)sv";

const char* const network =
    R"sv(// The network: takes samples in, starts the cores step by step, gives the logits out.
// @SUMMARY@
module network (
    input  logic clk,
    input  logic rst,
    input  logic in_valid,
    output logic in_ready,
    input  logic [7:0] in_data,  // signed, in the order of the input's elements
    output logic out_valid,
    input  logic out_ready,
    output logic [@OUT1@:0] out_data,
    output logic out_last
);
    localparam [3:0] CLEAR = 4'd0, CLEARING = 4'd1, RECEIVE = 4'd2, MARK = 4'd3,
        LOAD = 4'd4, LOADING = 4'd5, STEP = 4'd6, STEPPING = 4'd7, READ = 4'd8, SEND = 4'd9;
    logic [3:0] state;
    logic [@T1@:0] t;  // steps started@PIPELINED@
    logic step_end, done;
    logic [@P1@:0] active, busy;
    logic clear;
    assign clear = state == CLEAR;

    // Events of the input: what is not zero, with its place.
    logic in_last, in_push;
    logic [@E1@:0] in_event;
@INPUT@
    assign in_ready = state == RECEIVE;
    assign in_push = (in_valid && in_ready && in_data != 8'd0) || state == MARK;

@CORES@
    logic [@OR1@:0] out_row;
    logic [@OUTROW1@:0] out_sums;
@OUTPUT@
    assign out_valid = state == SEND;
    assign step_end = state == STEPPING && busy == @PN@'d0@LASTCORE@;
    assign done = t == @TN@'d@TLAST@;

    always_ff @(posedge clk) begin
        if (rst) state <= CLEAR;
        else case (state)
            CLEAR: state <= CLEARING;
            CLEARING: begin
                t <= @TN@'d0;
                if (busy == @PN@'d0) state <= RECEIVE;
            end
            RECEIVE: if (in_valid && in_last) state <= MARK;
            MARK: state <= @AFTERMARK@;
            LOAD: state <= LOADING;
            LOADING: if (busy == @PN@'d0) state <= STEP;
            STEP: state <= STEPPING;
            STEPPING: begin
                if (step_end) begin
                    t <= t + @TN@'d1;
                    state <= done ? READ : @NEXTSTEP@;
                end else if (busy == @PN@'d0) state <= STEP;
            end
            READ: state <= SEND;
            SEND: if (out_ready) state <= out_last ? CLEAR : READ;
            default: state <= CLEAR;
        endcase
    end
@ACTIVE@endmodule
)sv";

const char* const axis =
    R"sv(// The network between two AXI streams: a byte a beat in, a logit a beat out (sign-extended).
module network_axis (
    input  logic aclk,
    input  logic aresetn,
    input  logic s_axis_tvalid,
    output logic s_axis_tready,
    input  logic [7:0] s_axis_tdata,
    output logic m_axis_tvalid,
    input  logic m_axis_tready,
    output logic [@BYTES1@:0] m_axis_tdata,
    output logic m_axis_tlast
);
    logic rst;
    always_ff @(posedge aclk) rst <= !aresetn;
    logic [@OUT1@:0] logit;
    assign m_axis_tdata = @EXTENDED@;
    network inner (
        .clk(aclk), .rst(rst), .in_valid(s_axis_tvalid), .in_ready(s_axis_tready),
        .in_data(s_axis_tdata), .out_valid(m_axis_tvalid), .out_ready(m_axis_tready),
        .out_data(logit), .out_last(m_axis_tlast));
endmodule
)sv";

const char* const testbench =
    R"sv(// Plays the stimulus, compares every u, v, s, every logit and the cycles of every sample.
module testbench;
    logic clk = 0;
    logic rst = 1;
    logic in_valid = 0, in_ready, out_valid, out_ready = 0, out_last;
    logic [7:0] in_data;
    logic signed [@BYTES1@:0] out_data;
    network_axis dut (
        .aclk(clk), .aresetn(!rst), .s_axis_tvalid(in_valid), .s_axis_tready(in_ready),
        .s_axis_tdata(in_data), .m_axis_tvalid(out_valid), .m_axis_tready(out_ready),
        .m_axis_tdata(out_data), .m_axis_tlast(out_last));
    always #5 clk = ~clk;

    localparam [3:0] RECEIVE = 4'd2, MARK = 4'd3, READ = 4'd8, SEND = 4'd9;  // of network's states
    integer samples, sample = 0, compared = 0, different = 0, cycles = 0;
    integer place = 0, logit = 0;
    logic [63:0] logits [0:@LOGITS1@];
    logic [31:0] times [0:@TIMES1@];
    logic signed [63:0] got;
    logic [7:0] stimulus [0:@STIMULUS1@];
    initial begin
        $readmemh("stimulus.hex", stimulus);
        $readmemh("expected/logits.hex", logits);
        $readmemh("expected/cycles.hex", times);
        if (!$value$plusargs("samples=%d", samples)) samples = @N@;
        repeat (4) @(posedge clk);
        rst <= 0;
        out_ready <= 1;
    end

    // One byte at a time; a pause now and then, as a real source has.
    always @(posedge clk) if (!rst) begin
        if (in_valid && in_ready) begin
            place = place + 1;
            in_valid <= place < samples * @FRAMES@ && place % 37 != 0;
        end else if (place < samples * @FRAMES@) in_valid <= 1;
        in_data <= place < samples * @FRAMES@ ? stimulus[place] : 8'd0;
    end
@CHECKS@
    always @(posedge clk) if (!rst) begin
        // All states but those that receive and send.
        if (!dut.rst && dut.inner.state != RECEIVE && dut.inner.state != MARK && dut.inner.state != READ &&
            dut.inner.state != SEND) cycles = cycles + 1;
        if (out_valid && out_ready) begin
            got = out_data;
            compared = compared + 1;
            if (logits[logit] !== got) begin
                if (different < 20) $display("sample %0d: logit %0d, not %h", sample, got, logits[logit]);
                different = different + 1;
            end
            logit = logit + 1;
            if (out_last) begin
                compared = compared + 1;
                if (times[sample] !== cycles) begin
                    if (different < 20) $display("sample %0d: %0d cycles, not %0d", sample, cycles, times[sample]);
                    different = different + 1;
                end
                cycles = 0;
                sample = sample + 1;
                if (sample == samples) begin
                    $display("%0d samples, %0d compared, %0d different", sample, compared, different);
                    $finish;
                end
            end
        end
    end
    initial begin
        repeat (@LIMIT@) @(posedge clk);
        $display("no end after @LIMIT@ cycles");
        $finish;
    end
endmodule
)sv";

const char* const testbench_core = R"sv(
    // @NAME@: {u, v, s} of every sample, step and neuron.
    logic [131:0] expected_@I@ [0:@COUNT1@];
    initial $readmemh("expected/core_@I@.hex", expected_@I@);
    integer lane_@I@, at_@I@ = 0, next_@I@ = 0;
    logic signed [63:0] u_@I@, v_@I@;
    logic signed [@A1@:0] raw_u_@I@;
    logic signed [@V1@:0] raw_v_@I@;
    logic s_@I@;
    always @(posedge clk) if (dut.inner.c@I@.stepping)
        for (lane_@I@ = 0; lane_@I@ < @L@; lane_@I@ = lane_@I@ + 1) begin
            if (at_@I@ % @ROWLANES@ < @C@) begin
                raw_u_@I@ = dut.inner.c@I@.u_row[lane_@I@*@A@ +: @A@];
                raw_v_@I@ = dut.inner.c@I@.v_row[lane_@I@*@V@ +: @V@];
                u_@I@ = raw_u_@I@;
                v_@I@ = raw_v_@I@;
                u_@I@ = u_@I@ * 64;
                v_@I@ = v_@I@ * @VSCALE@;
                s_@I@ = @SPIKE@;
                compared = compared + 1;
                if (expected_@I@[next_@I@] !== {u_@I@, v_@I@, 3'd0, s_@I@}) begin
                    if (different < 20)
                        $display("sample %0d, @NAME@, step %0d, neuron %0d: u %0d, v %0d, s %0d, not u, v, s = %h",
                                 sample, next_@I@ / @SIZE@ % @T@, next_@I@ % @SIZE@, u_@I@, v_@I@, s_@I@, expected_@I@[next_@I@]);
                    different = different + 1;
                end
                next_@I@ = next_@I@ + 1;
            end
            at_@I@ = at_@I@ + 1;
        end
)sv";

}  // namespace nc::rtl
