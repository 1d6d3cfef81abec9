// The decoders behind EventStream, one a family of formats.
#pragma once

#include <optional>

#include "datasets/recordings.h"
#include "io/npy.h"

namespace nc {

// A file being decoded, and the sensor it is checked against (0: unknown).
struct EventFile {
    ByteStream in;
    size_t width = 0, height = 0;
    std::string description = "";
    // Appends some events as the file has them; false when there are no more.
    std::function<bool(EventFile&, std::vector<Event>&)> decode = nullptr;

    // Error, with the event's place in the file, when it is outside the sensor.
    void add(std::vector<Event>& out, const Event& e, size_t event_bytes) const {
        if ((width > 0 && e.x >= width) || (height > 0 && e.y >= height)) outside(e, event_bytes);
        out.push_back(e);
    }
    [[noreturn]] void outside(const Event&, size_t event_bytes) const;
};
constexpr size_t events_at_a_time = 1 << 14;
constexpr size_t largest_side = 1 << 15;
constexpr int64_t latest_time = int64_t(1) << 60;

// Each reads the header and leaves `decode`. A sensor size that is set already stays.
void open_nmnist(EventFile&);
void open_aedat2(EventFile&);
void open_aedat3(EventFile&);
void open_evt2(EventFile&);
void open_evt3(EventFile&);
void open_dat(EventFile&);
void open_npy(EventFile&);
void open_npz(EventFile&, const Source&);

// The frames array of a file that holds one: its values come next.
struct FramesArray {
    ByteStream in;
    NpyHeader header;
};
std::optional<FramesArray> find_frames(const Source&);

}  // namespace nc
