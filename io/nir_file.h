// NIR's HDF5 container: bytes to a tree of nodes and fields, and back. What they mean is io/nir's.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/error.h"

namespace nc {

// A dataset. Its rank is 0 for a scalar.
struct NirField {
    std::vector<size_t> shape;
    std::variant<std::vector<float>, std::vector<double>, std::vector<int64_t>,
                 std::vector<std::string>>
        values;
};

struct NirNode {
    std::string type;
    std::map<std::string, NirField> fields;
    std::map<std::string, NirField> metadata;
    // Of a NIRGraph:
    std::map<std::string, NirNode> nodes;
    std::vector<std::pair<std::string, std::string>> edges;
};

// The whole graph ("/node"). path only names the bytes in an Error (kind model). Read leniently:
// gzip and shuffle or contiguous, fixed or variable strings, missing metadata. Nothing outside
// these bytes is opened; every size is checked against theirs before memory is taken.
NirNode parse_nir(const std::vector<uint8_t>& file, const std::string& path);
std::vector<uint8_t> nir_bytes(const NirNode& graph);

}  // namespace nc
