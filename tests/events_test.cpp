// Event recordings: files, framings, simulated shapes, and their batches.
#include <filesystem>
#include <numeric>
#include <set>

#include "datasets/events.h"
#include "io/bytes.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

using Bytes = std::vector<uint8_t>;

void add(Bytes& file, uint8_t x, uint8_t y, bool on, uint32_t t) {
    for (const uint32_t byte :
         {uint32_t(x), uint32_t(y), (on ? 128 : 0) | (t >> 16 & 127), t >> 8, t})
        file.push_back(uint8_t(byte & 255));
}

// One event at each of these times, at pixels counted along the row.
Recording at_times(const std::vector<int64_t>& times) {
    Recording out{1, 16, {}};
    for (size_t i = 0; i < times.size(); ++i)
        out.events.push_back({times[i], uint16_t(i % 16), 0, uint8_t(i % 2)});
    return out;
}

std::vector<size_t> bounds(const std::vector<int64_t>& times, const std::string& framing) {
    return frame_bounds(at_times(times), parse_framing(framing));
}

using Sizes = std::vector<size_t>;

}  // namespace

TEST_CASE("N-MNIST: position, polarity, 23 bits of time, overflow marks") {
    Bytes file;
    add(file, 1, 2, true, 0x123456);
    add(file, 33, 33, false, 0x7fffff);
    add(file, 0, 240, true, 5);  // a mark: its own time counts for nothing
    add(file, 0, 0, true, 0x7fffff);
    add(file, 9, 240, false, 0);
    add(file, 3, 4, false, 0x7fffff);
    const Recording r = parse_nmnist(file, "x");
    CHECK(r.height == 34);
    CHECK(r.events == std::vector<Event>{{0x123456, 1, 2, 1},
                                         {0x7fffff, 33, 33, 0},
                                         {0x7fffff + 8192, 0, 0, 1},
                                         {0x7fffff + 16384, 3, 4, 0}});
}

TEST_CASE("N-MNIST: truncated, empty and out of the sensor are errors with their place") {
    Bytes file;
    for (uint8_t i = 0; i < 10; ++i) add(file, i, i, i % 2, 100u * i);
    for (size_t n = 0; n < file.size(); ++n) {
        CAPTURE(n);
        const Bytes cut(file.begin(), file.begin() + ptrdiff_t(n));
        const std::string error = error_of([&] { parse_nmnist(cut, "cut.bin"); });
        // A cut between events is a shorter recording: the format has no length to tell.
        if (n % 5 == 0 && n > 0)
            CHECK(parse_nmnist(cut, "x").events.size() == n / 5);
        else
            CHECK(contains(error, n == 0 ? "[cut.bin] no events" : "[cut.bin] truncated"));
    }
    Bytes marks;
    add(marks, 0, 240, false, 0);
    CHECK(contains(error_of([&] { parse_nmnist(marks, "x"); }), "no events"));
    add(file, 34, 0, true, 2000);
    CHECK(error_of([&] { parse_nmnist(file, "x"); }) ==
          "[x] event (34, 0) at byte 50 is outside 34 x 34");
    file.resize(50);
    add(file, 0, 34, true, 2000);
    CHECK(contains(error_of([&] { parse_nmnist(file, "x"); }), "(0, 34)"));
    CHECK(parse_nmnist(file, "x", 180, 240).width == 240);  // N-Caltech
}

TEST_CASE("N-MNIST: events out of order are sorted, equal times keep theirs") {
    Bytes file;
    add(file, 0, 0, true, 30);
    add(file, 1, 0, true, 10);
    add(file, 2, 0, true, 30);
    add(file, 3, 0, true, 10);
    std::vector<int> xs;
    for (const Event& e : parse_nmnist(file, "x").events) xs.push_back(e.x);
    CHECK(xs == std::vector<int>{1, 3, 0, 2});
}

TEST_CASE("framings are read by name and written back") {
    for (const char* text : {"tonic:bins=10", "tonic:window=10000us", "tonic:count=1000",
                             "sj:number=16", "sj:time=16"})
        CHECK(parse_framing(text).str() == text);
    CHECK(parse_framing("tonic:window=10ms").value == 10'000);
    CHECK(parse_framing("tonic:window=2s").value == 2'000'000);
    for (const char* text :
         {"", "tonic:bins", "tonic:bins=", "tonic:bins=0", "tonic:bins=-1", "tonic:bins=1.5",
          "tonic:bins=10ms", "tonic:window=10", "tonic:window=10m", "bins=10", "sj:bins=10",
          "sj:time=99999999999999999999", "tonic:window=9000000000000s", "tonic:bins=200000"}) {
        CAPTURE(text);
        CHECK(contains(error_of([&] { parse_framing(text); }), "[framing]"));
    }
}

TEST_CASE("framings slice as the tools they are named after do") {
    const std::vector<int64_t> times = {100, 101, 105, 110, 115, 119, 120, 129, 130, 131};
    // (131 - 100) / 3 = 10: windows [100, 110), [110, 120), [120, 130); two events are left over.
    CHECK(bounds(times, "tonic:bins=3") == Sizes{0, 3, 6, 8});
    CHECK(bounds(times, "sj:time=3") == Sizes{0, 3, 6, 10});
    CHECK(bounds(times, "tonic:window=15us") == Sizes{0, 4, 8});  // [100, 115), [115, 130)
    CHECK(bounds(times, "tonic:window=31us") == Sizes{0, 9});     // the event at 131 is outside
    CHECK(bounds(times, "tonic:window=1ms") == Sizes{0, 10});     // at least one
    CHECK(bounds(times, "tonic:count=4") == Sizes{0, 4, 8});
    CHECK(bounds(times, "tonic:count=10") == Sizes{0, 10});
    CHECK(bounds(times, "tonic:count=11") == Sizes{0, 10});
    CHECK(bounds(times, "sj:number=3") == Sizes{0, 3, 6, 10});
    CHECK(bounds(times, "sj:number=10") == Sizes{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
    // Fewer events than frames: nothing but the remainder.
    CHECK(bounds({5, 6}, "sj:number=3") == Sizes{0, 0, 0, 2});
    CHECK(bounds({5, 6}, "sj:time=3") == Sizes{0, 0, 0, 2});
    CHECK(bounds({5, 6}, "tonic:bins=3") == Sizes{0, 0, 0, 0});
    CHECK(bounds({5}, "tonic:count=3") == Sizes{0, 1});
    CHECK(contains(error_of([&] { bounds({}, "sj:number=3"); }), "without events"));
    CHECK(contains(error_of([&] { bounds({0, 1'000'000'000}, "tonic:window=1us"); }), "frames"));
}

TEST_CASE("frames count events by polarity") {
    Recording r{2, 3, {}};
    r.events = {{0, 1, 0, 1}, {1, 1, 0, 1}, {2, 2, 1, 0}, {3, 0, 1, 1}};
    const Tensor frames = to_frames(r, parse_framing("sj:number=2"));
    CHECK(frames.shape() == Shape{2, 2, 3, 2});
    std::vector<float> wanted(24);
    wanted[(0 * 3 + 1) * 2 + 1] = 2;
    wanted[12 + (1 * 3 + 2) * 2 + 0] = 1;
    wanted[12 + (1 * 3 + 0) * 2 + 1] = 1;
    CHECK(frames.to_vector<float>() == wanted);
}

TEST_CASE("batches of recordings are their frames, [T, N, H, W, 2]") {
    for (const char* text :
         {"tonic:bins=7", "tonic:window=50ms", "tonic:count=100", "sj:number=5", "sj:time=4"}) {
        CAPTURE(text);
        const Framing framing = parse_framing(text);
        const RecordingSource source = synthetic_source(12, 3);
        const EventDataSets sets =
            event_datasets(source, synthetic_source(8, 4), synthetic_classes, framing);
        Compute compute(Device{}, 1);
        Random random(0);
        const std::vector<uint32_t> indices = {7, 2};
        const Batch batch = sets.train->batch(compute, indices, {}, random);
        const size_t T = size_t(sets.train->steps());
        CHECK(batch.temporal);
        CHECK(batch.labels == std::vector<int32_t>{7, 2});
        CHECK(batch.x.shape() == Shape{T, 2, 34, 34, 2});
        CHECK(sets.test->steps() == sets.train->steps());
        if (framing.fixed_frames()) CHECK(T == size_t(framing.value));
        const auto x = batch.x.to_vector<float>();
        const size_t frame = 34 * 34 * 2;
        for (size_t i = 0; i < 2; ++i) {
            const auto alone = to_frames(source.recording(indices[i]), framing).to_vector<float>();
            REQUIRE(alone.size() <= T * frame);
            bool same = true;
            for (size_t t = 0; t < T; ++t)
                for (size_t k = 0; k < frame; ++k) {
                    const size_t at = t * frame + k;
                    same &= x[(t * 2 + i) * frame + k] == (at < alone.size() ? alone[at] : 0);
                }
            CHECK(same);
        }
    }
}

TEST_CASE("a shifted recording is translated as one; other augmentations are refused") {
    const EventDataSets sets = event_datasets(synthetic_source(4, 3), synthetic_source(4, 4),
                                              synthetic_classes, parse_framing("sj:number=2"));
    Compute compute(Device{}, 1);
    AugmentOptions options;
    options.shift = 3;
    Random none(0);
    const auto plain = sets.train->batch(compute, {1}, {}, none).x.to_vector<float>();
    std::set<std::pair<int, int>> seen;
    for (uint64_t seed = 0; seed < 20; ++seed) {
        Random random(seed);
        const auto moved = sets.train->batch(compute, {1}, options, random).x.to_vector<float>();
        int found = 0;
        for (int dy = -3; dy <= 3; ++dy)
            for (int dx = -3; dx <= 3; ++dx) {
                bool same = true;
                for (int t = 0; t < 2 && same; ++t)
                    for (int y = 0; y < 34 && same; ++y)
                        for (int x = 0; x < 34 && same; ++x)
                            for (int p = 0; p < 2; ++p) {
                                const int sy = y + dy, sx = x + dx;
                                const bool in = sy >= 0 && sy < 34 && sx >= 0 && sx < 34;
                                const float from =
                                    in ? plain[size_t(((t * 34 + sy) * 34 + sx) * 2 + p)] : 0;
                                same &= moved[size_t(((t * 34 + y) * 34 + x) * 2 + p)] == from;
                            }
                if (same) {
                    ++found;
                    seen.insert({dy, dx});
                }
            }
        CHECK(found == 1);
    }
    CHECK(seen.size() > 5);
    options.flip = true;
    CHECK(contains(error_of([&] { sets.train->batch(compute, {1}, options, none); }), "shift"));
}

TEST_CASE("simulated shapes depend on seed and sample only, and classes differ") {
    const RecordingSource a = synthetic_source(16, 5), b = synthetic_source(4, 5);
    CHECK(a.labels[9] == 1);
    CHECK(a.recording(3).events == b.recording(3).events);
    CHECK(a.recording(3).events != a.recording(11).events);
    CHECK(a.recording(3).events != synthetic_source(4, 6).recording(3).events);
    // Moving right the leading edge is on: ON events lie right of OFF events, and so on.
    for (size_t i = 0; i < 16; ++i) {
        CAPTURE(i);
        double x[2] = {}, y[2] = {}, n[2] = {};
        for (const Event& e : a.recording(i).events) {
            x[e.p] += e.x;
            y[e.p] += e.y;
            ++n[e.p];
        }
        REQUIRE(n[0] > 50);
        REQUIRE(n[1] > 50);
        const double right = x[1] / n[1] - x[0] / n[0], down = y[1] / n[1] - y[0] / n[0];
        const double along[4] = {right, -right, down, -down};
        CHECK(along[i % 4] == *std::max_element(along, along + 4));
    }
}

TEST_CASE("synthetic events load by name; T sets the bins") {
    DataRequest request;
    request.name = "synthetic-events";
    request.T = 6;
    const DataSets sets = load_data(request);
    CHECK(sets.train->size() == 2000);
    CHECK(sets.test->size() == 400);
    CHECK(sets.train->steps() == 6);
    CHECK(sets.framing == "tonic:bins=6");
    CHECK(contains(sets.note, "simulated"));
    request.mean = {0};
    CHECK(contains(error_of([&] { load_data(request); }), "mean and std do not apply"));
}

TEST_CASE("N-MNIST folders: numbered files over classes, errors that name the folder") {
    const TempFolder folder;
    namespace fs = std::filesystem;
    const auto put = [&](const std::string& name, uint8_t x) {
        fs::create_directories(fs::path(folder / name).parent_path());
        Bytes file;
        add(file, x, 0, true, 10);
        add(file, x, 0, true, 20);
        write_file(folder / name, file.data(), file.size());
    };
    put("nmnist/Train/3/00002.bin", 2);
    put("nmnist/Train/1/00003.bin", 3);
    put("nmnist/Train/9/00001.bin", 1);
    put("nmnist/Train/9/.hidden.bin", 1);
    put("nmnist/Train/9/notes.txt", 1);
    const RecordingSource source = nmnist_source(folder / "nmnist/Train");
    CHECK(source.labels == std::vector<int32_t>{9, 3, 1});
    CHECK(source.recording(2).events[0].x == 3);

    DataRequest request;
    request.name = "nmnist";
    request.root = folder.str();
    request.framing = "sj:number=2";
    CHECK(contains(error_of([&] { load_data(request); }), folder / "nmnist/Test"));
    put("nmnist/Test/0/00001.bin", 1);
    const DataSets sets = load_data(request);
    CHECK(sets.note == "subset: 3 + 1 recordings");
    CHECK(sets.framing == "sj:number=2");
    put("nmnist/Test/10/00002.bin", 1);
    CHECK(contains(error_of([&] { load_data(request); }), "not a class"));
    fs::remove_all(folder / "nmnist/Test/10");
    write_file(folder / "nmnist/Train/9/00001.bin", std::string("123456"));
    CHECK(contains(error_of([&] { load_data(request); }), "00001.bin"));
}

TEST_CASE("real N-MNIST subset loads and is labelled as one") {
    DataRequest request;
    request.name = "nmnist";
    request.root = data_root_or_skip("nmnist");
    if (request.root.empty()) return;
    request.T = 10;
    const DataSets sets = load_data(request);
    CHECK(sets.train->steps() == 10);
    CHECK(sets.train->sample_shape() == Shape{34, 34, 2});
    CHECK(sets.train->classes() == 10);
    if (sets.train->size() != 60000)
        CHECK(sets.note == "subset: " + std::to_string(sets.train->size()) + " + " +
                               std::to_string(sets.test->size()) + " recordings");
    // Digits and saccades: thousands of events a recording, all classes in the first hundred.
    std::set<int32_t> classes;
    for (size_t i = 0; i < 100; ++i) classes.insert(sets.test->label(i));
    CHECK(classes.size() == 10);
    Compute compute(Device{}, 1);
    Random random(0);
    const auto x = sets.test->batch(compute, {0, 1, 2, 3}, {}, random).x.to_vector<float>();
    const double events = std::accumulate(x.begin(), x.end(), 0.0) / 4;
    CHECK(events > 1000);
    CHECK(events < 20000);
}
