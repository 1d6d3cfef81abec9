// The report of a conversion: which tables and pictures it has. io/report draws them.
#pragma once

#include <string>

#include "convert/convert.h"

namespace nc {

// One self-contained HTML page. about: data set and how many samples.
std::string conversion_page(Compute&, const Converted&, const Dataset& test,
                            const std::string& about, const std::string& command,
                            const Json& environment);

}  // namespace nc
