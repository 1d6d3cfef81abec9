// What nc_bench events compares: what recordings of two data sets are like, and how alike those of
// the same pictures are.
#pragma once

#include <string>
#include <vector>

#include "datasets/events.h"
#include "io/json.h"

namespace nc::bench {

// A column of the comparison: figures of a data set's recordings, by name, with their units.
struct EventFigures {
    std::vector<std::pair<std::string, double>> values;
    std::vector<double> rate;  // events a recording in each bin of 10 ms
};

struct EventComparison {
    size_t samples = 0;
    EventFigures real, simulated;
    double rate_correlation = 0;         // of the two rates over time
    double rate_difference_percent = 0;  // sum of |real - simulated| over the sum of real
    // Means over recordings of the same picture, which data sets with the same labels at the same
    // places are taken to have; else not paired.
    bool paired = false;
    double image_correlation = 0;     // of events a pixel
    double polarity_correlation = 0;  // of ON minus OFF events a pixel, in thirds of 100 ms
    double other_correlation = 0;     // as image_correlation, of the next real one of its class
};

// Recordings [first, first + count) of both. Error (kind data) where one has fewer, and where the
// sensors differ.
EventComparison compare_events(const RecordingSource& real, const RecordingSource& simulated,
                               size_t first, size_t count);
std::string to_text(const EventComparison&, const std::string& real, const std::string& simulated);
Json to_json(const EventComparison&);

}  // namespace nc::bench
