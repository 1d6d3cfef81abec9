// The simulated event camera: what a hand-made edge must cause, and its likeness to real events.
#include <algorithm>
#include <map>
#include <numeric>

#include "datasets/camera.h"
#include "datasets/idx.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

// A camera without noise, blur or latency: thresholds alone.
EventCamera ideal_camera() {
    EventCamera c;
    c.side = 16;
    c.duration = 120'000;
    c.contrast = 10;
    c.dark_on_light = false;
    c.on = 0.5;
    c.off = 0.45;
    c.blur = c.mismatch = c.latency = c.refractory = c.noise_on = c.noise_off = c.start_jitter = 0;
    c.hot_pixels.clear();
    return c;
}

// Black on the left, white on the right, larger than the camera sees.
LabelledImages edge_picture(size_t count = 1) {
    constexpr size_t side = 40;
    LabelledImages out;
    out.sample = {side, side, 1};
    out.labels.assign(count, 0);
    for (size_t i = 0; i < count * side * side; ++i)
        out.images.push_back(i % side < side / 2 ? 0 : 255);
    return out;
}

// Rings: a picture with edges in all directions.
LabelledImages rings() {
    LabelledImages out;
    out.sample = {28, 28, 1};
    out.labels = {0, 1, 2};
    for (int i = 0; i < 3 * 28 * 28; ++i) {
        const int y = i / 28 % 28 - 14, x = i % 28 - 14, r = x * x + y * y;
        out.images.push_back(r > 30 && r < 90 ? 255 : 0);
    }
    return out;
}

// The times of each pixel's events.
std::map<std::pair<int, int>, std::vector<int64_t>> by_pixel(const Recording& r) {
    std::map<std::pair<int, int>, std::vector<int64_t>> out;
    for (const Event& e : r.events) out[{e.x, e.y}].push_back(e.t);
    return out;
}

double alike(const Recording& a, const Recording& b) {
    std::vector<double> x(a.height * a.width), y(x.size());
    for (const Event& e : a.events) ++x[e.y * a.width + e.x];
    for (const Event& e : b.events) ++y[e.y * b.width + e.x];
    const double n = double(x.size()), mx = double(a.events.size()) / n,
                 my = double(b.events.size()) / n;
    double xy = 0, xx = 0, yy = 0;
    for (size_t i = 0; i < x.size(); ++i) {
        xy += (x[i] - mx) * (y[i] - my);
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
    }
    return xy / std::sqrt(xx * yy);
}

}  // namespace

TEST_CASE("event camera: an edge causes its log contrast over the threshold in events") {
    EventCamera c = ideal_camera();
    // Six pixels to the left in 60 ms, and back.
    c.path = {60'000, {{0, 0}, {-6, 0}, {0, 0}}};
    const Recording r = camera_source(edge_picture(), 1, c).recording(0);
    const auto pixels = by_pixel(r);
    CHECK(pixels.size() == 6 * 16);
    // ln 10 = 2.303: four thresholds of 0.5 up; from 2.0 four of 0.45 down, to 0.2.
    CHECK(r.events.size() == 6 * 16 * (4 + 4));
    for (const Event& e : r.events) CHECK(e.p == (e.t < 60'000));
    // Linear in the log from one pixel to the next: the first to turn white takes 10 ms for it.
    const double whole = std::log(10.0);
    const auto& first = pixels.at({7, 3});
    for (int k = 0; k < 4; ++k)
        CHECK(std::abs(double(first[size_t(k)]) - 10'000 * 0.5 * (k + 1) / whole) <= 1);
    for (int k = 0; k < 4; ++k)
        CHECK(std::abs(double(first[size_t(4 + k)]) -
                       (110'000 + 10'000 * (whole - 2 + 0.45 * (k + 1)) / whole)) <= 1);
    // Its negative: the same edge the other way.
    c.dark_on_light = true;
    c.off = 0.5;
    c.path.points.pop_back();
    const Recording negative = camera_source(edge_picture(), 1, c).recording(0);
    CHECK(negative.events.size() == 6 * 16 * 4);
    for (const Event& e : negative.events) CHECK(e.p == 0);
    // A threshold that the contrast does not reach.
    c.off = 2.31;
    CHECK(camera_source(edge_picture(), 1, c).recording(0).events.empty());
}

TEST_CASE("event camera: a still picture causes nothing but noise") {
    EventCamera c;
    c.path.points = {{1.3, -0.4}};
    c.noise_on = c.noise_off = 0;
    c.hot_pixels.clear();
    CHECK(camera_source(rings(), 3, c).recording(0).events.empty());

    c.noise_off = 4;
    c.hot_pixels = {{5, 6, 400}};
    const double seconds = double(c.duration) * 1e-6;
    const Recording r = camera_source(rings(), 3, c).recording(0);
    std::array<double, 2> hot = {}, cold = {};
    for (const Event& e : r.events) ++(e.x == 5 && e.y == 6 ? hot : cold)[e.p];
    const auto near = [](double found, double wanted) {
        return std::abs(found - wanted) < 5 * std::sqrt(wanted);
    };
    CHECK(cold[1] == 0);
    CHECK(near(cold[0], 4 * seconds * 34 * 34));
    CHECK(near(hot[0] + hot[1], 404 * seconds));
    CHECK(near(hot[1], 200 * seconds));
}

TEST_CASE("event camera: times ascend within the recording and sensor; the pixels' reset is kept") {
    EventCamera c;
    c.noise_on = c.noise_off = 0;
    c.hot_pixels.clear();
    const auto shortest = [&] {
        const Recording r = camera_source(rings(), 4, c).recording(1);
        REQUIRE(r.events.size() > 500);
        int64_t last = 0, out = c.duration;
        bool ascending = true, inside = true;
        for (const Event& e : r.events) {
            ascending &= e.t >= last;
            inside &= e.x < c.side && e.y < c.side && e.t < c.duration;
            last = e.t;
        }
        CHECK(ascending);
        CHECK(inside);
        for (const auto& [at, times] : by_pixel(r))
            for (size_t i = 1; i < times.size(); ++i) out = std::min(out, times[i] - times[i - 1]);
        return out;
    };
    c.refractory = 5000;
    CHECK(shortest() >= 4999);  // times are whole microseconds
    CHECK(shortest() < 6000);
    c.refractory = 0;
    CHECK(shortest() < 1500);
}

TEST_CASE("event camera: mismatch makes pixels differ, latency makes them late") {
    EventCamera c = ideal_camera();
    c.path = {60'000, {{0, 0}, {-6, 0}}};
    const Recording plain = camera_source(edge_picture(), 1, c).recording(0);
    c.latency = 4000;
    const Recording late = camera_source(edge_picture(), 1, c).recording(0);
    CHECK(by_pixel(late).at({7, 3})[0] > by_pixel(plain).at({7, 3})[0] + 1000);
    c.latency = 0;
    c.mismatch = 0.3;
    std::map<size_t, int> counts;
    const auto differ = by_pixel(camera_source(edge_picture(), 1, c).recording(0));
    for (const auto& [at, times] : differ) ++counts[times.size()];
    CHECK(counts.size() > 2);
}

TEST_CASE("event camera: recording i depends on the seed and i only") {
    const RecordingSource a = camera_source(rings(), 7), b = camera_source(rings(), 7);
    const Recording last = a.recording(2);
    CHECK(a.recording(0).events == b.recording(0).events);
    CHECK(last.events == b.recording(2).events);
    CHECK(a.recording(0).events != last.events);  // the same picture
    CHECK(a.recording(0).events != camera_source(rings(), 8).recording(0).events);
}

TEST_CASE("event camera: constants that mean nothing are errors by name") {
    const auto refusal = [](auto change) {
        EventCamera c;
        change(c);
        return error_of([&] { camera_source(edge_picture(), 1, c); });
    };
    CHECK(contains(refusal([](EventCamera& c) { c.on = 0; }), "on 0.0"));
    CHECK(contains(refusal([](EventCamera& c) { c.off = NAN; }), "off nan"));
    CHECK(contains(refusal([](EventCamera& c) { c.contrast = 1; }), "contrast 1.0"));
    CHECK(contains(refusal([](EventCamera& c) { c.blur = -1; }), "blur -1.0"));
    CHECK(contains(refusal([](EventCamera& c) { c.side = 0; }), "side"));
    CHECK(contains(refusal([](EventCamera& c) { c.side = 1000; }), "side 1000"));
    CHECK(contains(refusal([](EventCamera& c) { c.path.points.clear(); }), "path"));
    CHECK(contains(refusal([](EventCamera& c) { c.path.points = {{0, 1e9}}; }), "path"));
    CHECK(contains(refusal([](EventCamera& c) { c.hot_pixels = {{34, 0, 1}}; }), "hot pixel"));
    LabelledImages colours = edge_picture();
    colours.sample = {40, 10, 4};
    CHECK(contains(error_of([&] { camera_source(colours, 1); }), "40"));
}

TEST_CASE("simulated N-MNIST is like the real recordings of the same digits") {
    const std::string root = data_root_or_skip("nmnist");
    if (root.empty() || data_root_or_skip("mnist").empty()) return;
    const RecordingSets real = load_recordings("nmnist", root);
    const RecordingSets simulated = load_recordings("nmnist-simulated", root);
    CHECK(simulated.train.labels.size() == 60000);
    CHECK(simulated.test.labels.size() == 10000);
    CHECK(contains(simulated.note, "simulated"));
    // None of these was seen by the fit.
    double likeness = 0, events = 0, found = 0;
    constexpr size_t from = 500, count = 20;
    for (size_t i = from; i < from + count; ++i) {
        CHECK(real.train.labels[i] == simulated.train.labels[i]);
        const Recording a = real.train.recording(i), b = simulated.train.recording(i);
        likeness += alike(a, b) / count;
        events += double(a.events.size());
        found += double(b.events.size());
    }
    CHECK(likeness > 0.94);
    CHECK(found > 0.9 * events);
    CHECK(found < 1.1 * events);
}

TEST_CASE("simulated N-MNIST wants MNIST, and says so") {
    const TempFolder folder;
    DataRequest request;
    request.name = "nmnist-simulated";
    request.root = folder.str();
    try {
        load_data(request);
        CHECK(false);
    } catch (const Error& e) {
        CHECK(contains(e.what(), "mnist is in none of"));
        CHECK(contains(e.hint, "datasets/fetch.sh mnist"));
    }
    std::filesystem::create_directories(folder / "mnist");
    CHECK(contains(error_of([&] { load_data(request); }), "train-images-idx3-ubyte"));
    CHECK(contains(error_of([] { load_recordings("mnist", ""); }), "no data set of recordings"));
}
