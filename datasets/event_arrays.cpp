// NumPy files as recordings: structured arrays, arrays side by side, columns, and frames.
#include <array>
#include <memory>

#include "datasets/event_formats.h"
#include "io/zip.h"

namespace nc {
namespace {

const char* const names[] = {"t", "x", "y", "p"};

// The same events as four numbers each, from one stream of items or from four.
struct Columns {
    std::vector<ByteStream> streams;
    std::array<NpyField, 4> fields;  // in the order of `names`
    std::array<size_t, 4> item_bytes;
    uint64_t events = 0, read = 0;

    [[noreturn]] void fail(const std::string& what) const {
        throw Error("[" + streams[0].path() + "] event " + std::to_string(read) + ": " + what,
                    ErrorKind::data);
    }

    Event next(const EventFile& file) {
        std::array<int64_t, 4> values;
        const uint8_t* item = nullptr;
        for (size_t i = 0; i < 4; ++i) {
            if (i < streams.size()) item = streams[i].take(item_bytes[i]);
            if (!fields[i].integer(item, values[i]))
                fail(std::string(names[i]) + " is " + std::to_string(fields[i].number(item)) +
                     ", not an integer" + (i == 0 ? " (of microseconds)" : ""));
        }
        const auto [t, x, y, p] = values;
        if (t < -latest_time || t > latest_time) fail("t is " + std::to_string(t));
        const auto beyond = [](int64_t at, size_t side) {
            return at < 0 || at >= int64_t(side > 0 ? side : largest_side);
        };
        if (beyond(x, file.width) || beyond(y, file.height))
            fail(std::to_string(x) + ", " + std::to_string(y) + " is outside the sensor of " +
                 std::to_string(file.width) + " x " + std::to_string(file.height));
        if (p < -1 || p > 1) fail("p is " + std::to_string(p) + ", not 0 or 1 (or -1 for off)");
        ++read;
        return {t, uint16_t(x), uint16_t(y), uint8_t(p > 0)};
    }
};

void decode_columns(EventFile& file, Columns columns) {
    file.decode = [columns = std::move(columns)](EventFile& f, std::vector<Event>& out) mutable {
        const size_t enough = out.size() + events_at_a_time;
        while (out.size() < enough && columns.read < columns.events)
            out.push_back(columns.next(f));
        if (columns.read < columns.events) return true;
        for (ByteStream& stream : columns.streams)
            if (!stream.at_end()) stream.fail("bytes after the last event");
        return false;
    };
}

std::string text_of(const std::vector<size_t>& shape) {
    std::string out = "(";
    for (const size_t size : shape) out += (out.size() == 1 ? "" : ", ") + std::to_string(size);
    out += ")";
    return out;
}

// Structured by field name, or columns t, x, y, p.
Columns one_array(ByteStream stream, const NpyHeader& header) {
    Columns out;
    if (header.structured && header.shape.size() == 1) {
        for (size_t i = 0; i < 4; ++i) {
            const NpyField* field = header.find(names[i]);
            if (!field) stream.fail("no field '" + std::string(names[i]) + "' in " + header.type);
            out.fields[i] = *field;
        }
        out.item_bytes = {header.item_bytes};
    } else if (!header.structured && header.shape.size() == 2 && header.shape[1] == 4) {
        for (size_t i = 0; i < 4; ++i) {
            out.fields[i] = header.fields[0];
            out.fields[i].offset = i * header.item_bytes;
        }
        out.item_bytes = {4 * header.item_bytes};
    } else {
        stream.fail("an array of shape " + text_of(header.shape) + " and type " + header.type +
                    " holds no events: (N) with fields t, x, y, p or (N, 4) wanted");
    }
    out.events = header.shape[0];
    out.streams.push_back(std::move(stream));
    return out;
}

ByteStream stream_of(const Zip& zip, const ZipEntry& entry, const Source& source) {
    const auto stream = std::make_shared<ZipStream>(zip.open(entry));
    return ByteStream([stream](uint8_t* to, size_t n) { return stream->read(to, n); },
                      source.path() + "/" + entry.name);
}

bool are_frames(const NpyHeader& header) {
    return !header.structured && header.shape.size() == 4 && header.shape[1] == 2;
}

}  // namespace

void open_npy(EventFile& file) {
    file.description = "NumPy .npy";
    const NpyHeader header = read_npy_header(file.in);
    decode_columns(file, one_array(file.in, header));
}

void open_npz(EventFile& file, const Source& source) {
    file.description = "NumPy .npz";
    const Zip zip(source);
    Columns columns;
    for (size_t i = 0; i < 4; ++i) {
        const ZipEntry* entry = zip.find(std::string(names[i]) + ".npy");
        if (!entry) break;
        ByteStream stream = stream_of(zip, *entry, source);
        const NpyHeader header = read_npy_header(stream);
        if (header.structured || header.shape.size() != 1)
            stream.fail("an array of shape " + text_of(header.shape) + ", not (N)");
        if (i == 0) columns.events = header.shape[0];
        if (header.shape[0] != columns.events)
            stream.fail(std::to_string(header.shape[0]) + " values, but " +
                        std::to_string(columns.events) + " in t");
        columns.fields[i] = header.fields[0];
        columns.item_bytes[i] = header.item_bytes;
        columns.streams.push_back(std::move(stream));
    }
    if (columns.streams.size() == 4) {
        decode_columns(file, std::move(columns));
    } else if (zip.entries().size() == 1) {
        ByteStream stream = stream_of(zip, zip.entries()[0], source);
        const NpyHeader header = read_npy_header(stream);
        decode_columns(file, one_array(std::move(stream), header));
    } else {
        std::string found;
        for (const ZipEntry& entry : zip.entries())
            if (found.size() < 200) found += (found.empty() ? "" : ", ") + entry.name;
        throw Error("[" + source.path() + "] no arrays t, x, y and p, but " +
                        (found.empty() ? "nothing" : found),
                    ErrorKind::data);
    }
}

std::optional<FramesArray> find_frames(const Source& source) {
    const std::string format = format_of(source);
    if (format == "npy") {
        ByteStream in(source);
        const NpyHeader header = read_npy_header(in);
        if (are_frames(header)) return FramesArray{std::move(in), header};
    } else if (format == "npz") {
        const Zip zip(source);
        const ZipEntry* entry = zip.find("frames.npy");
        if (!entry && zip.entries().size() == 1) entry = &zip.entries()[0];
        if (!entry) return {};
        ByteStream in = stream_of(zip, *entry, source);
        const NpyHeader header = read_npy_header(in);
        if (are_frames(header)) return FramesArray{std::move(in), header};
    }
    return {};
}

}  // namespace nc
