// Files with random damage: every reader gives a value or an nc::Error, never anything else. What
// it reads must not depend on luck either, which the sanitizers watch.
#include "datasets/cifar.h"
#include "datasets/events.h"
#include "datasets/idx.h"
#include "io/bytes.h"
#include "io/model.h"
#include "io/npy.h"
#include "io/zip.h"
#include "tests/check.h"
#include "tests/recording_files.h"

using namespace nc;
using namespace nc::test;

namespace {

// A few bytes flipped, overwritten, cut out or put in; structural characters are likely, since
// others mostly fail at the first check.
Bytes damaged(Bytes bytes, std::mt19937_64& random) {
    const std::string likely = "{}[]\",:0123456789-.e\xff\x7f\x80";
    const auto any = [&](size_t n) { return size_t(random() % n); };
    for (size_t changes = 1 + any(4); changes > 0 && !bytes.empty(); --changes) {
        const size_t at = any(bytes.size());
        const auto place = bytes.begin() + ptrdiff_t(at);
        switch (any(5)) {
            case 0:
                bytes[at] ^= uint8_t(1u << any(8));
                break;
            case 1:
                bytes[at] = uint8_t(random());
                break;
            case 2:
                bytes[at] = uint8_t(likely[any(likely.size())]);
                break;
            case 3:
                bytes.erase(place,
                            place + ptrdiff_t(1 + any(std::min<size_t>(8, bytes.size() - at))));
                break;
            default:
                bytes.insert(place, uint8_t(likely[any(likely.size())]));
        }
    }
    return bytes;
}

// How many of the damaged files were refused; anything but an nc::Error fails the case.
template <class Read>
size_t refused(const Bytes& good, uint64_t seed, Read read) {
    std::mt19937_64 random(seed);
    size_t count = 0;
    for (int i = 0; i < 3000; ++i) {
        const Bytes bad = damaged(good, random);
        try {
            read(bad);
        } catch (const Error&) {
            ++count;
        }
    }
    return count;
}

Bytes to_bytes(const std::string& text) {
    return Bytes(text.begin(), text.end());
}

}  // namespace

TEST_CASE("damaged: IDX, CIFAR-10, N-MNIST and gzip") {
    Bytes idx = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4};
    idx.resize(16 + 24, 7);
    CHECK(refused(idx, 1, [](const Bytes& b) { parse_idx(b, "x"); }) > 1000);

    Bytes cifar(3073, 5);
    CHECK(refused(cifar, 2, [](const Bytes& b) {
              LabelledImages out;
              parse_cifar10(b, "x", out);
          }) > 1000);

    Bytes events;
    for (uint8_t i = 0; i < 20; ++i) events.insert(events.end(), 5, i);
    CHECK(refused(events, 3, [](const Bytes& b) {
              const Recording r = parse_nmnist(b, "x");
              for (const char* framing : {"tonic:bins=4", "tonic:window=300ms", "tonic:count=3",
                                          "sj:number=5", "sj:time=5"})
                  to_frames(r, parse_framing(framing));
          }) > 1000);

    const Bytes plain(2000, 3);
    CHECK(refused(deflated(plain, true), 4, [](const Bytes& b) { inflate_gzip(b, "x", 1 << 20); }) >
          1000);
}

TEST_CASE("damaged: every format of recordings, and zip") {
    std::vector<Event> events;
    for (uint16_t i = 0; i < 40; ++i)
        events.push_back({1000 + 99 * i, uint16_t(i % 34), uint16_t(i * 7 % 34), uint8_t(i % 2)});
    for (const auto& f : recording_files) {
        CAPTURE(f.name);
        const auto read = [&](const Bytes& b) {
            RecordingOptions options{f.name, 34, 34};
            options.denoise = 500;
            read_recording(Source(b.data(), b.size(), "x"), options);
        };
        const Bytes good = f.encode(events);
        CHECK(refused(good, 9, read) > 300);
        CHECK(refused(good, 10,
                      [](const Bytes& b) { format_of(Source(b.data(), b.size(), "x")); }) > 0);
    }
    const Bytes zip = zip_of({{"a", Bytes(300, 1), true}, {"b", Bytes(20, 2), false}}, true, "end");
    CHECK(refused(zip, 11, [](const Bytes& b) {
              const Zip archive(Source(b.data(), b.size(), "x"));
              for (const ZipEntry& e : archive.entries()) archive.read(e);
          }) > 1000);
}

TEST_CASE("truncated at every byte: each format of recordings") {
    const std::vector<Event> events = {{5000, 3, 4, 1}, {5001, 5, 4, 0}, {9999, 33, 33, 1}};
    for (const auto& f : recording_files) {
        CAPTURE(f.name);
        const Bytes good = f.encode(events);
        size_t shorter = 0;
        for (size_t n = 0; n < good.size(); ++n) {
            const Bytes cut(good.begin(), good.begin() + ptrdiff_t(n));
            std::vector<Event> read;
            const std::string error = error_of([&] {
                read = read_recording(Source(cut.data(), n, "cut"), {f.name, 34, 34}).events;
            });
            if (error.empty()) {
                // Between two events where the format has no count: a shorter recording.
                ++shorter;
                CHECK(read.size() < events.size());
                CHECK(std::equal(read.begin(), read.end(), events.begin()));
            } else {
                CHECK(contains(error, "[cut"));
            }
        }
        // Two cuts between events; EVT has words of time and row before an event as well.
        const std::string name = f.name;
        const bool counted = name == "npy" || name == "npz" || name == "aedat3";
        CHECK(shorter == (counted ? 0u : name == "evt2" ? 3u : name == "evt3" ? 6u : 2u));
    }
}

TEST_CASE("damaged: JSON, graphs, NPY and model files") {
    Graph g;
    const size_t input = add_node(g, "input", Input{{4, 4, 2}}, {});
    Conv conv{Tensor::from(normal_values(3 * 3 * 2 * 3, 1), {3, 3, 2, 3}), {}, {}};
    const size_t c = add_node(g, "conv", conv, {input});
    Neuron neuron;
    neuron.theta = Tensor::full<float>({3}, 1);
    const size_t n = add_node(g, "neuron", neuron, {c});
    const size_t f = add_node(g, "flat", Flatten{}, {n});
    const size_t l =
        add_node(g, "fc", Linear{Tensor::from(normal_values(12 * 2, 2), {12, 2}), {}}, {f});
    add_node(g, "output", Output{}, {l});

    const auto parse = [](const Bytes& b) {
        return parse_json(std::string(b.begin(), b.end()), "x");
    };
    const Bytes schema = to_bytes(graph_to_json(g).dump());
    CHECK(refused(schema, 5, parse) > 1000);
    CHECK(refused(schema, 6, [&](const Bytes& b) { graph_from_json(parse(b), {}, "x"); }) > 2000);

    const TempFolder folder;
    const std::string path = folder / "damaged";
    save_npy(path, Tensor::from(normal_values(6, 3), {3, 2}));
    CHECK(refused(read_file(path), 7, [](const Bytes& b) { parse_npy(b, "x"); }) > 1000);

    Model model;
    model.graph = g;
    model.info.mean = {0.5f};
    model.info.std = {0.25f};
    model.state["counter"] = Tensor::full<int64_t>({1}, 7);
    save_model(path, model);
    CHECK(refused(read_file(path), 8, [](const Bytes& b) { parse_model(b, "x"); }) > 2000);
}
