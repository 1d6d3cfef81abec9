// Images in memory as bytes, what the readers of image files give.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "datasets/dataset.h"

namespace nc {

struct LabelledImages {
    std::vector<uint8_t> images;  // [N, H, W, C]
    std::vector<int32_t> labels;  // [N], each in [0, classes)
    Shape sample;                 // [H, W, C]
    int classes = 10;
};

// The file, or the same name with .gz, in this folder; empty when neither is there.
std::string find_file(const std::string& folder, const std::string& name);

}  // namespace nc
