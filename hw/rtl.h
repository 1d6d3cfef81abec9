// SystemVerilog of a network in integers: one time-multiplexed core a population, exactly the
// FpgaPlan it is made from, with a testbench that knows every u, v and s.
#pragma once

#include <string>
#include <vector>

#include "hw/fpga.h"

namespace nc {

struct RtlOptions {
    bool temporal = false;  // a frame a step; else a static sample, its current computed once
    bool force = false;     // overwrite what is there
};

struct RtlReport {
    std::vector<std::string> files;  // within the folder
    uint64_t step_bound = 0;         // cycles of one step, at most
    FpgaRun run;                     // of the samples in the stimulus
};

// Writes modules, memories, testbench, stimulus, expected traces and a README. input: events of N
// samples as run_fpga takes them; T steps. Error (kind usage) when the folder holds something and
// force is not set, (kind model) by name for what the cores do not have: a delayed edge from a
// static input, a readout that is not [F], a population that hears nothing.
RtlReport write_rtl(const IntegerNetwork&, const FpgaPlan&, const std::vector<int16_t>& input,
                    size_t N, int T, const std::string& folder, const RtlOptions& = {});

// Writes files (names, which may lie one folder deeper, and texts) into a folder, which it makes,
// and returns their names. Error when something is in one of the folders and force is not set.
std::vector<std::string> write_folder(const std::string& folder,
                                      const std::vector<std::pair<std::string, std::string>>& files,
                                      bool force);

}  // namespace nc
