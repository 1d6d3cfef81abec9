// Event recordings in every format: hand-encoded files, clocks that wrap, disorder, frames on disk.
#include "datasets/recordings.h"

#include "io/npy.h"
#include "tests/check.h"
#include "tests/recording_files.h"

using namespace nc;
using namespace nc::test;

namespace {

const RecordingOptions small = {"", 34, 34};

Source over(const Bytes& file, const std::string& name = "x") {
    return Source(file.data(), file.size(), name);
}

std::vector<Event> events_of(const Bytes& file, const std::string& name,
                             const RecordingOptions& options = {}) {
    return read_recording(over(file, name), options).events;
}

std::string error(const Bytes& file, const std::string& name,
                  const RecordingOptions& options = {}) {
    return error_of([&] { events_of(file, name, options); });
}

std::vector<Event> some_events(size_t n, uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<Event> out;
    for (size_t i = 0; i < n; ++i)
        out.push_back({int64_t(1000 + 7 * i), uint16_t(random() % 34), uint16_t(random() % 34),
                       uint8_t(random() % 2)});
    return out;
}

void words16(Bytes& out, std::initializer_list<uint16_t> words) {
    for (const uint16_t word : words) put(out, word, 2);
}

}  // namespace

TEST_CASE("recordings: every format is recognised and read, from memory and from disk") {
    const TempFolder folder;
    const auto events = some_events(300, 1);
    for (const auto& f : recording_files) {
        CAPTURE(f.name);
        const Bytes file = f.encode(events);
        CHECK(format_of(over(file, f.file)) == f.name);
        CHECK(events_of(file, f.file, small) == events);
        write_file(folder / f.file, file.data(), file.size());
        CHECK(read_recording(Source(folder / f.file), small).events == events);
        RecordingOptions named = small;
        named.format = f.name;
        CHECK(events_of(file, "unnamed", named) == events);
    }
}

TEST_CASE(
    "recordings: the sensor's size is the file's, the format's or the user's, never a guess") {
    const auto size = [](const Bytes& file, const std::string& name) {
        const EventStream stream(over(file, name), {});
        return std::to_string(stream.width()) + " x " + std::to_string(stream.height());
    };
    const auto events = some_events(3, 2);
    CHECK(size(nmnist_file(events), "a.bin") == "34 x 34");
    CHECK(size(aedat2_file(events), "a") == "128 x 128");
    CHECK(size(aedat3_file(events), "a") == "128 x 128");
    CHECK(size(evt2_file(events), "a") == "640 x 480");
    CHECK(size(evt3_file(events), "a") == "1280 x 720");
    CHECK(size(dat_file(events), "a") == "304 x 240");
    CHECK(size(structured_file(events), "a") == "0 x 0");
    const Bytes unknown = structured_file({{0, 5, 9, 1}, {1, 20, 3, 0}});
    CHECK(contains(error(unknown, "a.npy"), "sensor's size is not in the file"));
    CHECK(
        contains(error(unknown, "a.npy"), "--sensor WIDTHxHEIGHT; the events reach x = 20, y = 9"));
    CHECK(contains(error(text_bytes("% evt 2.0\n% geometry 0x480\n% end\n"), "a"), "geometry") ==
          false);
    CHECK(contains(error(text_bytes("% evt 2.0\n% geometry 0x480\n% end\n"), "a"), "'0'"));
    CHECK(contains(error(unknown, "a.npy", {"", 40000, 10}), "too large"));
}

TEST_CASE("recordings: events outside the sensor are errors with their place") {
    for (const auto& f : recording_files) {
        CAPTURE(f.name);
        CHECK(contains(error(f.encode({{0, 1, 1, 1}, {1, 34, 2, 1}}), f.file, small), "34, 2"));
        CHECK(contains(error(f.encode({{0, 1, 34, 1}}), f.file, small), "34 x 34"));
        CHECK(contains(error(f.encode({}), f.file, small), "no events"));
    }
    CHECK(error(aedat2_file({{0, 1, 1, 1}, {1, 64, 2, 1}}), "a", small) ==
          "[a] event (64, 2) at byte 52 is outside 34 x 34");
}

TEST_CASE("recordings: events out of order are sorted, equal times keep their places") {
    const std::vector<Event> mixed = {{30, 0, 0, 1}, {10, 1, 0, 1}, {30, 2, 0, 1}, {10, 3, 0, 1}};
    const std::vector<Event> sorted = {{10, 1, 0, 1}, {10, 3, 0, 1}, {30, 0, 0, 1}, {30, 2, 0, 1}};
    for (const auto& f : recording_files) {
        CAPTURE(f.name);
        // EVT's times go back only where a word was damaged: they are taken as they stand.
        CHECK(events_of(f.encode(mixed), f.file, small) == sorted);
    }
}

TEST_CASE("recordings: a million events of disorder are sorted, more is an error") {
    constexpr size_t window = size_t(1) << 20;
    std::vector<Event> events;
    for (size_t i = 0; i < 3 * window; ++i) events.push_back({int64_t(1000 + i), 0, 0, 1});
    events[window + 10].t = 500;  // half the window after those that should follow it
    const auto read = events_of(aedat2_file(events), "a");
    REQUIRE(read.size() == events.size());
    CHECK(read[0].t == 500);
    CHECK(std::is_sorted(read.begin(), read.end(),
                         [](const Event& a, const Event& b) { return a.t < b.t; }));
    events.back().t = 501;
    CHECK(contains(error(aedat2_file(events), "a"), "501 us comes more than 1048576 events after"));
}

TEST_CASE("AEDAT 2.0 and .dat: 32 bits of microseconds go on after they wrap") {
    const int64_t wrap = int64_t(1) << 32;
    const std::vector<Event> events = {{wrap - 5, 1, 2, 1},
                                       {wrap + 3, 3, 4, 0},
                                       {wrap + 9, 5, 6, 1},
                                       {wrap + wrap / 2 + 5, 7, 8, 1},
                                       {2 * wrap + 1, 9, 10, 0}};
    CHECK(events_of(aedat2_file(events), "a") == events);
    CHECK(events_of(dat_file(events), "a") == events);
}

TEST_CASE("AEDAT 2.0: DVS128 addresses") {
    Bytes file = text_bytes("#!AER-DAT2.0\r\n");
    put_be(file, 0x00007fff, 4);
    put_be(file, 7, 4);
    put_be(file, 0x0000ab34, 4);  // bit 15 is the external event's, which Tonic reads all the same
    put_be(file, 9, 4);
    CHECK(events_of(file, "a") == std::vector<Event>{{7, 127, 127, 1}, {9, 0x2b, 0x1a, 0}});
    CHECK(contains(error(text_bytes("#!AER-DAT4.0\r\n"), "a"), "AEDAT 4.0"));
    CHECK(contains(error(text_bytes("#!AER-DAT2.0"), "a"), "truncated"));
}

TEST_CASE("AEDAT 3.1: packets, other types, overflow, invalid events, unused room") {
    Bytes file = text_bytes(aedat3_header);
    put_packet(file, 2, 0, 3, 3, 3);  // of another type: skipped whatever its size
    put(file, 1, 24);
    put_packet(file, 1, 0, 3, 2, 2);
    put_polarity(file, {0x7fffffff, 127, 1, 1});
    put_polarity(file, {0x7fffffff, 2, 127, 0}, false);  // all are valid, says the header
    put(file, 0, 8);                                     // room for one more
    put_packet(file, 1, 2, 2, 2, 1);
    put_polarity(file, {5, 3, 4, 1}, false);
    put_polarity(file, {6, 5, 6, 1});
    put_packet(file, 1, 2, 0, 0, 0);
    const int64_t t = int64_t(1) << 32;
    CHECK(events_of(file, "a") ==
          std::vector<Event>{{0x7fffffff, 127, 1, 1}, {0x7fffffff, 2, 127, 0}, {t + 6, 5, 6, 1}});
    Bytes more = file;
    put_packet(more, 1, 0, 1, 2, 2);
    CHECK(contains(error(more, "a"), "2 events with room for 1"));
    more = file;
    put_packet(more, 1, 0xffffffff, 1, 1, 1);
    CHECK(contains(error(more, "a"), "time"));
    more = file;
    put_packet(more, 1, 0, 0xffffffff, 1, 1);
    CHECK(contains(error(more, "a"), "truncated"));
    more = file;
    more[text_bytes(aedat3_header).size() + 28 + 24 + 4] = 9;
    CHECK(contains(error(more, "a"), "events of 9 bytes"));
    CHECK(contains(error(text_bytes("#!AER-DAT3.1\r\n#Source 1: x\r\nabc"), "a"), "END-HEADER"));
}

TEST_CASE("EVT2: the time's two halves, its wrap, words of other types") {
    Bytes file = text_bytes("% date 2024-01-01 12:00:00\n% evt 2.0\n");
    const auto word = [&](uint32_t type, uint32_t rest) { put(file, type << 28 | rest, 4); };
    const auto event = [&](uint32_t p, uint32_t t, uint32_t x, uint32_t y) {
        word(p, t << 22 | x << 11 | y);
    };
    event(1, 1, 1, 1);  // of a time nobody knows yet
    word(8, 100);
    event(1, 63, 2047, 3);
    word(10, 5);  // trigger
    word(14, 5);
    word(15, 5);
    event(0, 0, 4, 2047);
    word(8, 99);  // a little back is no wrap
    event(0, 2, 5, 6);
    word(8, 0xfffffff);
    event(1, 0, 7, 8);
    word(8, 3);
    event(1, 1, 9, 10);
    const int64_t wrap = int64_t(1) << 34;
    const std::vector<Event> wanted = {{99 * 64 + 2, 5, 6, 0},
                                       {6400, 4, 2047, 0},
                                       {6463, 2047, 3, 1},
                                       {wrap - 64, 7, 8, 1},
                                       {wrap + 3 * 64 + 1, 9, 10, 1}};
    CHECK(events_of(file, "a.raw", {"", 2048, 2048}) == wanted);
}

TEST_CASE("EVT3: rows, single events, vectors, times and their wrap") {
    Bytes file = text_bytes("% evt 3.0\n% geometry 1280x720\n% end\n");
    words16(file, {0x2005, 0x3005, 0x4fff});              // before any time and row: lost
    words16(file, {0x8001, 0x6002, 0x0003, 0x2804});      // (4, 3) on at 4098
    words16(file, {0x3008, 0x4801, 0x5081, 0x5001});      // from x = 8, off: 8, 19; 20, 27; 28
    words16(file, {0x6fff, 0x0800 | 7, 0x3864, 0x4004});  // second camera's row 7; 102 on at 8191
    words16(file, {0x8001, 0x2001});  // the same high half again: the low half stays
    words16(file, {0x8002, 0x2002, 0x6001, 0x2003});
    words16(file, {0xa000, 0x7abc, 0xe001, 0xf001});  // triggers and the like
    words16(file, {0x8fff, 0x6010, 0x2004, 0x8000, 0x6000, 0x2005});
    words16(file, {0x8fff, 0x6001, 0x2006});  // back by all of the range but one: no wrap
    const int64_t wrap = int64_t(1) << 24;
    const std::vector<Event> wanted = {{4098, 4, 3, 1},
                                       {4098, 8, 3, 0},
                                       {4098, 19, 3, 0},
                                       {4098, 20, 3, 0},
                                       {4098, 27, 3, 0},
                                       {4098, 28, 3, 0},
                                       {8191, 102, 7, 1},
                                       {8191, 1, 7, 0},
                                       {8192, 2, 7, 0},
                                       {8193, 3, 7, 0},
                                       {wrap - 4096 + 16, 4, 7, 0},
                                       {wrap, 5, 7, 0},
                                       {2 * wrap - 4095, 6, 7, 0}};
    CHECK(events_of(file, "a.raw") == wanted);
    words16(file, {0x34ff, 0x4001});
    CHECK(contains(error(file, "a.raw"), "(1279, 7)") == false);
    words16(file, {0x4001});
    CHECK(contains(error(file, "a.raw"), "(1291, 7)"));
    CHECK(contains(error(text_bytes("% evt 2.1\n% end\n"), "a.raw"), "'2.1' is not EVT2 or EVT3"));
    CHECK(contains(error(text_bytes("% date x\n% end\n"), "a.raw"), "names no event format"));
    CHECK(
        contains(error(text_bytes("% evt 3.0\n% endianness big\n% end\n"), "a"), "little-endian"));
}

TEST_CASE(".dat: with and without a header") {
    Bytes bare;
    put(bare, 7, 4);
    put(bare, uint64_t(1) << 28 | 20 << 14 | 300, 4);
    CHECK(events_of(bare, "a.dat", {"", 304, 240}) == std::vector<Event>{{7, 300, 20, 1}});
    Bytes triggers = text_bytes("% Width 304\n% Height 240\n");
    put(triggers, 14, 1);
    put(triggers, 8, 1);
    CHECK(contains(error(triggers, "a.dat"), "events of type 14"));
    CHECK(contains(error(text_bytes("% Width 99999999999\n"), "a.dat"), "makes no sense"));
}

TEST_CASE("NumPy: fields in any order and type, columns, one array in an archive") {
    const std::vector<Event> wanted = {{10, 1, 2, 1}, {11, 3, 4, 0}};
    Bytes values;
    for (const Event& e : wanted) {
        put(values, e.p ? 1 : 0xffff, 2);
        put_be(values, std::bit_cast<uint64_t>(double(e.t)), 8);
        put(values, 77, 4);
        put(values, e.y, 1);
        put(values, e.x, 4);
    }
    const std::string type =
        "[('p', '<i2'), ('t', '>f8'), ('weight', '<f4'), ('y', '|u1'), ('x', '<u4')]";
    const Bytes npy = npy_file(type, "2,", values);
    CHECK(events_of(npy, "a.npy", small) == wanted);
    CHECK(events_of(zip_of({{"arr_0.npy", npy, true}}), "a.npz", small) == wanted);
    Bytes columns;
    for (const Event& e : wanted)
        for (const int64_t v : {e.t, int64_t(e.x), int64_t(e.y), int64_t(e.p)})
            put(columns, uint64_t(v), 4);
    CHECK(events_of(npy_file("'<i4'", "2, 4", columns), "a.npy", small) == wanted);

    Bytes seconds = values;
    const uint64_t half = std::bit_cast<uint64_t>(0.5);
    for (size_t i = 0; i < 8; ++i) seconds[2 + i] = uint8_t(half >> 8 * (7 - i));
    CHECK(contains(error(npy_file(type, "2,", seconds), "a.npy", small), "t is 0.5"));
    seconds = values;
    seconds[0] = 2;
    CHECK(contains(error(npy_file(type, "2,", seconds), "a.npy", small), "event 0: p is 2"));
    CHECK(contains(error(npy_file(type, "3,", values), "a.npy", small), "truncated"));
    CHECK(contains(error(npy_file(type, "1,", values), "a.npy", small), "after the last event"));
    CHECK(contains(error(npy_file("[('x', '<i2')]", "0,", {}), "a.npy", small), "no field 't'"));
    CHECK(contains(error(npy_file("'<f4'", "2, 3", columns), "a.npy", small), "(2, 3)"));
    CHECK(contains(error(npy_file("'<f4'", "999999999999999999, 3", {}), "a.npy"), "too large"));
    CHECK(contains(error(npy_file("[('x', '<i2', (2,))]", "1,", {}), "a.npy"), "itself an array"));
    CHECK(contains(error(npy_file("'|O'", "1,", {}), "a.npy"), "not supported"));
    const Bytes one = npy_file("'<i8'", "1,", Bytes(8)), two = npy_file("'<i8'", "2,", Bytes(16));
    CHECK(contains(error(zip_of({{"t.npy", two, false},
                                 {"x.npy", two, false},
                                 {"y.npy", one, false},
                                 {"p.npy", two, false}}),
                         "a.npz", small),
                   "1 values, but 2 in t"));
    CHECK(contains(error(zip_of({{"t.npy", two, false}, {"z.npy", two, false}}), "a.npz", small),
                   "but t.npy, z.npy"));
}

TEST_CASE("what is no recording is refused with what could be read") {
    CHECK(contains(error(text_bytes("hello world"), "a.txt"),
                   "not an event recording that can be recognised | read are"));
    CHECK(contains(error({}, "a"), "not an event recording"));
    CHECK(contains(error({}, "a.bin"), "no events"));
    CHECK(contains(error({}, "a.bin", {"nmnits"}), "did you mean 'nmnist'?"));
}

TEST_CASE("denoise keeps events with a neighbour in the last 10 ms, by four neighbours only") {
    RecordingOptions options = small;
    options.denoise = 10'000;
    const std::vector<Event> events = {
        {20'000, 5, 5, 1},                        // the first has none
        {21'000, 6, 5, 0},                        // right of it
        {22'000, 7, 6, 1},                        // diagonal only
        {30'999, 6, 6, 1},                        // below (6, 5), 9999 us later, and beside (7, 6)
        {41'000, 0, 33, 1},  {41'001, 0, 33, 1},  // itself does not count
        {41'002, 0, 32, 1},                       // but its neighbour does
        {41'003, 33, 31, 1},                      // the row's other end is no neighbour
        {51'002, 1, 32, 1},                       // exactly 10 ms is too late
    };
    const std::vector<Event> wanted = {events[1], events[3], events[6]};
    CHECK(events_of(nmnist_file(events), "a.bin", options) == wanted);
    CHECK(contains(error(nmnist_file({{5, 5, 5, 1}}), "a.bin", options), "no events"));
}

TEST_CASE("frames on disk are the frames in memory, as (T, polarity, H, W)") {
    const TempFolder folder;
    const auto events = some_events(5000, 3);
    const Bytes file = nmnist_file(events);
    const Recording recording = read_recording(over(file, "a.bin"), {});
    for (const char* text :
         {"tonic:bins=7", "tonic:window=3ms", "tonic:count=300", "sj:number=9", "sj:time=11"}) {
        CAPTURE(text);
        const Framing framing = parse_framing(text);
        const FramedFile made =
            write_frames(over(file, "a.bin"), {}, framing, false, folder / "f.npy");
        const Tensor out = load_npy(folder / "f.npy"), in = to_frames(recording, framing);
        REQUIRE(out.shape() == Shape{in.shape()[0], 2, 34, 34});
        const auto a = in.to_vector<float>(), b = out.to_vector<float>();
        size_t different = 0;
        for (size_t t = 0; t < in.shape()[0]; ++t)
            for (size_t i = 0; i < 34 * 34; ++i)
                for (size_t p = 0; p < 2; ++p)
                    different += a[(t * 34 * 34 + i) * 2 + p] != b[(t * 2 + p) * 34 * 34 + i];
        CHECK(different == 0);
        double sum = 0;
        for (const float v : b) sum += v;
        CHECK(sum == double(made.counted));
        CHECK(made.extent.events == events.size());
    }
}

TEST_CASE("frames: clipping, frames given as such, nothing left after an error") {
    const TempFolder folder;
    const Bytes file = nmnist_file({{0, 1, 0, 1}, {1, 1, 0, 1}, {2, 2, 1, 0}});
    const Framing one = parse_framing("sj:number=1");
    write_frames(over(file, "a.bin"), {"", 3, 2}, one, false, folder / "a.npy");
    const std::vector<float> counts = {0, 0, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0};
    CHECK(load_npy(folder / "a.npy").to_vector<float>() == counts);
    write_frames(over(file, "a.bin"), {"", 3, 2}, one, true, folder / "b.npy");
    CHECK(load_npy(folder / "b.npy").to_vector<float>()[7] == 1);

    const Bytes values = {0, 1, 2, 3, 4, 5, 6, 255};
    const Bytes frames = npy_file("'|u1'", "2, 2, 1, 2", values);
    CHECK_FALSE(holds_frames(over(file, "a.bin")));
    for (const Bytes& given : {frames, zip_of({{"frames.npy", frames, true}, {"x", {}, false}})}) {
        REQUIRE(holds_frames(over(given)));
        CHECK(copy_frames(over(given), false, folder / "c.npy").frames == 2);
        CHECK(load_npy(folder / "c.npy").to_vector<float>() ==
              std::vector<float>(values.begin(), values.end()));
        copy_frames(over(given), true, folder / "c.npy");
        CHECK(load_npy(folder / "c.npy").to_vector<float>()[7] == 1);
    }
    const Bytes negative = npy_file("'|i1'", "2, 2, 1, 2", values);
    CHECK(contains(error_of([&] { copy_frames(over(negative), false, folder / "d.npy"); }), "-1"));
    CHECK(contains(error_of([&] {
                       write_frames(over(file, "a.bin"), {}, parse_framing("tonic:count=1"), false,
                                    folder / "none/d.npy");
                   }),
                   "No such file"));
    for (const auto& entry : std::filesystem::directory_iterator(folder.str()))
        CHECK(entry.path().extension() == ".npy");
    CHECK_FALSE(std::filesystem::exists(folder / "d.npy"));
}
