// Where floats run.
#pragma once

#include <string>

namespace nc {

enum class DeviceKind { cpu, cuda };

struct Device {
    DeviceKind kind = DeviceKind::cpu;
    int index = 0;
    bool operator==(const Device&) const = default;
    std::string str() const;  // "cpu", "cuda:0"
};

// "cpu", "cuda", "cuda:1"; Error on anything else.
Device parse_device(const std::string& text);

}  // namespace nc
