// NumPy's format (NEP 1): magic, version, a Python dictionary as text, the array.
#include "io/npy.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace nc {
namespace {

constexpr char magic[] = "\x93NUMPY";
constexpr size_t magic_bytes = 6;

struct Code {
    const char* name;
    DType dtype;
};
// b1 is read as u8 with values 0 and 1; it stands last so that u8 is written as u1.
constexpr Code codes[] = {{"f4", DType::f32}, {"f8", DType::f64}, {"i1", DType::i8},
                          {"u1", DType::u8},  {"i2", DType::i16}, {"i4", DType::i32},
                          {"i8", DType::i64}, {"u8", DType::u64}, {"b1", DType::u8}};

// The header's dictionary: three known keys, any order, any spacing.
class Dictionary {
 public:
    Dictionary(const std::string& text, const ByteStream& stream)
        : at_(text.data()), end_(text.data() + text.size()), stream_(stream) {}

    void parse(NpyHeader& out, bool& fortran) {
        bool seen[3] = {};
        expect('{');
        while (!accept('}')) {
            const std::string key = string();
            expect(':');
            if (key == "descr") {
                once(seen[0], key);
                descr(out);
            } else if (key == "fortran_order") {
                once(seen[1], key);
                fortran = boolean();
            } else if (key == "shape") {
                once(seen[2], key);
                out.shape = tuple();
            } else {
                stream_.fail("unknown header key '" + key + "'");
            }
            if (!accept(',')) {
                expect('}');
                break;
            }
        }
        if (!seen[0] || !seen[1] || !seen[2])
            stream_.fail("the header lacks descr, fortran_order or shape");
    }

 private:
    // '<f4', or a list of ('name', '<f4').
    void descr(NpyHeader& out) {
        const char* begin = (skip(), at_);
        if (accept('[')) {
            out.structured = true;
            while (!accept(']')) {
                expect('(');
                const std::string name = string();
                expect(',');
                add(out, name, string());
                if (accept(',')) stream_.fail("field '" + name + "' is itself an array");
                expect(')');
                if (!accept(',')) {
                    expect(']');
                    break;
                }
            }
        } else {
            add(out, "", string());
        }
        out.type.assign(begin, at_);
    }
    // A field of this type after those there are; 'V' is padding.
    void add(NpyHeader& out, const std::string& name, const std::string& type) {
        const auto refuse = [&] { stream_.fail("type '" + type + "' is not supported"); };
        if (type.size() < 3 || type.size() > 6 || !std::strchr("<>|=", type[0])) refuse();
        size_t bytes = 0;
        for (const char c : type.substr(2)) {
            if (c < '0' || c > '9') refuse();
            bytes = bytes * 10 + size_t(c - '0');
        }
        const char kind = type[1];
        const bool number = bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
        const bool known = kind == 'V'   ? out.structured
                           : kind == 'b' ? bytes == 1
                           : kind == 'f' ? bytes == 4 || bytes == 8
                                         : (kind == 'i' || kind == 'u') && number;
        if (!known || (type[0] == '|' && kind != 'V' && bytes > 1)) refuse();
        if (kind != 'V') {
            if (out.structured && out.find(name)) stream_.fail("field '" + name + "' stands twice");
            out.fields.push_back({name, kind, bytes, out.item_bytes, type[0] == '>'});
        }
        out.item_bytes += bytes;
    }
    void skip() {
        while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t')) ++at_;
    }
    bool accept(char c) {
        skip();
        if (at_ == end_ || *at_ != c) return false;
        ++at_;
        return true;
    }
    void expect(char c) {
        if (!accept(c)) stream_.fail(std::string("malformed header: '") + c + "' expected");
    }
    void once(bool& seen, const std::string& key) {
        if (seen) stream_.fail("header key '" + key + "' stands twice");
        seen = true;
    }
    std::string string() {
        skip();
        const char quote = at_ < end_ && *at_ == '"' ? '"' : '\'';
        expect(quote);
        std::string out;
        while (at_ < end_ && *at_ != quote) out += *at_++;
        expect(quote);
        return out;
    }
    bool boolean() {
        skip();
        for (const bool value : {true, false}) {
            const std::string word = value ? "True" : "False";
            if (size_t(end_ - at_) >= word.size() &&
                word.compare(0, word.size(), at_, word.size()) == 0) {
                at_ += word.size();
                return value;
            }
        }
        stream_.fail("malformed header: True or False expected");
    }
    std::vector<size_t> tuple() {
        std::vector<size_t> out;
        expect('(');
        while (!accept(')')) {
            skip();
            size_t value = 0, digits = 0;
            for (; at_ < end_ && *at_ >= '0' && *at_ <= '9'; ++at_, ++digits)
                value = value * 10 + size_t(*at_ - '0');
            if (digits == 0 || digits > 18) stream_.fail("malformed header: a size expected");
            out.push_back(value);
            if (!accept(',')) {
                expect(')');
                break;
            }
        }
        return out;
    }

    const char* at_;
    const char* end_;
    const ByteStream& stream_;
};

}  // namespace

namespace {

uint64_t bits_of(const NpyField& f, const uint8_t* item) {
    uint64_t bits = 0;
    for (size_t i = 0; i < f.bytes; ++i)
        bits |= uint64_t(item[f.offset + (f.big_endian ? f.bytes - 1 - i : i)]) << 8 * i;
    return bits;
}

}  // namespace

double NpyField::number(const uint8_t* item) const {
    const uint64_t bits = bits_of(*this, item);
    if (kind == 'f')
        return bytes == 4 ? double(std::bit_cast<float>(uint32_t(bits)))
                          : std::bit_cast<double>(bits);
    int64_t value = 0;
    return integer(item, value) ? double(value) : double(bits);
}

bool NpyField::integer(const uint8_t* item, int64_t& out) const {
    if (kind == 'f') {
        const double value = number(item);
        out = std::abs(value) < 0x1p62 ? int64_t(value) : 0;
        return std::abs(value) < 0x1p62 && double(out) == value;
    }
    const uint64_t bits = bits_of(*this, item);
    const unsigned unused = unsigned(64 - 8 * bytes);
    out = kind == 'b'   ? bits != 0
          : kind == 'i' ? int64_t(bits << unused) >> unused  // with its sign
                        : int64_t(bits);
    return kind != 'u' || bits < uint64_t(1) << 63;
}

const NpyField* NpyHeader::find(const std::string& name) const {
    for (const NpyField& field : fields)
        if (field.name == name) return &field;
    return nullptr;
}

uint64_t NpyHeader::elements() const {
    uint64_t n = 1;
    for (const size_t size : shape) n *= size;
    return n;
}

NpyHeader read_npy_header(ByteStream& stream) {
    const uint8_t* start = stream.peek(magic_bytes);
    if (!start || std::memcmp(start, magic, magic_bytes) != 0)
        throw Error("[" + stream.path() + "] not a .npy file: wrong magic", ErrorKind::data);
    stream.take(magic_bytes);
    const int major = *stream.take(1);
    stream.take(1);
    if (major < 1 || major > 3) stream.fail("unknown version " + std::to_string(major));
    size_t length = 0;
    const size_t length_bytes = major == 1 ? 2 : 4;
    const uint8_t* b = stream.take(length_bytes);
    for (size_t i = 0; i < length_bytes; ++i) length |= size_t(b[i]) << 8 * i;
    const uint8_t* dictionary = stream.take(length);
    const std::string text(dictionary, dictionary + length);
    NpyHeader out;
    bool fortran = false;
    Dictionary(text, stream).parse(out, fortran);
    if (fortran && out.shape.size() > 1) stream.fail("Fortran order is not supported");
    if (out.fields.empty()) stream.fail("a type without fields");
    constexpr uint64_t most = uint64_t(1) << 62;
    uint64_t bytes = out.item_bytes;
    for (const size_t size : out.shape) {
        if (size > most / std::max<uint64_t>(bytes, 1)) stream.fail("sizes too large");
        bytes *= std::max<size_t>(size, 1);
    }
    return out;
}

Tensor load_npy(const std::string& path) {
    return parse_npy(read_file(path), path);
}

Tensor parse_npy(const std::vector<uint8_t>& file, const std::string& path) {
    ByteStream stream(Source(file.data(), file.size(), path));
    const NpyHeader header = read_npy_header(stream);
    if (header.shape.size() > Shape::max_rank)
        stream.fail("more than " + std::to_string(Shape::max_rank) + " axes");
    const NpyField& field = header.fields.front();
    const Code* code = nullptr;
    const std::string name = field.kind + std::to_string(field.bytes);
    for (const auto& c : codes)
        if (name == c.name) code = &c;
    if (header.structured || !code || field.big_endian)
        stream.fail("type " + header.type + " is not supported");

    const Shape shape(header.shape);
    const size_t elements = shape.elements(), size = size_of(code->dtype);
    const size_t at = size_t(stream.offset()), left = file.size() - at;
    if (left % size != 0 || elements != left / size)
        stream.fail(std::to_string(left) + " bytes of values, but shape " + shape.str() + " of " +
                    header.type);
    Tensor out(shape, code->dtype);
    if (elements == 0) return out;
    std::memcpy(out.raw(), file.data() + at, elements * size);
    if (field.kind == 'b') {
        uint8_t* values = out.data<uint8_t>();
        for (size_t i = 0; i < elements; ++i) values[i] = values[i] != 0;
    }
    return out;
}

std::string npy_header(DType dtype, const std::vector<size_t>& sizes) {
    const Code* code = std::find_if(std::begin(codes), std::end(codes),
                                    [&](const Code& c) { return c.dtype == dtype; });
    std::string shape = "(";
    for (const size_t size : sizes) shape += std::to_string(size) + ", ";
    if (sizes.size() > 1) shape.resize(shape.size() - 2);
    if (sizes.size() == 1) shape.resize(shape.size() - 1);
    std::string header = std::string("{'descr': '") + (size_of(code->dtype) == 1 ? '|' : '<') +
                         code->name + "', 'fortran_order': False, 'shape': " + shape + "), }";
    constexpr size_t fixed = magic_bytes + 4;  // magic, version, length
    header.resize((fixed + header.size() + 1 + 63) / 64 * 64 - fixed - 1, ' ');
    header += '\n';

    std::string out(magic, magic_bytes);
    out += '\x01';
    out += '\0';
    out += char(header.size() & 0xff);
    out += char(header.size() >> 8);
    return out + header;
}

void save_npy(const std::string& path, const Tensor& tensor) {
    FileWriter file(path);
    const std::string header = npy_header(tensor.dtype(), tensor.shape().to_vector());
    file.write(header.data(), header.size());
    if (tensor.elements() > 0) file.write(tensor.raw(), tensor.bytes());
    file.commit();
}

}  // namespace nc
