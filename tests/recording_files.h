// Event recordings for tests, encoded by hand in every format that is read.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "datasets/recordings.h"
#include "tests/zip_writer.h"

namespace nc::test {

inline void put_be(Bytes& out, uint64_t value, size_t bytes) {
    for (size_t i = bytes; i > 0; --i) out.push_back(uint8_t(value >> 8 * (i - 1) & 255));
}
inline Bytes text_bytes(const std::string& text) {
    return Bytes(text.begin(), text.end());
}

inline Bytes nmnist_file(const std::vector<Event>& events) {
    Bytes out;
    for (const Event& e : events) {
        put(out, e.x, 1);
        put(out, e.y, 1);
        put_be(out, uint64_t(e.p) << 23 | uint64_t(e.t), 3);
    }
    return out;
}

inline Bytes aedat2_file(const std::vector<Event>& events) {
    Bytes out = text_bytes("#!AER-DAT2.0\r\n# This is a raw AE data file\r\n");
    for (const Event& e : events) {
        put_be(out, uint64_t(e.x) << 8 | uint64_t(e.y) << 1 | e.p, 4);
        put_be(out, uint64_t(e.t) & 0xffffffff, 4);
    }
    return out;
}

// A packet of AEDAT 3.1: its header, then items of 8 bytes.
inline void put_packet(Bytes& out, uint16_t type, uint32_t overflow, uint32_t capacity,
                       uint32_t number, uint32_t valid) {
    put(out, type, 2);
    put(out, 1, 2);
    put(out, 8, 4);
    put(out, 4, 4);
    put(out, overflow, 4);
    put(out, capacity, 4);
    put(out, number, 4);
    put(out, valid, 4);
}
inline void put_polarity(Bytes& out, const Event& e, bool valid = true) {
    put(out, uint64_t(e.x) << 17 | uint64_t(e.y) << 2 | uint64_t(e.p) << 1 | uint64_t(valid), 4);
    put(out, uint64_t(e.t) & 0x7fffffff, 4);
}
const char* const aedat3_header =
    "#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n";
// A packet an overflow.
inline Bytes aedat3_file(const std::vector<Event>& events) {
    Bytes out = text_bytes(aedat3_header);
    for (size_t i = 0; i < events.size();) {
        const int64_t overflow = events[i].t >> 31;
        size_t end = i;
        while (end < events.size() && events[end].t >> 31 == overflow) ++end;
        const uint32_t n = uint32_t(end - i);
        put_packet(out, 1, uint32_t(overflow), n, n, n);
        for (; i < end; ++i) put_polarity(out, events[i]);
    }
    return out;
}

inline Bytes evt2_file(const std::vector<Event>& events) {
    Bytes out = text_bytes("% evt 2.0\n% geometry 640x480\n% end\n");
    int64_t high = -1;
    for (const Event& e : events) {
        if (e.t >> 6 != high) put(out, uint64_t(8) << 28 | ((high = e.t >> 6) & 0xfffffff), 4);
        put(out, uint64_t(e.p) << 28 | uint64_t(e.t & 63) << 22 | uint64_t(e.x) << 11 | e.y, 4);
    }
    return out;
}

inline Bytes evt3_file(const std::vector<Event>& events) {
    Bytes out = text_bytes("% format EVT3;height=720;width=1280\n% end\n");
    int64_t high = -1, low = -1, y = -1;
    for (const Event& e : events) {
        if (e.t >> 12 != high) {
            put(out, uint64_t(0x8000) | ((high = e.t >> 12) & 0xfff), 2);
            low = -1;
        }
        if ((e.t & 0xfff) != low) put(out, uint64_t(0x6000) | uint64_t(low = e.t & 0xfff), 2);
        if (e.y != y) put(out, uint64_t(y = e.y), 2);
        put(out, uint64_t(0x2000) | uint64_t(e.p) << 11 | e.x, 2);
    }
    return out;
}

inline Bytes dat_file(const std::vector<Event>& events) {
    Bytes out = text_bytes("% Data file containing CD events.\n% Height 240\n% Width 304\n");
    put(out, 12, 1);
    put(out, 8, 1);
    for (const Event& e : events) {
        put(out, uint64_t(e.t) & 0xffffffff, 4);
        put(out, uint64_t(e.p) << 28 | uint64_t(e.y) << 14 | e.x, 4);
    }
    return out;
}

inline Bytes npy_file(const std::string& type, const std::string& shape, const Bytes& values) {
    std::string header =
        "{'descr': " + type + ", 'fortran_order': False, 'shape': (" + shape + "), }";
    header.resize((header.size() + 11 + 63) / 64 * 64 - 11, ' ');
    Bytes out = text_bytes("\x93NUMPY");
    put(out, 1, 2);
    put(out, header.size() + 1, 2);
    const Bytes text = text_bytes(header + "\n");
    out.insert(out.end(), text.begin(), text.end());
    out.insert(out.end(), values.begin(), values.end());
    return out;
}

// As NumPy writes structured arrays of Tonic's type, and of aligned fields.
inline Bytes structured_file(const std::vector<Event>& events) {
    Bytes values;
    for (const Event& e : events) {
        put(values, e.x, 2);
        put(values, e.y, 2);
        put(values, 0, 4);
        put(values, uint64_t(e.t), 8);
        put(values, e.p, 1);
    }
    return npy_file("[('x', '<i2'), ('y', '<i2'), ('', '|V4'), ('t', '<i8'), ('p', '|b1')]",
                    std::to_string(events.size()) + ",", values);
}

inline Bytes npz_file(const std::vector<Event>& events, bool deflate = true) {
    Bytes t, x, y, p;
    for (const Event& e : events) {
        put(t, uint64_t(e.t), 8);
        put(x, e.x, 2);
        put_be(y, e.y, 2);
        put(p, e.p ? 1 : 255, 1);  // -1 for off
    }
    const std::string n = std::to_string(events.size()) + ",";
    return zip_of({{"p.npy", npy_file("'|i1'", n, p), deflate},
                   {"t.npy", npy_file("'<i8'", n, t), deflate},
                   {"x.npy", npy_file("'<u2'", n, x), deflate},
                   {"y.npy", npy_file("'>u2'", n, y), deflate}});
}

struct RecordingFormat {
    const char* name;
    const char* file;
    Bytes (*encode)(const std::vector<Event>&);
};
inline const RecordingFormat recording_files[] = {
    {"nmnist", "a.bin", nmnist_file},
    {"aedat2", "a.aedat", aedat2_file},
    {"aedat3", "a.aedat", aedat3_file},
    {"evt2", "a.raw", evt2_file},
    {"evt3", "a.raw", evt3_file},
    {"dat", "a.dat", dat_file},
    {"npy", "a.npy", structured_file},
    {"npz", "a.npz", [](const std::vector<Event>& e) { return npz_file(e); }}};

}  // namespace nc::test
