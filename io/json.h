// JSON values in key order, read from and written to files with clear errors.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace nc {

using Json = nlohmann::ordered_json;

// Error naming path and byte offset on anything malformed; depth is bounded.
Json parse_json(const std::string& text, const std::string& path);
Json read_json(const std::string& path);
void write_json(const std::string& path, const Json& value);  // temporary name, synced, renamed

}  // namespace nc
