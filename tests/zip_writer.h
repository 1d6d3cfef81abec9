// Zip archives for tests, written by hand after the APPNOTE.
#pragma once

#include <zlib.h>

#include <cstdint>
#include <string>
#include <vector>

namespace nc::test {

using Bytes = std::vector<uint8_t>;

struct Zipped {
    std::string name;
    Bytes bytes;
    bool deflate;
};

// Raw deflate, or with gzip's header and checksum.
inline Bytes deflated(const Bytes& plain, bool gzip = false) {
    Bytes out(compressBound(uLong(plain.size())) + 64);
    z_stream stream{};
    deflateInit2(&stream, 6, Z_DEFLATED, gzip ? 16 + MAX_WBITS : -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
    stream.next_in = const_cast<Bytef*>(plain.data());
    stream.avail_in = uInt(plain.size());
    stream.next_out = out.data();
    stream.avail_out = uInt(out.size());
    deflate(&stream, Z_FINISH);
    out.resize(stream.total_out);
    deflateEnd(&stream);
    return out;
}

inline void put(Bytes& out, uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) out.push_back(i < 8 ? uint8_t(value >> 8 * i & 255) : 0);
}

inline Bytes zip_of(const std::vector<Zipped>& entries, bool zip64 = false,
                    const std::string& comment = "") {
    constexpr uint32_t elsewhere = 0xffffffff;
    Bytes out, directory;
    for (const Zipped& e : entries) {
        const Bytes packed = e.deflate ? deflated(e.bytes) : e.bytes;
        const uint64_t header = out.size();
        const auto common = [&](Bytes& to, uint64_t packed_size, uint64_t size) {
            put(to, 20, 2);
            put(to, 0, 2);
            put(to, e.deflate ? 8 : 0, 2);
            put(to, 0, 4);
            put(to, crc32(0, e.bytes.data(), uInt(e.bytes.size())), 4);
            put(to, packed_size, 4);
            put(to, size, 4);
            put(to, e.name.size(), 2);
        };
        put(out, 0x04034b50, 4);
        common(out, packed.size(), e.bytes.size());
        put(out, 3, 2);  // an extra field of the local header only
        out.insert(out.end(), e.name.begin(), e.name.end());
        put(out, 0, 3);
        out.insert(out.end(), packed.begin(), packed.end());

        put(directory, 0x02014b50, 4);
        put(directory, 20, 2);
        common(directory, zip64 ? elsewhere : packed.size(), zip64 ? elsewhere : e.bytes.size());
        put(directory, zip64 ? 4 + 2 + 4 + 24 : 0, 2);
        put(directory, 0, 10);
        put(directory, zip64 ? elsewhere : header, 4);
        directory.insert(directory.end(), e.name.begin(), e.name.end());
        if (zip64) {
            put(directory, 0x5455, 2);  // another field before it
            put(directory, 2, 2);
            put(directory, 0, 2);
            put(directory, 1, 2);
            put(directory, 24, 2);
            put(directory, e.bytes.size(), 8);
            put(directory, packed.size(), 8);
            put(directory, header, 8);
        }
    }
    const uint64_t at = out.size(), n = entries.size(), end64 = at + directory.size();
    out.insert(out.end(), directory.begin(), directory.end());
    if (zip64) {
        put(out, 0x06064b50, 4);
        put(out, 44, 8);
        put(out, 45, 2);
        put(out, 45, 2);
        put(out, 0, 8);
        put(out, n, 8);
        put(out, n, 8);
        put(out, directory.size(), 8);
        put(out, at, 8);
        put(out, 0x07064b50, 4);
        put(out, 0, 4);
        put(out, end64, 8);
        put(out, 1, 4);
    }
    put(out, 0x06054b50, 4);
    put(out, 0, 4);
    put(out, n, 2);
    put(out, n, 2);
    put(out, zip64 ? elsewhere : directory.size(), 4);
    put(out, zip64 ? elsewhere : at, 4);
    put(out, comment.size(), 2);
    out.insert(out.end(), comment.begin(), comment.end());
    return out;
}

}  // namespace nc::test
