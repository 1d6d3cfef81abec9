// The C interface: the runtime's logits, and a status for everything that can be wrong.
#include "neurons/nc.h"

#include <algorithm>
#include <atomic>
#include <fstream>
#include <thread>

#include "io/model.h"
#include "neurons/analog.h"
#include "neurons/runtime.h"
#include "neurons/zoo.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

Model small_model(bool temporal) {
    ZooOptions options;
    options.activation = "lif";
    Model model;
    model.graph = make_model("lenet", {16, 16, 2}, 5, options);
    model.info.T = 4;
    if (temporal) model.info.framing = "sj:number=4";
    return model;
}

std::vector<char> bytes_of(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

constexpr size_t sample = 16 * 16 * 2;

}  // namespace

TEST_CASE("nc.h: load, info, run, step, reset, free") {
    for (const bool temporal : {false, true}) {
        const TempFolder folder;
        const Model model = small_model(temporal);
        save_model(folder / "m.safetensors", model);
        nc_model m = 0;
        REQUIRE(nc_load((folder / "m.safetensors").c_str(), nullptr, &m) == NC_OK);
        nc_info info = {};
        REQUIRE(nc_get_info(m, &info) == NC_OK);
        CHECK(info.input_size == sample);
        CHECK(info.height == 16);
        CHECK(info.channels == 2);
        CHECK(info.outputs == 5);
        CHECK(info.steps == 4);
        CHECK(info.temporal == int(temporal));
        CHECK(std::string(info.table) == kernels::best()->name);

        RuntimeOptions options;
        options.T = 4;
        options.temporal = temporal;
        Runtime runtime(model.graph, options);
        const size_t frames = temporal ? 4 : 1, samples = 3;
        const auto x = normal_values(frames * samples * sample, 3);
        std::vector<float> logits(samples * 5), want(samples * 5);
        REQUIRE(nc_run(m, x.data(), x.size(), samples, 4, logits.data(), logits.size()) == NC_OK);
        runtime.run(x.data(), temporal, 4, samples, want.data());
        CHECK(logits == want);

        // The same steps one at a time; a mean summed in double may differ by its rounding.
        const auto one = normal_values(frames * sample, 4);
        std::vector<float> whole(5), last(5);
        REQUIRE(nc_run(m, one.data(), one.size(), 1, 4, whole.data(), 5) == NC_OK);
        REQUIRE(nc_reset(m) == NC_OK);
        for (size_t t = 0; t < 4; ++t) {
            const float* frame = temporal ? one.data() + t * sample : t == 0 ? one.data() : nullptr;
            REQUIRE(nc_step(m, frame, frame != nullptr ? sample : 0, last.data(), 5) == NC_OK);
        }
        for (size_t k = 0; k < 5; ++k) CHECK(last[k] == doctest::Approx(whole[k]).epsilon(1e-6));

        const auto bytes = bytes_of(folder / "m.safetensors");
        nc_model other = 0;
        REQUIRE(nc_load_bytes(bytes.data(), bytes.size(), nullptr, &other) == NC_OK);
        CHECK(other != m);
        REQUIRE(nc_run(other, one.data(), one.size(), 1, 4, last.data(), 5) == NC_OK);
        CHECK(last == whole);
        CHECK(nc_free(other) == NC_OK);
        CHECK(nc_free(m) == NC_OK);
    }
}

TEST_CASE("nc.h: an analog network") {
    const TempFolder folder;
    Model model;
    model.graph = make_model("resnet20", {16, 16, 2}, 5, {});
    model.info.T = 4;
    save_model(folder / "m.safetensors", model);
    nc_options options = {};
    options.batch = 2;
    nc_model m = 0;
    REQUIRE(nc_load((folder / "m.safetensors").c_str(), &options, &m) == NC_OK);
    nc_info info = {};
    REQUIRE(nc_get_info(m, &info) == NC_OK);
    CHECK(info.input_size == sample);
    CHECK(info.outputs == 5);
    CHECK(info.steps == 0);
    CHECK(info.temporal == 0);
    CHECK(info.memory_bytes > 0);
    const auto x = normal_values(3 * sample, 3);
    std::vector<float> logits(15), want(15);
    REQUIRE(nc_run(m, x.data(), x.size(), 3, 1, logits.data(), logits.size()) == NC_OK);
    AnalogRuntime(model.graph, {.batch = 2}).run(x.data(), 3, want.data());
    CHECK(logits == want);
    REQUIRE(nc_run(m, x.data(), sample, 1, 9, logits.data(), 5) ==
            NC_OK);  // the same at every step
    CHECK(std::equal(logits.begin(), logits.begin() + 5, want.begin()));
    CHECK(nc_run(m, x.data(), 2 * sample, 1, 2, logits.data(), 5) == NC_BAD_ARGUMENT);
    CHECK(nc_run(m, x.data(), sample, 1, 1, logits.data(), 4) == NC_BAD_ARGUMENT);
    CHECK(nc_step(m, x.data(), sample, logits.data(), 5) == NC_BAD_ARGUMENT);
    CHECK(contains(nc_error(), "no steps"));
    CHECK(nc_reset(m) == NC_OK);
    CHECK(nc_free(m) == NC_OK);
    options.batch = 65537;
    CHECK(nc_load((folder / "m.safetensors").c_str(), &options, &m) == NC_BAD_ARGUMENT);
}

TEST_CASE("nc.h: wrong arguments and models give codes and messages") {
    const TempFolder folder;
    save_model(folder / "m.safetensors", small_model(false));
    nc_model m = 7;
    CHECK(nc_load(nullptr, nullptr, &m) == NC_BAD_ARGUMENT);
    CHECK(nc_load("x", nullptr, nullptr) == NC_BAD_ARGUMENT);
    CHECK(nc_load((folder / "none").c_str(), nullptr, &m) == NC_BAD_MODEL);
    CHECK(m == 0);
    CHECK(contains(nc_error(), "none"));
    nc_options options = {};
    options.path = 3;
    CHECK(nc_load((folder / "m.safetensors").c_str(), &options, &m) == NC_BAD_ARGUMENT);
    options = {};
    options.exit_margin = -1;
    CHECK(nc_load((folder / "m.safetensors").c_str(), &options, &m) == NC_BAD_ARGUMENT);

    // Cut short anywhere, and with any bytes changed.
    auto bytes = bytes_of(folder / "m.safetensors");
    for (size_t n = 0; n < bytes.size(); n += n < 4096 ? 61 : 9973)
        CHECK(nc_load_bytes(bytes.data(), n, nullptr, &m) == NC_BAD_MODEL);
    std::mt19937 random(1);
    for (int i = 0; i < 300; ++i) {
        auto damaged = bytes;
        for (int k = 0; k < 3; ++k) damaged[random() % 6000] = char(random());
        const nc_status status = nc_load_bytes(damaged.data(), damaged.size(), nullptr, &m);
        CHECK((status == NC_OK || status == NC_BAD_MODEL || status == NC_NO_MEMORY));
        CHECK((status == NC_OK) == (m != 0));
        if (m != 0) CHECK(nc_free(m) == NC_OK);
    }
    REQUIRE(nc_load_bytes(bytes.data(), bytes.size(), nullptr, &m) == NC_OK);
    std::vector<float> x(4 * sample), y(5);
    CHECK(nc_run(m, nullptr, sample, 1, 4, y.data(), 5) == NC_BAD_ARGUMENT);
    CHECK(nc_run(m, x.data(), sample, 1, 4, nullptr, 5) == NC_BAD_ARGUMENT);
    CHECK(nc_run(m, x.data(), sample - 1, 1, 4, y.data(), 5) == NC_BAD_ARGUMENT);
    CHECK(nc_run(m, x.data(), sample, 1, 4, y.data(), 4) == NC_BAD_ARGUMENT);
    CHECK(nc_run(m, x.data(), sample, 0, 4, y.data(), 0) == NC_BAD_ARGUMENT);
    CHECK(nc_run(m, x.data(), sample, 1, 0, y.data(), 5) == NC_BAD_ARGUMENT);
    CHECK(nc_run(m, x.data(), sample, SIZE_MAX / sample, 4, y.data(), 5) == NC_BAD_ARGUMENT);
    CHECK(nc_run(m, x.data(), sample, size_t(1) << 63, 2, y.data(), 0) == NC_BAD_ARGUMENT);
    CHECK(contains(nc_error(), "[nc] run"));
    CHECK(nc_step(m, nullptr, 0, y.data(), 5) == NC_BAD_ARGUMENT);
    CHECK(nc_step(m, x.data(), 1, y.data(), 5) == NC_BAD_ARGUMENT);
    CHECK(nc_step(m, x.data(), sample, y.data(), 5) == NC_OK);
    CHECK(nc_get_info(m, nullptr) == NC_BAD_ARGUMENT);

    CHECK(nc_free(m) == NC_OK);
    nc_info info;
    CHECK(nc_free(m) == NC_BAD_HANDLE);
    CHECK(nc_run(m, x.data(), sample, 1, 4, y.data(), 5) == NC_BAD_HANDLE);
    CHECK(nc_step(m, x.data(), sample, y.data(), 5) == NC_BAD_HANDLE);
    CHECK(nc_reset(m) == NC_BAD_HANDLE);
    CHECK(nc_get_info(m, &info) == NC_BAD_HANDLE);
    CHECK(contains(nc_error(), "freed"));
    for (const nc_model wrong : {nc_model(0), nc_model(5), ~nc_model(0)})
        CHECK(nc_free(wrong) == NC_BAD_HANDLE);
    // The slot's next model has another handle.
    nc_model next = 0;
    REQUIRE(nc_load_bytes(bytes.data(), bytes.size(), nullptr, &next) == NC_OK);
    CHECK(next != m);
    CHECK(nc_run(m, x.data(), sample, 1, 4, y.data(), 5) == NC_BAD_HANDLE);
    CHECK(nc_run(next, x.data(), sample, 1, 4, y.data(), 5) == NC_OK);
    CHECK(nc_free(next) == NC_OK);
}

TEST_CASE("nc.h: models of their own run side by side, one model is busy or right") {
    const TempFolder folder;
    save_model(folder / "m.safetensors", small_model(false));
    const auto bytes = bytes_of(folder / "m.safetensors");
    nc_model shared = 0;
    REQUIRE(nc_load_bytes(bytes.data(), bytes.size(), nullptr, &shared) == NC_OK);
    const auto x = normal_values(sample, 3);
    std::vector<float> want(5);
    REQUIRE(nc_run(shared, x.data(), sample, 1, 4, want.data(), 5) == NC_OK);
    std::atomic<int> wrong = 0, done = 0;
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 3; ++thread)
        threads.emplace_back([&] {
            for (int i = 0; i < 20; ++i) {
                nc_model own = 0;
                std::vector<float> y(5);
                wrong += nc_load_bytes(bytes.data(), bytes.size(), nullptr, &own) != NC_OK;
                wrong += nc_run(own, x.data(), sample, 1, 4, y.data(), 5) != NC_OK || y != want;
                wrong += nc_free(own) != NC_OK;
                const nc_status status = nc_run(shared, x.data(), sample, 1, 4, y.data(), 5);
                wrong += status == NC_OK ? y != want : status != NC_BUSY;
                done += status == NC_OK;
            }
        });
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
    CHECK(done > 0);
    CHECK(nc_free(shared) == NC_OK);
}
