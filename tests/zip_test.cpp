// Zip archives: what Python's zipfile writes, and everything that can be wrong with one.
#include <zlib.h>

#include "io/zip.h"
#include "tests/check.h"
#include "tests/zip_writer.h"

using namespace nc;
using namespace nc::test;

namespace {

Bytes pattern(size_t n) {
    Bytes out(n);
    for (size_t i = 0; i < n; ++i) out[i] = uint8_t(i % 251 ^ i / 1000);
    return out;
}

Zip open(const Bytes& file) {
    return Zip(Source(file.data(), file.size(), "x.zip"));
}

std::string error(const Bytes& file) {
    return error_of([&] {
        const Zip zip = open(file);
        for (const ZipEntry& e : zip.entries()) zip.read(e);
    });
}

}  // namespace

TEST_CASE("zip: stored and deflated entries, whole and by pieces, zip64, a comment") {
    const Bytes text = pattern(200'000), small = {1, 2, 3};
    for (const bool zip64 : {false, true})
        for (const std::string comment : {"", "a comment"}) {
            const Bytes file = zip_of({{"a/stored.bin", text, false},
                                       {"deflated", text, true},
                                       {"small", small, true},
                                       {"empty", {}, true},
                                       {"nothing", {}, false}},
                                      zip64, comment);
            const Zip zip = open(file);
            REQUIRE(zip.entries().size() == 5);
            CHECK(zip.read(*zip.find("a/stored.bin")) == text);
            CHECK(zip.read(*zip.find("deflated")) == text);
            CHECK(zip.read(*zip.find("small")) == small);
            CHECK(zip.read(*zip.find("empty")).empty());
            CHECK(zip.read(*zip.find("nothing")).empty());
            CHECK(zip.find("other") == nullptr);
            const uint64_t at = zip.stored_at(*zip.find("a/stored.bin"));
            CHECK(Bytes(file.begin() + ptrdiff_t(at), file.begin() + ptrdiff_t(at + 5)) ==
                  Bytes(text.begin(), text.begin() + 5));
            CHECK(contains(error_of([&] { zip.stored_at(*zip.find("small")); }), "compressed"));
            CHECK(contains(error_of([&] { zip.read(*zip.find("deflated"), 1000); }), "larger"));
            for (const char* name : {"a/stored.bin", "deflated"}) {
                ZipStream stream = zip.open(*zip.find(name));
                Bytes all, piece(777);
                while (const size_t n = stream.read(piece.data(), piece.size()))
                    all.insert(all.end(), piece.begin(), piece.begin() + ptrdiff_t(n));
                CHECK(all == text);
            }
        }
}

TEST_CASE("zip: from a file on disk") {
    const TempFolder folder;
    const Bytes file = zip_of({{"a", pattern(3000), true}}, false, "");
    write_file(folder / "a.zip", file.data(), file.size());
    const Zip zip(Source(folder / "a.zip"));
    CHECK(zip.read(zip.entries()[0]) == pattern(3000));
    CHECK(contains(error_of([&] { Source(folder / "none.zip"); }), "none.zip"));
    CHECK(contains(error_of([&] { Source{folder.str()}; }), "directory"));
}

TEST_CASE("zip: what is not one, or lies, is refused by name and place") {
    CHECK(contains(error({}), "[x.zip] not a zip archive"));
    CHECK(contains(error(pattern(5000)), "not a zip archive"));
    const Bytes good = zip_of({{"a", pattern(50), false}, {"b", pattern(60), true}}, false, "");
    for (size_t n = 0; n < good.size(); ++n)
        CHECK(contains(error(Bytes(good.begin(), good.begin() + ptrdiff_t(n))), "[x.zip]"));
    CHECK(error(good).empty());

    CHECK(contains(error(zip_of({{"a", {1}, false}, {"a", {2}, false}}, false, "")), "twice"));
    // Offsets into the directory's entry: flags 8, method 10, checksum 16, packed 20, size 24,
    // header 42.
    const auto changed = [&](size_t field, uint32_t value, size_t bytes) {
        Bytes file = good;
        const size_t directory = good.size() - 22 - 2 * (46 + 1);
        for (size_t i = 0; i < bytes; ++i) file[directory + field + i] = uint8_t(value >> 8 * i);
        return error(file);
    };
    CHECK(contains(changed(8, 1, 2), "encrypted"));
    CHECK(contains(changed(10, 14, 2), "method 14"));
    CHECK(contains(changed(16, 0, 4), "checksum"));
    CHECK(contains(changed(20, 51, 4), "two sizes"));
    CHECK(contains(changed(20, 1 << 30, 4), "outside"));
    CHECK(contains(changed(42, 1, 4), "no header"));
    CHECK(contains(changed(42, 1 << 30, 4), "outside"));
    constexpr size_t second = 46 + 1;
    CHECK(contains(changed(second + 24, 61, 4), "fewer bytes"));
    CHECK(contains(changed(second + 24, 59, 4), "more bytes"));
    CHECK(contains(changed(second + 24, 1 << 30, 4), "cannot inflate"));
    CHECK(contains(changed(second + 42, 0, 4), "overlap"));

    const Zip zip = open(good);
    ZipEntry e = *zip.find("b");
    e.crc = 0;
    CHECK(contains(error_of([&] { zip.read(e); }), "entry 'b': wrong checksum"));
    CHECK(zip.read(e, 1000, false) == pattern(60));
}
