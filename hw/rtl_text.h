// SystemVerilog as text with gaps: the modules an integer network is built from.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace nc::rtl {

using Gaps = std::vector<std::pair<std::string, std::string>>;

// The text with every @KEY@ replaced. A gap nobody fills is an Error.
std::string fill(std::string text, const Gaps&);

extern const char *const ram,
    *const rom, *const synapses, *const core, *const network, *const axis,
                                                                  *const testbench,
                                                                      *const testbench_core;

}  // namespace nc::rtl
