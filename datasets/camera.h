// A model of an event camera that looks at pictures through saccades, as N-MNIST was made.
#pragma once

#include <array>

#include "datasets/events.h"
#include "datasets/images.h"

namespace nc {

// Where the picture's middle lies, in pixels from the sensor's: linear between points `step` us
// apart, at rest before the first and after the last.
struct CameraPath {
    int64_t step = 10'000;
    std::vector<std::array<double, 2>> points;  // (x, y), at least one
};
// The triangle of N-MNIST's three saccades, of about 100 ms each; fitted as below.
CameraPath nmnist_saccades();

struct HotPixel {
    uint16_t x, y;
    double rate;  // events a second, of either polarity
};

// A pixel compares the log of its luminance, low-passed, with what it was after its last event
// (Lichtsteiner, Posch, Delbruck 2008).
//
// Constants without a source are fitted: a random search for events of MNIST's digits that are like
// N-MNIST's of the same digits, in counts by pixel, polarity and a tenth of the recording, in rate
// over time, and in intervals and events a pixel. Seen were the first 500 training recordings; on
// the next 500 this shows how alike they are:
//   nc_bench events --real nmnist --simulated nmnist-simulated --skip 500 --samples 500
struct EventCamera {
    size_t side = 34;            // of the sensor, in pixels: N-MNIST's crop of the ATIS
    int64_t duration = 307'600;  // us: N-MNIST's mean
    CameraPath path = nmnist_saccades();

    // The picture on the monitor, as large in pixels as on the sensor (Orchard et al. 2015).
    double contrast = 10.7;     // luminance of white over that of black, more than 1
    double gamma = 1.9;         // of the monitor: luminance of a byte (byte / 255)^gamma
    bool dark_on_light = true;  // the picture's negative is shown, as N-MNIST's polarities tell
    double blur = 0.51;         // standard deviation of the optics, in pixels

    // The pixels.
    double on = 0.2245, off = 0.216;  // thresholds, natural logs of contrast
    double mismatch = 0.11;           // standard deviation of a pixel's thresholds, a part of them
    double latency = 870;             // us: time constant of the low-pass
    double refractory = 1240;         // us that a pixel is held in reset after an event
    // Measured far from the digits: events a second and pixel, and pixels with many more.
    double noise_on = 0.33, noise_off = 0.02;
    std::vector<HotPixel> hot_pixels = {{18, 30, 50}, {7, 15, 24}, {21, 13, 18}};
    double start_jitter = 1400;  // us: standard deviation of the path's start, measured
};

// Simulated recordings of grey pictures. Recording i depends on seed and i only: its pixels'
// mismatch is its own too, so that no network learns one camera's. Error on pictures with colours
// and on constants that mean nothing, by name.
RecordingSource camera_source(LabelledImages, uint64_t seed, const EventCamera& = {});

}  // namespace nc
