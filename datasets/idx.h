// IDX, the format of MNIST and its relatives: big-endian sizes, then bytes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "datasets/images.h"

namespace nc {

struct IdxArray {
    std::vector<size_t> sizes;
    std::vector<uint8_t> bytes;  // row-major
};

// Unsigned bytes only. Error names the path, the position and the values: wrong magic, other types,
// more or fewer bytes than the sizes say.
IdxArray parse_idx(const std::vector<uint8_t>& file, const std::string& path);

// The two files of a set, gzip or not: images [N, H, W] become [N, H, W, 1]. Error when they are
// not that, their counts differ, or a label is not below `classes` (its position is named).
LabelledImages read_idx_pair(const std::string& images_path, const std::string& labels_path,
                             int classes);

}  // namespace nc
