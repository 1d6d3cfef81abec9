// AutoAugment: every operation byte for byte that of the Python Imaging Library, the policy's
// draws, and what a batch makes of them.
#include <zlib.h>

#include <set>

#include "datasets/augment.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

using Bytes = std::vector<uint8_t>;

const ImageOp all_ops[] = {ImageOp::shear_x,     ImageOp::shear_y,    ImageOp::translate_x,
                           ImageOp::translate_y, ImageOp::rotate,     ImageOp::color,
                           ImageOp::posterize,   ImageOp::solarize,   ImageOp::contrast,
                           ImageOp::sharpness,   ImageOp::brightness, ImageOp::auto_contrast,
                           ImageOp::equalize,    ImageOp::invert};

Bytes picture(size_t h, size_t w) {
    Bytes out;
    for (size_t y = 0; y < h; ++y)
        for (size_t x = 0; x < w; ++x)
            for (size_t c = 0; c < 3; ++c)
                out.push_back(uint8_t(30 + (y * 5 + x * 3 + c * 20 + x * y * 7 % 31) * 200 / 360));
    return out;
}

Bytes applied(ImageOp op, int level, bool negative, const Bytes& in, size_t h, size_t w) {
    Guarded<uint8_t> out(in.size());
    apply_image_op(op, level, negative, in.data(), {h, w, 3}, out);
    CHECK(out.ok());
    return out.values();
}

}  // namespace

TEST_CASE("image operations give the bytes of Pillow 13") {
    // CRC-32 of its output at level 7 of 9, positive and negative: Image.transform (nearest,
    // fillcolor 128), Image.rotate, ImageEnhance and ImageOps.
    const struct {
        ImageOp op;
        uint32_t crc[2];
    } expected[] = {
        {ImageOp::shear_x, {0x413150f8, 0x9a046f1d}},
        {ImageOp::shear_y, {0x8cee6ce8, 0x33067e44}},
        {ImageOp::translate_x, {0x29c97227, 0xe98acd8c}},
        {ImageOp::translate_y, {0x67dc44a9, 0x42fbd912}},
        {ImageOp::rotate, {0xb0d16f45, 0x80027ed0}},
        {ImageOp::color, {0x31bc9f02, 0x6479ed1e}},
        {ImageOp::posterize, {0xbd57a02e, 0xbd57a02e}},
        {ImageOp::solarize, {0xb5cbd66e, 0xb5cbd66e}},
        {ImageOp::contrast, {0xff44e4cc, 0x2b603561}},
        {ImageOp::sharpness, {0x68c081c7, 0x77706926}},
        {ImageOp::brightness, {0x7c76783c, 0x4ab6b9c8}},
        {ImageOp::auto_contrast, {0x517ce9a3, 0x517ce9a3}},
        {ImageOp::equalize, {0xd8efb639, 0xd8efb639}},
        {ImageOp::invert, {0x8e798618, 0x8e798618}},
    };
    const Bytes in = picture(32, 32);
    for (const auto& e : expected)
        for (const bool negative : {false, true}) {
            INFO("operation " << int(e.op) << " negative " << negative);
            const Bytes out = applied(e.op, 7, negative, in, 32, 32);
            CHECK(crc32(0, out.data(), uInt(out.size())) == e.crc[negative]);
        }
}

TEST_CASE("operations at level 0 leave the picture alone") {
    const Bytes in = picture(19, 23);
    for (const ImageOp op : all_ops) {
        if (op == ImageOp::auto_contrast || op == ImageOp::equalize || op == ImageOp::invert)
            continue;  // they have no level
        INFO("operation " << int(op));
        CHECK(applied(op, 0, false, in, 19, 23) == in);
        CHECK(applied(op, 0, true, in, 19, 23) == in);
    }
}

TEST_CASE("inverting twice, translating and equalising do what their names say") {
    const Bytes in = picture(32, 32);
    const Bytes once = applied(ImageOp::invert, 0, false, in, 32, 32);
    CHECK(once != in);
    CHECK(applied(ImageOp::invert, 0, false, once, 32, 32) == in);
    // Level 9 moves by 150 / 331 of 32 = 14.5 pixels.
    const Bytes moved = applied(ImageOp::translate_x, 9, false, in, 32, 32);
    for (size_t y = 0; y < 32; ++y)
        for (size_t x = 0; x < 32; ++x) {
            const size_t at = (y * 32 + x) * 3;
            CHECK(moved[at] == (x < 17 ? in[at + 15 * 3] : 128));
        }
    // Every value equally often: nothing to equalise. Four values: spread to the whole range.
    Bytes uniform, four;
    for (size_t i = 0; i < 32 * 32; ++i)
        for (size_t c = 0; c < 3; ++c) {
            uniform.push_back(uint8_t(i % 256));
            four.push_back(uint8_t(100 + i % 4));
        }
    CHECK(applied(ImageOp::equalize, 0, false, uniform, 32, 32) == uniform);
    const Bytes spread = applied(ImageOp::equalize, 0, false, four, 32, 32);
    CHECK(std::set<uint8_t>(spread.begin(), spread.end()).size() == 4);
    CHECK(spread[0] == 0);
    CHECK(spread[9] == 255);
    const Bytes stretched = applied(ImageOp::auto_contrast, 0, false, four, 32, 32);
    CHECK(stretched[0] == 0);
    CHECK(stretched[3] == 85);
    CHECK(stretched[9] == 255);
}

TEST_CASE("operations take pictures of any size and of one colour") {
    for (const size_t side : {size_t(1), size_t(2), size_t(3)}) {
        const Bytes in(side * side * 3, 77);
        for (const ImageOp op : all_ops)
            for (const int level : {0, 5, 9})
                for (const uint8_t byte : applied(op, level, false, in, side, side)) {
                    const bool moves = op <= ImageOp::rotate;
                    CHECK((!moves || byte == 77 || byte == 128));
                }
        CHECK(applied(ImageOp::equalize, 0, false, in, side, side) == in);
        CHECK(applied(ImageOp::auto_contrast, 0, false, in, side, side) == in);
        CHECK(applied(ImageOp::sharpness, 9, true, in, side, side) == in);
    }
}

TEST_CASE("the policy is a function of the random numbers alone, and varied") {
    const Bytes in = picture(32, 32);
    std::set<uLong> seen;
    size_t unchanged = 0;
    Random random(3), again(3);
    Guarded<uint8_t> out(in.size()), same(in.size());
    for (int i = 0; i < 2000; ++i) {
        auto_augment(in.data(), {32, 32, 3}, random, out);
        auto_augment(in.data(), {32, 32, 3}, again, same);
        REQUIRE(out.values() == same.values());
        unchanged += out.values() == in;
        seen.insert(crc32(0, out.data(), uInt(out.size())));
    }
    CHECK(out.ok());
    CHECK(random.counter() == again.counter());
    // (1 - p) (1 - q) over the 25 rows sums to 5.58, colour at level 0 adds 0.63: 24.8 % of 2000.
    CHECK(unchanged > 420);
    CHECK(unchanged < 575);
    CHECK(seen.size() > 60);
}

TEST_CASE("crop_bytes is the image kernel's crop and flip") {
    const Bytes images = picture(30, 8);  // three of 10 x 8
    Random random(4);
    const float scale[] = {1, 1, 1}, shift[] = {0, 0, 0};
    for (int i = 0; i < 50; ++i) {
        kernels::Augment a{};
        a.source = int32_t(random.below(3));
        a.y = int32_t(random.below(25)) - 12;
        a.x = int32_t(random.below(25)) - 12;
        a.flip = int32_t(random.below(2));
        TestQueue queue;
        std::vector<float> want(240);
        kernels::reference().image.augment(queue, images.data(), &a, scale, shift, want.data(), 1,
                                           10, 8, 3);
        Guarded<uint8_t> got(240);
        crop_bytes(images.data(), a, {10, 8, 3}, got);
        CHECK(got.ok());
        for (size_t k = 0; k < 240; ++k) REQUIRE(float(got[k]) == want[k]);
    }
}

TEST_CASE("a batch is cropped, flipped, put through the policy, then cut") {
    const size_t size = 32 * 32 * 3;
    const Bytes images = picture(96, 32);
    const auto data =
        image_dataset(images, {0, 1, 2}, {32, 32, 3}, 3, {0, 0, 0}, {1.0f, 1.0f, 1.0f});
    AugmentOptions options;
    options.crop = 4;
    options.flip = true;
    options.cutout = 8;
    options.auto_augment = true;
    Compute compute(Device{}, 1);
    Random random(9), steps(9);
    const std::vector<uint32_t> indices = {2, 0, 1, 1};
    const Batch batch = data->batch(compute, indices, options, random);
    CHECK(batch.labels == std::vector<int32_t>{2, 0, 1, 1});
    for (size_t i = 0; i < indices.size(); ++i) {
        const auto a = draw_augment(options, {32, 32, 3}, indices[i], steps);
        Bytes cropped(size), want(size);
        crop_bytes(images.data(), a, {32, 32, 3}, cropped.data());
        auto_augment(cropped.data(), {32, 32, 3}, steps, want.data());
        const float* got = batch.x.data<float>() + i * size;
        for (size_t k = 0; k < size; ++k) {
            const int32_t y = int32_t(k / 96), x = int32_t(k / 3 % 32);
            const bool cut = y >= a.cut_y0 && y < a.cut_y1 && x >= a.cut_x0 && x < a.cut_x1;
            REQUIRE(got[k] == (cut ? 0.0f : float(want[k]) * (1.0f / 255)));
        }
    }
    CHECK(random.counter() == steps.counter());

    const auto grey = image_dataset(Bytes(16), {0}, {4, 4, 1}, 1, {0}, {1});
    const std::string error = error_of([&] { grey->batch(compute, {0}, options, random); });
    CHECK(error.find("[4, 4, 1]") != std::string::npos);
}
