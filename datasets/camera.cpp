// An event camera before a monitor (pixels: Lichtsteiner, Posch, Delbruck 2008; N-MNIST: Orchard,
// Jayawant, Cohen, Thakor 2015).
#include "datasets/camera.h"

#include <algorithm>
#include <cmath>

#include "datasets/streams.h"

namespace nc {
namespace {

constexpr double tick = 1000;  // us, between two looks at the picture

// How far the path strays from the middle, in whole pixels, with one more to look between.
size_t reach(const CameraPath& path) {
    double out = 0;
    for (const auto& [x, y] : path.points) out = std::max({out, std::abs(x), std::abs(y)});
    return size_t(std::ceil(out)) + 1;
}

void check(const EventCamera& c) {
    const auto want = [](bool holds, const char* name, double value, const char* what) {
        if (!holds)
            throw Error(std::string("[event camera] ") + name + " " + std::to_string(value) +
                        " is not " + what);
    };
    constexpr double most = 180;  // pixels, so that a data set can hold them
    want(c.side >= 1 && double(c.side) <= most, "side", double(c.side), "from 1 to 180");
    want(!c.path.points.empty() && c.path.step > 0, "path.step", double(c.path.step),
         "above 0, of a path with points");
    for (const auto& [x, y] : c.path.points)
        want(std::abs(x) <= most && std::abs(y) <= most, "path.points", std::abs(x) + std::abs(y),
             "near the sensor");
    want(c.duration > 0, "duration", double(c.duration), "above 0");
    want(std::isfinite(c.contrast) && c.contrast > 1, "contrast", c.contrast, "above 1");
    want(std::isfinite(c.gamma) && c.gamma > 0, "gamma", c.gamma, "above 0");
    constexpr double least = 0.01;  // below it events would have no end
    for (const auto& [name, value] : {std::pair{"on", c.on}, {"off", c.off}})
        want(std::isfinite(value) && value >= least, name, value, "at least 0.01");
    for (const auto& [name, value] : {std::pair{"blur", c.blur},
                                      {"mismatch", c.mismatch},
                                      {"latency", c.latency},
                                      {"refractory", c.refractory},
                                      {"noise_on", c.noise_on},
                                      {"noise_off", c.noise_off},
                                      {"start_jitter", c.start_jitter}})
        want(std::isfinite(value) && value >= 0, name, value, "at least 0");
    for (const auto& hot : c.hot_pixels)
        want(hot.x < c.side && hot.y < c.side && std::isfinite(hot.rate) && hot.rate >= 0,
             "hot pixel's rate", hot.rate, "at least 0, of a pixel on the sensor");
}

// Convolves `count` values, `stride` apart, with a symmetric kernel given from its middle on.
void blur_line(double* line, size_t count, size_t stride, const std::vector<double>& half,
               std::vector<double>& copy) {
    copy.resize(count);
    for (size_t i = 0; i < count; ++i) copy[i] = line[i * stride];
    for (size_t i = 0; i < count; ++i) {
        double sum = half[0] * copy[i];
        for (size_t j = 1; j < half.size(); ++j)
            sum += half[j] * ((i >= j ? copy[i - j] : 0) + (i + j < count ? copy[i + j] : 0));
        line[i * stride] = sum;
    }
}

void blur(std::vector<double>& plane, size_t side, double deviation) {
    std::vector<double> half = {1}, copy;
    double sum = 1;
    for (double i = 1; i <= std::ceil(3 * deviation); ++i) {
        half.push_back(std::exp(-i * i / (2 * deviation * deviation)));
        sum += 2 * half.back();
    }
    for (double& value : half) value /= sum;
    for (size_t y = 0; y < side; ++y) blur_line(plane.data() + y * side, side, 1, half, copy);
    for (size_t x = 0; x < side; ++x) blur_line(plane.data() + x, side, side, half, copy);
}

// The logs of the luminance [side, side] over that of black, around the picture's middle.
struct Scene {
    size_t side;
    std::vector<double> values;
};

Scene scene_of(const EventCamera& c, const uint8_t* picture, size_t h, size_t w) {
    const size_t side = c.side + 2 * reach(c.path);
    Scene out{side, std::vector<double>(side * side)};
    double luminance[256];
    for (int byte = 0; byte < 256; ++byte) luminance[byte] = std::pow(byte / 255.0, c.gamma);
    const ptrdiff_t top = (ptrdiff_t(side) - ptrdiff_t(h)) / 2;
    const ptrdiff_t left = (ptrdiff_t(side) - ptrdiff_t(w)) / 2;
    for (size_t i = 0; i < out.values.size(); ++i) {  // black around the picture
        const ptrdiff_t y = ptrdiff_t(i / side) - top, x = ptrdiff_t(i % side) - left;
        if (y >= 0 && y < ptrdiff_t(h) && x >= 0 && x < ptrdiff_t(w))
            out.values[i] = luminance[picture[size_t(y) * w + size_t(x)]];
    }
    if (c.blur > 0) blur(out.values, side, c.blur);
    for (double& value : out.values) {
        const double light = c.dark_on_light ? 1 - value : value;
        value = std::log1p((c.contrast - 1) * light);
    }
    return out;
}

// What the sensor [n, n] sees when the picture's middle is at (x, y).
void look(const Scene& scene, size_t n, std::array<double, 2> at, std::vector<double>& seen) {
    const double margin = double(scene.side - n) / 2;
    const double from_x = margin - at[0], from_y = margin - at[1];
    const size_t left = size_t(from_x), top = size_t(from_y);
    const double fx = from_x - double(left), fy = from_y - double(top);
    for (size_t y = 0; y < n; ++y) {
        const double* a = scene.values.data() + (top + y) * scene.side + left;
        const double* b = a + scene.side;
        double* out = seen.data() + y * n;
        for (size_t x = 0; x < n; ++x)
            out[x] = (1 - fy) * ((1 - fx) * a[x] + fx * a[x + 1]) +
                     fy * ((1 - fx) * b[x] + fx * b[x + 1]);
    }
}

std::array<double, 2> position(const CameraPath& path, double t) {
    const size_t last = path.points.size() - 1;
    const double at = std::clamp(t / double(path.step), 0.0, double(last));
    const auto& a = path.points[size_t(at)];
    const auto& b = path.points[std::min(size_t(at) + 1, last)];
    const double f = at - std::floor(at);
    return {a[0] + f * (b[0] - a[0]), a[1] + f * (b[1] - a[1])};
}

// Of each pixel and polarity, OFF first: what its threshold is, as a part of the camera's.
std::vector<double> draw_mismatch(const EventCamera& c, Random& random) {
    constexpr double least = 0.2;  // no pixel fires at nothing
    std::vector<double> out(c.side * c.side * 2);
    for (double& scale : out) scale = std::max(least, 1 + c.mismatch * random.normal());
    return out;
}

// The sensor during one recording.
class Pixels {
 public:
    Pixels(const EventCamera& c, Random& random, std::vector<Event>& events)
        : camera_(c), mismatch_(draw_mismatch(c, random)), events_(events) {}

    void begin(const std::vector<double>& seen) {
        value_ = seen;
        above_ = below_ = ready_ = std::vector<double>(seen.size());
        for (size_t i = 0; i < seen.size(); ++i) compare_with(i, seen[i]);
    }

    // A tick from time t on, at whose end the sensor sees this.
    void advance(double t, const std::vector<double>& seen) {
        const double part = camera_.latency > 0 ? -std::expm1(-tick / camera_.latency) : 1;
        for (size_t i = 0; i < seen.size(); ++i) {
            const double from = value_[i];
            value_[i] += part * (seen[i] - from);
            if (value_[i] >= above_[i] || value_[i] <= below_[i] || ready_[i] > t)
                fire(i, t, from, value_[i]);
        }
    }

 private:
    // Events of a pixel whose value goes from v0 to v1 in the tick from t0 on.
    void fire(size_t i, double t0, double v0, double v1) {
        for (double t = t0;;) {
            if (ready_[i] > t) {  // held in reset, then compares with what it finds
                t = ready_[i];
                if (t >= t0 + tick) return;
                compare_with(i, v0 + (v1 - v0) * (t - t0) / tick);
            }
            const bool on = v1 >= above_[i];
            if (!on && v1 > below_[i]) return;
            const double level = on ? above_[i] : below_[i];
            if (v1 != v0) t = std::clamp(t0 + (level - v0) / (v1 - v0) * tick, t, t0 + tick);
            const size_t side = camera_.side;
            events_.push_back({int64_t(t), uint16_t(i % side), uint16_t(i / side), on});
            compare_with(i, level);
            ready_[i] = t + camera_.refractory;
        }
    }

    void compare_with(size_t i, double value) {
        const double* scale = mismatch_.data() + 2 * i;
        above_[i] = value + camera_.on * scale[1];
        below_[i] = value - camera_.off * scale[0];
    }

    const EventCamera& camera_;
    const std::vector<double> mismatch_;
    std::vector<Event>& events_;
    // Logs of luminance: now, and where an event is due; the end of the reset, in us.
    std::vector<double> value_, above_, below_, ready_;
};

// Events of nothing at a pixel, a Poisson process of so many a second.
void add_noise(std::vector<Event>& events, double rate, int64_t duration, Random& random,
               const std::function<Event(int64_t)>& event) {
    if (rate == 0) return;
    for (double t = 0;;) {
        t -= std::log1p(-random.uniform()) / rate * 1e6;
        if (t >= double(duration)) return;
        events.push_back(event(int64_t(t)));
    }
}

Recording see(const EventCamera& c, const uint8_t* picture, size_t h, size_t w, Random random) {
    Recording out{c.side, c.side, {}};
    const Scene scene = scene_of(c, picture, h, w);
    const double start = c.start_jitter * random.normal();
    std::vector<double> seen(c.side * c.side);
    Pixels pixels(c, random, out.events);
    look(scene, c.side, position(c.path, -start), seen);
    pixels.begin(seen);
    for (double t = 0; t < double(c.duration); t += tick) {
        look(scene, c.side, position(c.path, t + tick - start), seen);
        pixels.advance(t, seen);
    }
    std::erase_if(out.events, [&](const Event& e) { return e.t >= c.duration; });
    const auto anywhere = [&](uint8_t p) {
        return [&c, &random, p](int64_t t) {
            const uint64_t i = random.below(c.side * c.side);
            return Event{t, uint16_t(i % c.side), uint16_t(i / c.side), p};
        };
    };
    const double area = double(c.side * c.side);
    add_noise(out.events, area * c.noise_off, c.duration, random, anywhere(0));
    add_noise(out.events, area * c.noise_on, c.duration, random, anywhere(1));
    for (const auto& hot : c.hot_pixels)
        add_noise(out.events, hot.rate, c.duration, random, [&](int64_t t) {
            return Event{t, hot.x, hot.y, uint8_t(random.below(2))};
        });
    std::stable_sort(out.events.begin(), out.events.end(),
                     [](const Event& a, const Event& b) { return a.t < b.t; });
    return out;
}

}  // namespace

CameraPath nmnist_saccades() {
    return {10'000, {{-2.35, -2.07}, {-2.55, -2.11}, {-2.71, -1.45}, {-2.60, -0.86}, {-2.62, 0.28},
                     {-2.65, 1.63},  {-2.15, 2.79},  {-1.65, 3.39},  {-1.26, 3.37},  {-1.35, 3.52},
                     {-1.20, 3.30},  {-1.09, 3.32},  {-0.81, 3.38},  {-0.43, 3.10},  {0.44, 2.59},
                     {1.16, 1.17},   {1.39, -0.02},  {1.70, -1.19},  {2.03, -1.46},  {2.13, -1.61},
                     {2.15, -1.74},  {2.42, -1.57},  {2.44, -1.74},  {2.21, -1.75},  {1.63, -1.38},
                     {0.78, -1.75},  {-0.31, -1.60}, {-1.21, -2.09}, {-1.83, -1.93}, {-2.28, -1.83},
                     {-2.42, -1.90}, {-2.45, -1.90}}};
}

RecordingSource camera_source(LabelledImages images, uint64_t seed, const EventCamera& camera) {
    check(camera);
    if (images.sample.rank() != 3 || images.sample[2] != 1)
        throw Error("[event camera] pictures are [H, W, 1], not " + images.sample.str());
    RecordingSource out;
    out.labels = images.labels;
    out.simulated = true;
    out.recording = [camera, seed, shape = images.sample,
                     pictures = std::move(images.images)](size_t i) {
        return see(camera, pictures.data() + i * shape.elements(), shape[0], shape[1],
                   Random(seed, streams::camera + i));
    };
    return out;
}

}  // namespace nc
