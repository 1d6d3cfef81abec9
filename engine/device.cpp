// The names of devices.
#include "engine/device.h"

#include <charconv>

#include "engine/error.h"

namespace nc {

std::string Device::str() const {
    return kind == DeviceKind::cpu ? "cpu" : "cuda:" + std::to_string(index);
}

Device parse_device(const std::string& text) {
    if (text == "cpu") return {};
    if (text == "cuda") return {DeviceKind::cuda, 0};
    const std::string prefix = "cuda:";
    if (text.starts_with(prefix)) {
        Device device{DeviceKind::cuda, 0};
        const char* end = text.data() + text.size();
        const auto [stop, status] = std::from_chars(text.data() + prefix.size(), end, device.index);
        if (status == std::errc() && stop == end && device.index >= 0) return device;
    }
    throw Error("[device] unknown device: '" + text + "'", ErrorKind::usage,
                "devices are cpu, cuda and cuda:<index>");
}

}  // namespace nc
