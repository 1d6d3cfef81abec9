// C++ for high-level synthesis of a network in integers: what the generated SystemVerilog does, as
// loops over exact-width integers, with a main that checks every u, v, s and logit.
#pragma once

#include "hw/rtl.h"

namespace nc {

// Writes network.cpp (its top function is `network`), spiking.h, network_data.h, main.cpp,
// stand-ins for a vendor's ap_int.h, stimulus, expected values and a README. Arguments and errors
// as write_rtl's.
RtlReport write_hls(const IntegerNetwork&, const FpgaPlan&, const std::vector<int16_t>& input,
                    size_t N, int T, const std::string& folder, const RtlOptions& = {});

}  // namespace nc
