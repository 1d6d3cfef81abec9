// Data sets: readers of image files, normalisation, splits, and batches made ahead.
#include <filesystem>
#include <set>

#include "datasets/augment.h"
#include "datasets/cifar.h"
#include "datasets/dataset.h"
#include "datasets/idx.h"
#include "io/bytes.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

using Bytes = std::vector<uint8_t>;

Bytes idx(const std::vector<uint32_t>& sizes, const Bytes& values, uint8_t type = 8) {
    Bytes out = {0, 0, type, uint8_t(sizes.size())};
    for (const uint32_t size : sizes)
        for (int shift = 24; shift >= 0; shift -= 8) out.push_back(uint8_t(size >> shift));
    out.insert(out.end(), values.begin(), values.end());
    return out;
}

void write(const std::string& path, const Bytes& bytes) {
    write_file(path, bytes.data(), bytes.size());
}

// n images of 4 x 3 whose every byte is 10 * sample + position, labels i % 10.
std::unique_ptr<Dataset> counting_images(size_t n, size_t channels = 1) {
    const Shape sample{4, 3, channels};
    Bytes images;
    std::vector<int32_t> labels;
    for (size_t i = 0; i < n; ++i) {
        for (size_t k = 0; k < sample.elements(); ++k) images.push_back(uint8_t(10 * i + k));
        labels.push_back(int32_t(i % 10));
    }
    return image_dataset(images, labels, sample, 10, std::vector<float>(channels, 0.5f),
                         std::vector<float>(channels, 0.25f));
}

std::vector<Batch> all_batches(Loader& loader) {
    std::vector<Batch> out;
    for (Batch batch; loader.next(batch);) out.push_back(batch);
    return out;
}

bool same_bits(const Batch& a, const Batch& b) {
    return a.labels == b.labels && a.x.shape() == b.x.shape() &&
           std::memcmp(a.x.raw(), b.x.raw(), a.x.bytes()) == 0;
}

}  // namespace

TEST_CASE("IDX: sizes and bytes; every truncation and every surplus is an error") {
    const Bytes file = idx({2, 3, 2}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
    const IdxArray array = parse_idx(file, "x");
    CHECK(array.sizes == std::vector<size_t>{2, 3, 2});
    CHECK(array.bytes[11] == 12);
    for (size_t n = 0; n < file.size(); ++n) {
        CAPTURE(n);
        const Bytes cut(file.begin(), file.begin() + ptrdiff_t(n));
        CHECK(contains(error_of([&] { parse_idx(cut, "cut"); }), "[cut] truncated"));
    }
    Bytes longer = file;
    longer.push_back(0);
    CHECK(contains(error_of([&] { parse_idx(longer, "x"); }), "left over"));
    CHECK(contains(error_of([&] { parse_idx(idx({1}, {1, 2, 3, 4}, 0x0d), "x"); }), "type 13"));
    CHECK(contains(error_of([&] { parse_idx({'P', 'K', 3, 4, 5}, "x"); }), "not an IDX file"));
    CHECK(contains(error_of([&] { parse_idx(idx({}, {}), "x"); }), "not an IDX file"));
    CHECK(error_of([&] { parse_idx(idx({1, 1, 1, 1, 1, 1, 1}, {1}), "x"); }) != "");
    // 2^32 - 1 cubed does not fit: nothing may be allocated for it.
    CHECK(error_of([&] { parse_idx(idx({~0u, ~0u, ~0u}, {1}), "x"); }) != "");
    CHECK(contains(error_of([&] { parse_idx(idx({~0u, 1000}, {1}), "x"); }), "truncated"));
}

TEST_CASE("IDX: images and labels that do not belong together are errors that name the file") {
    const TempFolder folder;
    const std::string images = folder / "images", labels = folder / "labels";
    write(images, idx({2, 1, 2}, {1, 2, 3, 4}));
    write(labels, idx({2}, {9, 0}));
    const LabelledImages read = read_idx_pair(images, labels, 10);
    CHECK(read.sample == Shape{1, 2, 1});
    CHECK(read.labels == std::vector<int32_t>{9, 0});
    CHECK(read.images == Bytes{1, 2, 3, 4});

    const auto error = [&] { return error_of([&] { read_idx_pair(images, labels, 10); }); };
    write(labels, idx({3}, {1, 2, 3}));
    CHECK(error() == "[" + labels + "] 3 labels, but 2 images in " + images);
    write(labels, idx({2}, {1, 10}));
    CHECK(error() == "[" + labels + "] label 10 of sample 1 is not below 10");
    write(labels, idx({2, 1}, {1, 1}));
    CHECK(contains(error(), "labels [N] wanted"));
    write(labels, idx({2}, {1, 1}));
    write(images, idx({2}, {1, 1}));
    CHECK(contains(error(), "images [N, H, W] wanted"));
    write(images, idx({0, 28, 28}, {}));
    write(labels, idx({0}, {}));
    CHECK(contains(error(), "no images"));
}

TEST_CASE("CIFAR-10: planes become channels; sizes that are not whole records are errors") {
    Bytes file(2 * 3073);
    file[0] = 3;
    file[3073] = 9;
    file[1 + 5] = 10;         // record 0, red of pixel 5
    file[1 + 1024 + 5] = 20;  // green
    file[1 + 2048 + 5] = 30;  // blue
    LabelledImages out;
    parse_cifar10(file, "x", out);
    CHECK(out.labels == std::vector<int32_t>{3, 9});
    CHECK(out.images[15] == 10);
    CHECK(out.images[16] == 20);
    CHECK(out.images[17] == 30);
    parse_cifar10(file, "x", out);
    CHECK(out.labels.size() == 4);
    CHECK(out.images[2 * 3072 + 17] == 30);
    for (size_t n = 0; n < 3073; ++n)
        if (error_of([&] {
                parse_cifar10(Bytes(file.begin(), file.begin() + ptrdiff_t(n)), "x", out);
            }) == "")
            FAIL("truncated at ", n);
    file[3073] = 10;
    CHECK(contains(error_of([&] { parse_cifar10(file, "x", out); }), "label 10 of record 1"));
}

TEST_CASE("a data set that is missing or misspelt says what to do") {
    const TempFolder folder;
    DataRequest request;
    request.root = folder.str();
    request.name = "mnist";
    try {
        load_data(request);
        FAIL("no error");
    } catch (const Error& e) {
        CHECK(contains(e.what(), folder / "mnist"));
        CHECK(contains(e.hint, "datasets/fetch.sh mnist"));
        CHECK(e.kind == ErrorKind::data);
    }
    std::filesystem::create_directory(folder / "mnist");
    CHECK(contains(error_of([&] { load_data(request); }), "train-images-idx3-ubyte"));
    request.name = "fashion-mnits";
    try {
        load_data(request);
        FAIL("no error");
    } catch (const Error& e) {
        CHECK(contains(e.hint, "did you mean 'fashion-mnist'"));
    }
    request.name = "mnist";
    request.T = -1;
    CHECK(error_of([&] { load_data(request); }) != "");
}

TEST_CASE("images are normalised, in the order asked for") {
    const auto data = counting_images(6, 2);
    Compute compute(Device{}, 1);
    Random random(0);
    const Batch batch = data->batch(compute, {4, 0, 4}, {}, random);
    CHECK(batch.x.shape() == Shape{3, 4, 3, 2});
    CHECK(batch.labels == std::vector<int32_t>{4, 0, 4});
    CHECK(!batch.temporal);
    CHECK(random.counter() == 0);
    const auto x = batch.x.to_vector<float>();
    for (size_t k = 0; k < 24; ++k) {
        CHECK(x[k] == doctest::Approx((double(40 + k) / 255 - 0.5) / 0.25));
        CHECK(x[24 + k] == doctest::Approx((double(k) / 255 - 0.5) / 0.25));
        CHECK(x[48 + k] == x[k]);
    }
    CHECK(error_of([&] { image_dataset(Bytes(3), {0}, {2, 2, 1}, 10, {0}, {1}); }) != "");
    CHECK(error_of([&] { image_dataset(Bytes(4), {10}, {2, 2, 1}, 10, {0}, {1}); }) != "");
    CHECK(error_of([&] { image_dataset(Bytes(4), {0}, {2, 2, 1}, 10, {0}, {0}); }) != "");
    CHECK(error_of([&] { image_dataset(Bytes(4), {0}, {2, 2, 1}, 10, {0, 0}, {1, 1}); }) != "");
}

TEST_CASE("a subset is the samples it names") {
    const auto data = counting_images(6);
    const auto part = subset(*data, {5, 1});
    Compute compute(Device{}, 1);
    Random random(0);
    CHECK(part->size() == 2);
    CHECK(part->label(0) == 5);
    CHECK(same_bits(part->batch(compute, {1, 0}, {}, random),
                    data->batch(compute, {1, 5}, {}, random)));
    CHECK(error_of([&] { subset(*data, {6}); }) != "");
}

TEST_CASE("drawn samples are a seeded part, all of them without a limit") {
    const auto data =
        vector_dataset(Tensor::from(std::vector<float>(9), {9, 1}), {0, 1, 2, 3, 4, 5, 6, 7, 8}, 9);
    const auto labels = [&](size_t samples, uint64_t seed) {
        const auto part = drawn(*data, samples, seed);
        std::vector<int32_t> out;
        for (size_t i = 0; i < part->size(); ++i) out.push_back(part->label(i));
        return out;
    };
    const auto all = labels(0, 1);
    CHECK(std::set<int32_t>(all.begin(), all.end()).size() == 9);
    CHECK(labels(20, 1) == all);
    CHECK(labels(4, 1) == std::vector<int32_t>(all.begin(), all.begin() + 4));
    CHECK(labels(0, 2) != all);
}

TEST_CASE("the validation split is a seeded partition of the documented sizes") {
    const std::pair<size_t, size_t> wanted[] = {
        {60000, 5000}, {50000, 5000}, {49999, 4999}, {1000, 100}, {9, 1}, {1, 0}, {0, 0}};
    for (const auto& pair : wanted) {
        const size_t size = pair.first, held_out = pair.second;
        CAPTURE(size);
        const Split split = validation_split(size, 7);
        CHECK(split.validation.size() == held_out);
        std::set<uint32_t> all(split.train.begin(), split.train.end());
        all.insert(split.validation.begin(), split.validation.end());
        CHECK(all.size() == size);
        CHECK((size == 0 || *all.rbegin() == size - 1));
    }
    CHECK(validation_split(1000, 1).validation == validation_split(1000, 1).validation);
    CHECK(validation_split(1000, 1).validation != validation_split(1000, 2).validation);
}

TEST_CASE("the loader gives every sample once, in an order of seed and epoch only") {
    const auto data = counting_images(23);
    const auto epoch = [&](uint64_t seed, int number, bool shuffle, bool drop_last = false) {
        Loader loader(*data, 4, shuffle, seed, number, {}, drop_last);
        auto batches = all_batches(loader);
        CHECK(batches.size() == loader.batches());
        return batches;
    };
    const auto order = [](const std::vector<Batch>& batches) {
        std::vector<float> first;  // a sample's first value tells which it is
        for (const auto& batch : batches)
            for (size_t i = 0; i < batch.labels.size(); ++i)
                first.push_back(batch.x.to_vector<float>()[i * 12]);
        return first;
    };
    const auto plain = epoch(0, 0, false);
    CHECK(plain.size() == 6);
    CHECK(plain[5].labels.size() == 3);
    CHECK(plain[0].labels == std::vector<int32_t>{0, 1, 2, 3});
    CHECK(epoch(0, 0, false, true).size() == 5);

    const auto shuffled = order(epoch(5, 2, true));
    CHECK(shuffled == order(epoch(5, 2, true)));
    CHECK(shuffled != order(epoch(5, 3, true)));
    CHECK(shuffled != order(epoch(6, 2, true)));
    CHECK(shuffled != order(plain));
    CHECK(std::multiset<float>(shuffled.begin(), shuffled.end()).size() == 23);
    const auto straight = order(plain);
    CHECK(std::multiset<float>(shuffled.begin(), shuffled.end()) ==
          std::multiset<float>(straight.begin(), straight.end()));
}

TEST_CASE("a loader that starts later gives the bits of the rest, augmentation included") {
    const auto data = counting_images(23, 3);
    AugmentOptions options;
    options.crop = 1;
    options.flip = true;
    options.cutout = 2;
    Loader whole(*data, 4, true, 9, 1, options);
    const auto all = all_batches(whole);
    Loader again(*data, 4, true, 9, 1, options);
    const auto repeated = all_batches(again);
    Loader rest(*data, 4, true, 9, 1, options, false, 2);
    const auto tail = all_batches(rest);
    REQUIRE(tail.size() == all.size() - 2);
    for (size_t b = 0; b < all.size(); ++b) {
        CHECK(same_bits(all[b], repeated[b]));
        if (b >= 2) CHECK(same_bits(all[b], tail[b - 2]));
    }
    Loader plain(*data, 4, true, 9, 1, {});
    const auto unchanged = all_batches(plain);
    CHECK(unchanged[0].labels == all[0].labels);
    CHECK(!same_bits(unchanged[0], all[0]));
    // Without shuffling nothing is changed either: that is how test sets are read.
    Loader test(*data, 23, false, 9, 1, options);
    Compute compute(Device{}, 1);
    Random random(0);
    std::vector<uint32_t> every(23);
    for (uint32_t i = 0; i < 23; ++i) every[i] = i;
    CHECK(same_bits(all_batches(test)[0], data->batch(compute, every, {}, random)));
}

TEST_CASE("a loader hands over what its thread threw, and stops when it is destroyed early") {
    struct Failing : Dataset {
        size_t size() const override { return 100; }
        Shape sample_shape() const override { return {1, 1, 1}; }
        int classes() const override { return 1; }
        int32_t label(size_t) const override { return 0; }
        Batch batch(Compute& compute, const std::vector<uint32_t>& indices, const AugmentOptions&,
                    Random&) const override {
            if (indices[0] >= 20) throw Error("[failing] at sample 20");
            Batch out;
            out.x = compute.zeros({indices.size(), 1, 1, 1});
            out.labels.assign(indices.size(), 0);
            return out;
        }
    } data;
    Loader loader(data, 10, false, 0, 0, {});
    Batch batch;
    CHECK(loader.next(batch));
    CHECK(loader.next(batch));
    CHECK(error_of([&] { loader.next(batch); }) == "[failing] at sample 20");
    CHECK(error_of([&] { Loader(data, 0, false, 0, 0, {}); }) != "");
    const auto images = counting_images(1000);
    for (int i = 0; i < 20; ++i) {
        Loader early(*images, 10, true, 0, i, {});
        if (i % 2) early.next(batch);
    }
}

TEST_CASE("drawn crops, flips and cutouts cover their range and stay in it") {
    AugmentOptions options;
    options.crop = 2;
    options.flip = true;
    options.cutout = 3;
    CHECK(options.any());
    Random random(1);
    std::set<int32_t> ys, xs, flips, cuts;
    for (int i = 0; i < 2000; ++i) {
        const auto a = draw_augment(options, {8, 8, 3}, 7, random);
        REQUIRE(a.source == 7);
        ys.insert(a.y);
        xs.insert(a.x);
        flips.insert(a.flip);
        cuts.insert(a.cut_y0);
        REQUIRE(a.cut_y1 - a.cut_y0 == 3);
        REQUIRE(a.cut_x1 - a.cut_x0 == 3);
    }
    CHECK(ys == std::set<int32_t>{-2, -1, 0, 1, 2});
    CHECK(xs == ys);
    CHECK(flips == std::set<int32_t>{0, 1});
    CHECK(cuts == std::set<int32_t>{-1, 0, 1, 2, 3, 4, 5, 6});
    const uint64_t drawn = random.counter();
    const auto none = draw_augment({}, {8, 8, 3}, 3, random);
    CHECK(random.counter() == drawn);
    CHECK((none.y == 0 && none.x == 0 && none.flip == 0 && none.cut_y1 <= none.cut_y0));
}

TEST_CASE("real MNIST loads with its published counts and mean") {
    DataRequest request;
    request.name = "mnist";
    request.root = data_root_or_skip("mnist");
    if (request.root.empty()) return;
    const DataSets sets = load_data(request);
    CHECK(sets.train->size() == 60000);
    CHECK(sets.test->size() == 10000);
    CHECK(sets.train->sample_shape() == Shape{28, 28, 1});
    CHECK(sets.test->label(0) == 7);
    CHECK(sets.mean == std::vector<float>{0.1307f});
    Compute compute(Device{}, 1);
    double sum = 0, squares = 0, count = 0;
    Loader loader(*sets.train, 1000, false, 0, 0, {});
    for (Batch batch; loader.next(batch);)
        for (const float x : batch.x.to_vector<float>()) {
            sum += x;
            squares += double(x) * x;
            ++count;
        }
    CHECK(std::abs(sum / count) < 1e-3);
    CHECK(std::abs(squares / count - 1) < 1e-3);
}

TEST_CASE("real CIFAR-10 loads with its published counts and mean") {
    DataRequest request;
    request.name = "cifar10";
    request.root = data_root_or_skip("cifar10");
    if (request.root.empty()) return;
    const DataSets sets = load_data(request);
    CHECK(sets.train->size() == 50000);
    CHECK(sets.test->size() == 10000);
    CHECK(sets.train->sample_shape() == Shape{32, 32, 3});
    std::vector<size_t> per_class(10);
    for (size_t i = 0; i < 10000; ++i) ++per_class[size_t(sets.test->label(i))];
    CHECK(per_class == std::vector<size_t>(10, 1000));
    double sum[3] = {}, count = 0;
    Loader loader(*sets.train, 1000, false, 0, 0, {});
    for (Batch batch; loader.next(batch);) {
        const auto x = batch.x.to_vector<float>();
        for (size_t i = 0; i < x.size(); i += 3, ++count)
            for (size_t c = 0; c < 3; ++c) sum[c] += x[i + c];
    }
    for (const double s : sum) CHECK(std::abs(s / count) < 2e-3);
}
