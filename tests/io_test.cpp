// Files: bytes and gzip, JSON, NPY; each survives truncation at every byte and says what is wrong.
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "io/bytes.h"
#include "io/json.h"
#include "io/npy.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

using Bytes = std::vector<uint8_t>;

Bytes gzip(const Bytes& plain) {
    z_stream stream{};
    REQUIRE(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    Bytes out(deflateBound(&stream, uLong(plain.size())) + 32);
    stream.next_in = const_cast<Bytef*>(plain.data());
    stream.avail_in = uInt(plain.size());
    stream.next_out = out.data();
    stream.avail_out = uInt(out.size());
    REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
    out.resize(stream.total_out);
    deflateEnd(&stream);
    return out;
}

Bytes random_bytes(size_t n, uint64_t seed) {
    std::mt19937_64 random(seed);
    Bytes out(n);
    for (auto& b : out) b = uint8_t(random() % 7);
    return out;
}

}  // namespace

TEST_CASE("a file is written whole and read back, over an existing one too") {
    const TempFolder folder;
    const std::string path = folder / "a.bin";
    for (const size_t n : {size_t(0), size_t(1), size_t(100000)}) {
        const Bytes bytes = random_bytes(n, n);
        write_file(path, bytes.data(), n);
        CHECK(read_file(path) == bytes);
        if (n > 0) CHECK(contains(error_of([&] { read_file(path, n - 1); }), "larger than"));
    }
    size_t files = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.str()))
        ++files;
    CHECK(files == 1);  // no temporary name stays
}

TEST_CASE("a link is kept and what it points to replaced") {
    const TempFolder folder;
    write_file(folder / "real", std::string("old"));
    std::filesystem::create_symlink(folder / "real", folder / "link");
    write_file(folder / "link", std::string("new"));
    CHECK(std::filesystem::is_symlink(folder / "link"));
    const Bytes bytes = read_file(folder / "real");
    CHECK(std::string(bytes.begin(), bytes.end()) == "new");
}

TEST_CASE("file errors name the path and the reason") {
    const TempFolder folder;
    CHECK(error_of([&] { read_file(folder / "none"); }) ==
          "[read] " + folder / "none" + ": No such file or directory");
    CHECK(contains(error_of([&] { read_file(folder.str()); }), "Is a directory"));
    CHECK(
        contains(error_of([&] { write_file(folder.str(), std::string("x")); }), "Is a directory"));
    CHECK(contains(error_of([&] { write_file(folder / "no/such/folder", std::string("x")); }),
                   "No such file or directory"));
    CHECK(error_of([&] { write_file("/dev/full", std::string("x")); }) ==
          "[write] /dev/full: No space left on device");
    struct stat info;
    REQUIRE(stat("/dev/full", &info) == 0);
    CHECK(S_ISCHR(info.st_mode));  // not renamed over
}

TEST_CASE("a folder without permission is an error and leaves nothing") {
    if (geteuid() == 0) {
        skip("root may write everywhere");
        return;
    }
    const TempFolder folder;
    REQUIRE(chmod(folder.str().c_str(), 0555) == 0);
    CHECK(contains(error_of([&] { write_file(folder / "x", std::string("x")); }),
                   "Permission denied"));
}

TEST_CASE("gzip: inflated, several members too, bounded, damage and truncation found") {
    const TempFolder folder;
    const std::string path = folder / "a.gz";
    const Bytes plain = random_bytes(3000, 1);
    const Bytes packed = gzip(plain);
    write_file(path, packed.data(), packed.size());
    CHECK(read_maybe_gzip(path) == plain);
    CHECK(contains(error_of([&] { read_maybe_gzip(path, plain.size() - 1); }), "larger than"));
    CHECK(read_maybe_gzip(path, plain.size()) == plain);
    CHECK(inflate_gzip(gzip({}), "empty").empty());

    Bytes twice = packed;
    twice.insert(twice.end(), packed.begin(), packed.end());
    CHECK(inflate_gzip(twice, "twice").size() == 2 * plain.size());

    for (size_t n = 0; n < packed.size(); ++n) {
        CAPTURE(n);
        const Bytes cut(packed.begin(), packed.begin() + ptrdiff_t(n));
        CHECK(contains(error_of([&] { inflate_gzip(cut, "cut"); }), "[gzip] cut: truncated"));
    }
    Bytes damaged = packed;
    damaged[damaged.size() - 8] ^= 1;  // the checksum
    CHECK(contains(error_of([&] { inflate_gzip(damaged, "x"); }), "incorrect data check"));
    Bytes longer = packed;
    longer.push_back('x');
    CHECK(error_of([&] { inflate_gzip(longer, "x"); }) != "");
}

TEST_CASE("the cursor reads both byte orders and never past the end") {
    const Bytes bytes = {1, 2, 3, 4, 5, 6, 7, 8};
    Reader reader(bytes.data(), bytes.size(), "a.bin");
    CHECK(reader.u64le() == 0x0807060504030201);
    CHECK(Reader(bytes.data(), 4, "").u32le() == 0x04030201);
    CHECK(Reader(bytes.data(), 4, "").u32be() == 0x01020304);
    CHECK(Reader(bytes.data(), 4, "").u16le() == 0x0201);
    CHECK(error_of([&] { reader.u8(); }) == "[a.bin] truncated: 1 bytes wanted, 0 left at byte 8");
    CHECK(error_of([&] { Reader(bytes.data(), 3, "b").take(size_t(-1)); }) != "");
}

TEST_CASE("JSON keeps the order of keys and every bit of a double") {
    const TempFolder folder;
    const std::string path = folder / "a.json";
    Json value;
    value["z"] = 0.1 + 0.2;
    value["a"] = {1e-310, -0.0, 1.7976931348623157e308, double(0.1f)};
    value["m"] = {{"text", "\xc3\xa9\n\"quoted\""}, {"none", nullptr}};
    write_json(path, value);
    const Json back = read_json(path);
    CHECK(back == value);
    CHECK(back.dump() == value.dump());
    CHECK(back.begin().key() == "z");
    CHECK(std::signbit(back["a"][1].get<double>()));
}

TEST_CASE("JSON that is malformed is an error with its place") {
    const std::string good = R"({"a": [1, 2.5, true, null, "text"], "b": {"c": "\u00e9"}})";
    CHECK(parse_json(good, "x").size() == 2);
    for (size_t n = 0; n < good.size(); ++n) {
        CAPTURE(n);
        CHECK(contains(error_of([&] { parse_json(good.substr(0, n), "cut.json"); }),
                       "[cut.json] not valid JSON at byte"));
    }
    CHECK(contains(error_of([&] { parse_json(good + "x", "x"); }), "at byte"));
    CHECK(contains(error_of([&] { parse_json("\"\xff\"", "x"); }), "at byte"));
    CHECK(contains(error_of([&] { parse_json("1e999", "x"); }), "not valid JSON"));
    CHECK(error_of([&] { parse_json(R"({"a": {"k": 1}, "b": {"k": 1}})", "x"); }) == "");
    CHECK(contains(error_of([&] { parse_json(R"({"b": {"k": 1, "j": {}, "k": 2}})", "x"); }),
                   "key 'k' stands twice"));
    CHECK(contains(error_of([&] { parse_json(std::string(1000000, '['), "x"); }), "deeper"));
    std::string objects;
    for (int i = 0; i < 1000; ++i) objects += R"({"a":)";
    CHECK(contains(error_of([&] { parse_json(objects, "x"); }), "deeper"));
}

TEST_CASE("NPY: every type and rank comes back bitwise") {
    const TempFolder folder;
    const std::string path = folder / "a.npy";
    const auto same = [&](const Tensor& tensor) {
        save_npy(path, tensor);
        const Tensor back = load_npy(path);
        REQUIRE(back.shape() == tensor.shape());
        REQUIRE(back.dtype() == tensor.dtype());
        CHECK(std::memcmp(back.raw(), tensor.raw(), tensor.bytes()) == 0);
    };
    const auto floats = hard_values(24, 1);
    same(Tensor::from(floats, {24}));
    same(Tensor::from(floats, {2, 3, 4}));
    same(Tensor::from(floats, {1, 2, 1, 3, 1, 4}));
    same(Tensor::from(std::vector<float>{1}, Shape{}));
    same(Tensor::from(std::vector<float>{}, {0, 5}));
    same(Tensor::from(hard_values<double>(24, 2), {4, 6}));
    same(Tensor::from(std::vector<int8_t>{-128, 0, 127}, {3}));
    same(Tensor::from(std::vector<uint8_t>{0, 255}, {2}));
    same(Tensor::from(std::vector<int16_t>{-32768, 32767}, {2}));
    same(Tensor::from(std::vector<int32_t>{INT32_MIN, INT32_MAX}, {2}));
    same(Tensor::from(std::vector<int64_t>{INT64_MIN, INT64_MAX}, {2}));
    same(Tensor::from(std::vector<uint64_t>{0, UINT64_MAX}, {2}));
}

TEST_CASE("NPY: what NumPy writes is read, what is not understood refused") {
    std::string file;
    const auto parse = [&] { return parse_npy(Bytes(file.begin(), file.end()), "a.npy"); };
    const auto write = [&](const std::string& header, const std::string& values, char major = 1) {
        file = "\x93NUMPY";
        file += major;
        file += '\0';
        file += char(header.size() & 0xff);
        file += char(header.size() >> 8);
        if (major > 1) file += std::string(2, '\0');
        file += header + values;
    };
    const auto error = [&] { return error_of([&] { parse(); }); };

    write("{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }   \n", {"\0\1\7", 3});
    CHECK(parse().to_vector<uint8_t>() == Bytes{0, 1, 1});
    write("{\"shape\":(2,1),\"fortran_order\":False,\"descr\":\"<i2\"}", {"\1\0\2\0", 4}, 2);
    CHECK(parse().to_vector<int16_t>() == std::vector<int16_t>{1, 2});
    // One axis has one order.
    write("{'descr': '|u1', 'fortran_order': True, 'shape': (3,), }", "abc");
    CHECK(parse().shape() == Shape{3});

    write("{'descr': '|u1', 'fortran_order': True, 'shape': (1, 3), }", "abc");
    CHECK(contains(error(), "Fortran"));
    write("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", "abcd");
    CHECK(contains(error(), "type '>f4'"));
    write("{'descr': '<f2', 'fortran_order': False, 'shape': (2,), }", "abcd");
    CHECK(contains(error(), "type '<f2'"));
    write("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,), }", "abcd");
    CHECK(contains(error(), "type [('x', '<f4')] is not supported"));
    write("{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }", "abc");
    CHECK(contains(error(), "3 bytes of values, but shape [2]"));
    write("{'descr': '|u1', 'fortran_order': False, 'shape': (4,), }", "abc");
    CHECK(contains(error(), "3 bytes of values"));
    // A product that wraps around 2^64 to the right size.
    write("{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 4294967296, 0), }", "");
    CHECK(error() != "");
    write("{'descr': '|u1', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1), }", "a");
    CHECK(contains(error(), "axes"));
    write("{'descr': '|u1', 'shape': (1,), }", "a");
    CHECK(contains(error(), "lacks"));
    write("{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", "a");
    CHECK(contains(error(), "twice"));
    write("{'descr': '|u1', 'fortran_order': False, 'shape': (1,), 'more': 1}", "a");
    CHECK(contains(error(), "unknown header key 'more'"));
    write("{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", "a", 9);
    CHECK(contains(error(), "version 9"));
    file = "PK\3\4 not an array";
    CHECK(contains(error(), "wrong magic"));
}

TEST_CASE("NPY survives truncation at every byte") {
    const TempFolder folder;
    const std::string path = folder / "a.npy";
    save_npy(path, Tensor::from(normal_values(10, 3), {5, 2}));
    const Bytes whole = read_file(path);
    for (size_t n = 0; n < whole.size(); ++n) {
        CAPTURE(n);
        const Bytes cut(whole.begin(), whole.begin() + ptrdiff_t(n));
        CHECK(contains(error_of([&] { parse_npy(cut, "cut.npy"); }), "[cut.npy]"));
    }
}
