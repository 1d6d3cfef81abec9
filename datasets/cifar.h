// CIFAR-10's binary batches: records of one label byte and 32 x 32 pixels in R, G and B planes.
#pragma once

#include "datasets/images.h"

namespace nc {

// Appends the file's records. Error names the path: not a multiple of 3073 bytes, none, a label
// above 9.
void parse_cifar10(const std::vector<uint8_t>& file, const std::string& path, LabelledImages& out);

// data_batch_1..5.bin and test_batch.bin of this folder, gzip or not.
LabelledImages read_cifar10(const std::string& folder, bool training);

}  // namespace nc
