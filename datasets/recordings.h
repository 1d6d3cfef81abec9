// Event recordings in the formats of cameras and data sets, read in constant memory.
//
//   N-MNIST, N-Caltech .bin     5 bytes an event (Orchard et al. 2015)
//   AEDAT 2.0                   DVS128 addresses, as jAER and Tonic have them
//   AEDAT 3.1                   polarity packets, as cAER writes them
//   Prophesee RAW EVT2, EVT3    and .dat: docs.prophesee.ai, "encoding formats"
//   .npy, .npz                  structured x, y, p, t; arrays x, y, p, t; columns t, x, y, p
//
// Times are microseconds, as stored. What wraps in a file goes on rising here: 32 bits of AEDAT 2.0
// and .dat, 34 of EVT2, 24 of EVT3; AEDAT 3.1 and N-MNIST count their overflows themselves. EVT
// events before the first TIME_HIGH, whose time nobody knows, are left out, as are words and
// packets that hold no polarity events.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "datasets/events.h"
#include "io/bytes.h"

namespace nc {

struct RecordingOptions {
    std::string format = "";       // of recording_formats(); empty: by content, then by extension
    size_t width = 0, height = 0;  // of the sensor; 0: the file's, or the format's
    int64_t denoise = 0;           // microseconds; 0: keep every event
};
// nmnist, aedat2, aedat3, evt2, evt3, dat, npy, npz
std::vector<std::string> recording_formats();
// The same, by content and extension. Error (with a hint) on anything else.
std::string format_of(const Source&);

struct EventFile;  // in event_formats.h

// Events in time order, block by block. Those that a file has out of order are sorted, equal times
// keeping their places, within a window of a million events; Error where that is not enough. Error
// too, with path and byte, on a file cut short and on events outside the sensor.
class EventStream {
 public:
    EventStream(const Source&, const RecordingOptions&);
    ~EventStream();
    size_t width() const;  // 0: neither file, format nor options tell
    size_t height() const;
    const std::string& description() const;  // "Prophesee EVT3", ...
    // The next events, replacing what block held; false (and none) at the end.
    bool next(std::vector<Event>& block);

 private:
    void denoise(std::vector<Event>&);

    std::unique_ptr<EventFile> file_;
    std::vector<Event> waiting_;  // for earlier ones
    bool sorted_ = true, ended_ = false;
    int64_t given_ = INT64_MIN;  // the last time that left
    int64_t within_ = 0;
    std::vector<int64_t> fired_;  // [height, width], the end of an event's influence
};

// All of it in memory. Error when there are no events or the sensor is unknown.
Recording read_recording(const Source&, const RecordingOptions&);

struct FramedFile {
    std::string description;
    size_t frames = 0, height = 0, width = 0;
    Extent extent;         // of the events that the denoise filter left
    uint64_t counted = 0;  // the others lie outside every frame
};
// Counts [T, 2, H, W] as f32 in a .npy file, one frame in memory at a time; the recording is read
// twice. clip: counts above 1 become 1. Error as above; no file is left then.
FramedFile write_frames(const Source&, const RecordingOptions&, const Framing&, bool clip,
                        const std::string& out);

// A .npy or .npz that holds frames [T, 2, H, W] already (in an .npz under "frames").
bool holds_frames(const Source&);
FramedFile copy_frames(const Source&, bool clip, const std::string& out);

}  // namespace nc
