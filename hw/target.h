// Hardware as data: what an arithmetic operation costs, and who says so.
#pragma once

#include <string>

namespace nc {

struct EnergyConstant {
    double picojoules;
    std::string source;
};

struct Target {
    std::string name;
    EnergyConstant mac;  // multiply and accumulate, 32-bit float
    EnergyConstant ac;   // accumulate alone
};

// A generic digital chip in 45 nm (Horowitz, ISSCC 2014).
Target digital_45nm();

}  // namespace nc
