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
// The triangle of N-MNIST's three saccades, of about 100 ms each.
CameraPath nmnist_saccades();

struct HotPixel {
    uint16_t x, y;
    double rate;  // events a second, of either polarity
};

// A pixel compares the log of its luminance, low-passed, with what it was after its last event.
// Constants marked "fitted" make events of MNIST's digits like those of N-MNIST's recordings of the
// same digits: the first 500 of its training set; the other 500 are for
//   nc_bench events --real nmnist --simulated nmnist-simulated
struct EventCamera {
    size_t side = 34;                     // of the sensor, in pixels: N-MNIST's crop of the ATIS
    int64_t duration = 307'600;           // us: the mean of the last events' times, fitted
    CameraPath path = nmnist_saccades();  // fitted

    // The picture on the monitor, as large in pixels as on the sensor (Orchard et al. 2015).
    double contrast = 10;        // luminance of white over that of black, fitted
    double gamma = 2.2;          // of the monitor: luminance of a byte (byte / 255)^gamma
    bool dark_on_light = false;  // bytes are inverted
    double blur = 0.8;           // standard deviation of the optics, in pixels, fitted

    // The pixels.
    double on = 0.3, off = 0.3;  // thresholds, natural logs of contrast, fitted
    double mismatch = 0.1;       // standard deviation over pixels and polarities, a part of the
                                 // threshold, fitted
    double threshold_noise = 0;  // the same from event to event, fitted
    double latency = 2000;       // us: time constant of the low-pass, fitted
    double refractory = 1500;    // us that a pixel is held in reset after an event, fitted
    double noise_on = 0.33, noise_off = 0.02;  // events a second and pixel, fitted
    std::vector<HotPixel> hot_pixels = {{18, 30, 50}, {7, 15, 24}, {21, 13, 18}};  // fitted
    double start_jitter = 1500;  // us: standard deviation of the path's start, fitted
};

// Simulated recordings of grey pictures. Recording i depends on seed and i only: its pixels'
// mismatch is its own too, so that no network learns one camera's. Error on pictures with colours
// and on constants that mean nothing, by name.
RecordingSource camera_source(LabelledImages, uint64_t seed, const EventCamera& = {});

}  // namespace nc
