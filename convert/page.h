// The report of a conversion: which tables and pictures it has. io/report draws them.
#pragma once

#include <string>

#include "convert/convert.h"
#include "io/report.h"

namespace nc {

// One self-contained HTML page. about: data set and how many samples; published: accuracies of
// others by T, drawn beside.
std::string conversion_page(Compute&, const Converted&, const Dataset& test,
                            const std::string& about, const std::vector<Curve>& published,
                            const std::string& command, const Json& environment);

}  // namespace nc
