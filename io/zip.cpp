// The zip format as PKWARE's APPNOTE has it: the directory at the end says what is where.
#include "io/zip.h"

#include <zlib.h>

#include <algorithm>
#include <set>

namespace nc {
namespace {

constexpr uint32_t end_mark = 0x06054b50, end64_mark = 0x06064b50, locator_mark = 0x07064b50;
constexpr uint32_t entry_mark = 0x02014b50, local_mark = 0x04034b50;
constexpr size_t end_bytes = 22, locator_bytes = 20, end64_bytes = 56, local_bytes = 30;
constexpr uint16_t in_zip64_16 = 0xffff;
constexpr uint32_t in_zip64_32 = 0xffffffff;
constexpr uint16_t encrypted = 1, stored = 0, deflated = 8;

Reader over(const std::vector<uint8_t>& bytes, const std::string& path, ErrorKind kind) {
    return Reader(bytes.data(), bytes.size(), path, kind);
}

// The sizes and the offset that did not fit 32 bits, from the extra field of kind 1.
void read_zip64(Reader extra, ZipEntry& entry, const std::string& path, ErrorKind error) {
    while (extra.left() >= 4) {
        const uint16_t kind = extra.u16le(), bytes = extra.u16le();
        if (kind != 1) {
            extra.take(bytes);
            continue;
        }
        Reader field(extra.take(bytes), bytes, path, error);
        for (uint64_t* value : {&entry.size, &entry.packed, &entry.header})
            if (*value == in_zip64_32) *value = field.u64le();
        return;
    }
}

}  // namespace

struct ZipStream::State {
    Source source;
    ZipEntry entry;
    ErrorKind kind;
    bool check_crc;
    uint64_t at;            // the next packed byte in the file
    uint64_t given = 0;     // bytes handed out
    uint64_t consumed = 0;  // packed bytes read from the file
    bool ended = false;     // of the deflate stream
    uint32_t crc = 0;
    z_stream inflater{};
    std::vector<uint8_t> window;  // packed bytes on their way in

    State(Source from, const ZipEntry& what, ErrorKind error, bool check, uint64_t start)
        : source(std::move(from)), entry(what), kind(error), check_crc(check), at(start) {
        if (entry.method != deflated) return;
        window.resize(size_t(std::min<uint64_t>(entry.packed, size_t(1) << 16)));
        if (inflateInit2(&inflater, -MAX_WBITS) != Z_OK) fail("out of memory");
    }
    ~State() {
        if (entry.method == deflated) inflateEnd(&inflater);
    }
    State(const State&) = delete;
    State& operator=(const State&) = delete;

    [[noreturn]] void fail(const std::string& what) const {
        throw Error("[" + source.path() + "] entry '" + entry.name + "': " + what + " at byte " +
                        std::to_string(at),
                    kind);
    }

    size_t copy(uint8_t* to, size_t n) {
        n = size_t(std::min<uint64_t>(n, entry.size - given));
        source.read(at, to, n);
        at += n;
        return n;
    }

    size_t expand(uint8_t* to, size_t n) {
        constexpr size_t piece = size_t(1) << 30;  // zlib counts in 32 bits
        n = std::min(n, piece);
        inflater.next_out = to;
        inflater.avail_out = uInt(n);
        while (inflater.avail_out > 0 && !ended) {
            if (inflater.avail_in == 0 && consumed < entry.packed) {
                const size_t in =
                    size_t(std::min<uint64_t>(window.size(), entry.packed - consumed));
                source.read(at, window.data(), in);
                inflater.next_in = window.data();
                inflater.avail_in = uInt(in);
                at += in;
                consumed += in;
            }
            const int status = inflate(&inflater, Z_NO_FLUSH);
            if (status == Z_STREAM_END)
                ended = true;
            else if (status != Z_OK && status != Z_BUF_ERROR)
                fail(inflater.msg ? inflater.msg : "damaged");
            else if (inflater.avail_in == 0 && consumed == entry.packed && inflater.avail_out > 0)
                fail("truncated");
        }
        return n - inflater.avail_out;
    }
};

ZipStream::ZipStream(std::unique_ptr<State> state) : state_(std::move(state)) {}
ZipStream::~ZipStream() = default;
ZipStream::ZipStream(ZipStream&&) noexcept = default;
ZipStream& ZipStream::operator=(ZipStream&&) noexcept = default;

size_t ZipStream::read(uint8_t* to, size_t n) {
    State& s = *state_;
    const uint64_t left = s.entry.size - s.given;
    size_t made = 0;
    while (made < n && made < left) {
        const size_t want = size_t(std::min<uint64_t>(n - made, left - made));
        const size_t got =
            s.entry.method == stored ? s.copy(to + made, want) : s.expand(to + made, want);
        if (got == 0) s.fail("fewer bytes than the directory says");
        made += got;
    }
    if (s.check_crc)
        for (size_t done = 0; done < made;) {
            const size_t part = std::min(made - done, size_t(1) << 30);
            s.crc = uint32_t(crc32(s.crc, to + done, uInt(part)));
            done += part;
        }
    s.given += made;
    if (s.given == s.entry.size && (made > 0 || s.entry.size == 0)) {
        uint8_t more;
        if (s.entry.method == deflated && !s.ended && s.expand(&more, 1) > 0)
            s.fail("more bytes than the directory says");
        if (s.check_crc && s.crc != s.entry.crc) s.fail("wrong checksum");
    }
    return made;
}

void Zip::fail(uint64_t offset, const std::string& what) const {
    throw Error("[" + source_.path() + "] " + what + " at byte " + std::to_string(offset), kind_);
}

Zip::Zip(Source source, ErrorKind kind) : source_(std::move(source)), kind_(kind) {
    const std::string& path = source_.path();
    const uint64_t size = source_.size();
    if (size < end_bytes) throw Error("[" + path + "] not a zip archive, or truncated", kind_);

    // The end record is the last thing but for a comment.
    const size_t tail = size_t(std::min<uint64_t>(size, end_bytes + in_zip64_16));
    const std::vector<uint8_t> last = source_.bytes(size - tail, tail);
    uint64_t end = size;
    for (size_t back = end_bytes; back <= tail && end == size; ++back) {
        Reader r(last.data() + tail - back, end_bytes, path, kind_);
        if (r.u32le() != end_mark) continue;
        r.take(16);
        if (r.u16le() == back - end_bytes) end = size - back;
    }
    if (end == size) throw Error("[" + path + "] not a zip archive, or truncated", kind_);

    const std::vector<uint8_t> record = source_.bytes(end, end_bytes);
    Reader r = over(record, path, kind_);
    r.take(4);
    const uint16_t disk = r.u16le(), directory_disk = r.u16le(), here = r.u16le();
    uint64_t count = r.u16le(), bytes = r.u32le(), offset = r.u32le(), until = end;
    if (here != count || disk != directory_disk || (disk != 0 && disk != in_zip64_16))
        fail(end, "an archive in several parts is not supported");
    const bool large = count == in_zip64_16 || bytes == in_zip64_32 || offset == in_zip64_32;
    if (large && end >= locator_bytes) {
        const std::vector<uint8_t> locator = source_.bytes(end - locator_bytes, locator_bytes);
        Reader l = over(locator, path, kind_);
        if (l.u32le() == locator_mark) {
            l.u32le();
            until = l.u64le();
            if (until > end - locator_bytes || end - locator_bytes - until < end64_bytes)
                fail(end - locator_bytes, "zip64 record outside the file");
            const std::vector<uint8_t> wide = source_.bytes(until, end64_bytes);
            Reader w = over(wide, path, kind_);
            if (w.u32le() != end64_mark) fail(until, "no zip64 record");
            w.take(20);  // its size, versions, parts
            const uint64_t in_this_part = w.u64le();
            count = w.u64le();
            if (in_this_part != count) fail(until, "an archive in several parts");
            bytes = w.u64le();
            offset = w.u64le();
        }
    }
    if (offset > until || bytes > until - offset)
        fail(end, "a directory of " + std::to_string(bytes) + " bytes at " +
                      std::to_string(offset) + " is outside the file");

    const std::vector<uint8_t> directory = source_.bytes(offset, size_t(bytes));
    Reader d = over(directory, path, kind_);
    std::set<std::string> names;
    while (d.left() > 0) {
        const uint64_t at = offset + d.offset();
        if (d.left() < 46 || d.u32le() != entry_mark) fail(at, "no directory entry");
        d.take(4);  // versions
        const uint16_t flags = d.u16le();
        ZipEntry e;
        e.method = d.u16le();
        d.take(4);  // time and date
        e.crc = d.u32le();
        e.packed = d.u32le();
        e.size = d.u32le();
        const uint16_t name = d.u16le(), extra = d.u16le(), comment = d.u16le();
        d.take(8);  // part, attributes
        e.header = d.u32le();
        if (d.left() < size_t(name) + extra + comment) fail(at, "truncated directory entry");
        const char* text = reinterpret_cast<const char*>(d.take(name));
        e.name.assign(text, name);
        read_zip64(Reader(d.take(extra), extra, path, kind_), e, path, kind_);
        d.take(comment);
        const auto bad = [&](const std::string& what) {
            fail(at, "entry '" + e.name + "' " + what);
        };
        if (!names.insert(e.name).second) bad("stands twice");
        if (flags & encrypted) bad("is encrypted");
        if (e.header > offset || offset - e.header < local_bytes ||
            e.packed > offset - e.header - local_bytes)
            bad("is outside the file");
        if (e.method == stored && e.size != e.packed) bad("is stored with two sizes");
        constexpr uint64_t most = 1032;  // bytes deflate can make of one
        if (e.method == deflated && e.size / most > e.packed) bad("cannot inflate to its size");
        entries_.push_back(std::move(e));
    }
    if (entries_.size() != count)
        fail(end, std::to_string(entries_.size()) + " entries, not " + std::to_string(count));

    std::vector<const ZipEntry*> order;
    for (const ZipEntry& e : entries_) order.push_back(&e);
    std::sort(order.begin(), order.end(),
              [](const ZipEntry* a, const ZipEntry* b) { return a->header < b->header; });
    for (size_t i = 1; i < order.size(); ++i)
        if (order[i]->header - order[i - 1]->header < local_bytes + order[i - 1]->packed)
            fail(order[i]->header,
                 "entries '" + order[i - 1]->name + "' and '" + order[i]->name + "' overlap");
}

const ZipEntry* Zip::find(const std::string& name) const {
    for (const ZipEntry& e : entries_)
        if (e.name == name) return &e;
    return nullptr;
}

// After the local header, whose name and extra field may differ from the directory's.
uint64_t Zip::data_of(const ZipEntry& e) const {
    const std::vector<uint8_t> header = source_.bytes(e.header, local_bytes);
    Reader r = over(header, source_.path(), kind_);
    if (r.u32le() != local_mark) fail(e.header, "entry '" + e.name + "' has no header");
    r.take(22);
    const uint64_t name = r.u16le(), extra = r.u16le();
    const uint64_t start = e.header + local_bytes + name + extra;
    if (start > source_.size() || e.packed > source_.size() - start)
        fail(e.header, "entry '" + e.name + "' is outside the file");
    return start;
}

uint64_t Zip::stored_at(const ZipEntry& e) const {
    if (e.method != stored) fail(e.header, "entry '" + e.name + "' is compressed");
    return data_of(e);
}

ZipStream Zip::open(const ZipEntry& e, bool check_crc) const {
    if (e.method != stored && e.method != deflated)
        fail(e.header, "entry '" + e.name + "' is compressed by method " +
                           std::to_string(e.method) + ", not stored or deflated");
    return ZipStream(std::make_unique<ZipStream::State>(source_, e, kind_, check_crc, data_of(e)));
}

std::vector<uint8_t> Zip::read(const ZipEntry& e, size_t max_bytes, bool check_crc) const {
    if (e.size > max_bytes)
        fail(e.header,
             "entry '" + e.name + "' is larger than " + std::to_string(max_bytes) + " bytes");
    ZipStream stream = open(e, check_crc);
    std::vector<uint8_t> out;
    constexpr size_t piece = size_t(1) << 20;
    // What is stored is there; what is deflated is believed piece by piece.
    if (e.method == stored) out.reserve(size_t(e.size));
    for (;;) {
        const size_t have = out.size();
        const size_t want = size_t(std::min<uint64_t>(piece, e.size - have));
        out.resize(have + want);
        if (stream.read(out.data() + have, want) < want || out.size() == e.size) return out;
    }
}

}  // namespace nc
