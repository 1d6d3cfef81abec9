// Event recordings: what an event camera saw, and the data sets made of it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/framing.h"

namespace nc {

struct Event {
    int64_t t;  // microseconds
    uint16_t x, y;
    uint8_t p;  // 0 OFF, 1 ON
    bool operator==(const Event&) const = default;
};

struct Recording {
    size_t height = 0, width = 0;
    std::vector<Event> events;  // times ascend
};

// N-MNIST and N-Caltech .bin: 5 bytes an event. An event with y = 240 is an overflow mark: 2^13 us
// are added to all later times, and it is dropped. Events out of order are sorted by time, equal
// times keep their order. Error names the path and position: not whole events, none, an event
// outside the sensor.
Recording parse_nmnist(const std::vector<uint8_t>& file, const std::string& path,
                       size_t height = 34, size_t width = 34);

// Recordings one at a time, so that a whole data set need never be in memory as events.
struct RecordingSource {
    std::vector<int32_t> labels;
    std::function<Recording(size_t)> recording;  // i < labels.size(); all of one sensor size
    bool simulated = false;  // they are made, not read: nothing about them can be wrong
};

// What load_data frames, by the names of event_dataset_names(). Error as there.
struct RecordingSets {
    RecordingSource train, test;
    int classes = 0;
    std::string note;  // as of DataSets
};
RecordingSets load_recordings(const std::string& name, const std::string& root);
std::vector<std::string> event_dataset_names();

// Both parts of a data set, framed now (simulated ones when they are first asked for, if the
// framing allows) and kept as 2 bytes an event; batches are counts [T, N, H,
// W, 2]. Framings whose number of frames depends on the recording (a window, a count) take the
// largest of both parts; shorter recordings end in empty frames. Of augmentation only shift is
// known (crop is the same); anything else is an Error.
struct EventDataSets {
    std::unique_ptr<Dataset> train, test;
};
EventDataSets event_datasets(const RecordingSource& train, const RecordingSource& test, int classes,
                             const Framing&);

// <folder>/<class>/<name>.bin with classes 0 .. 9, ordered by file name; those of N-MNIST are
// numbered over all classes, so a prefix has all of them.
RecordingSource nmnist_source(const std::string& folder);

// Simulated: discs and squares that move up, down, left or right before a 34 x 34 sensor, 8
// classes. Sample i depends on seed and i only.
constexpr int synthetic_classes = 8;
RecordingSource synthetic_source(size_t count, uint64_t seed);

}  // namespace nc
