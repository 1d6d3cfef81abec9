// What an arithmetic operation costs, by target.
#include "hw/target.h"

namespace nc {

Target digital_45nm() {
    const std::string source =
        "M. Horowitz, Computing's energy problem, ISSCC 2014, 45 nm, 0.9 V, 32-bit float: ";
    return {"digital-45nm",
            {4.6, source + "multiplication 3.7 pJ and addition 0.9 pJ"},
            {0.9, source + "addition 0.9 pJ"}};
}

}  // namespace nc
