// NumPy's .npy arrays, C order, little-endian numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/tensor.h"

namespace nc {

Tensor parse_npy(const std::vector<uint8_t>& file, const std::string& path);
Tensor load_npy(const std::string& path);  // f4 f8 i1 u1 i2 i4 i8 u8 b1; Error on anything else
void save_npy(const std::string& path, const Tensor&);

}  // namespace nc
