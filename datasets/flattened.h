// A data set's samples as vectors, for networks that take one.
#pragma once

#include "datasets/dataset.h"

namespace nc {

// In the order of others' files: channel, row, column.
std::unique_ptr<Dataset> flattened(std::unique_ptr<Dataset>);

}  // namespace nc
