// NumPy's format (NEP 1): magic, version, a Python dictionary as text, the array.
#include "io/npy.h"

#include <cstring>

#include "io/bytes.h"

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
    Dictionary(const char* text, size_t size, Reader& reader)
        : at_(text), end_(text + size), reader_(reader) {}

    void parse(std::string& descr, bool& fortran, std::vector<size_t>& shape) {
        bool seen[3] = {};
        expect('{');
        while (!accept('}')) {
            const std::string key = string();
            expect(':');
            if (key == "descr") {
                once(seen[0], key);
                descr = string();
            } else if (key == "fortran_order") {
                once(seen[1], key);
                fortran = boolean();
            } else if (key == "shape") {
                once(seen[2], key);
                shape = tuple();
            } else {
                reader_.fail("unknown header key '" + key + "'");
            }
            if (!accept(',')) {
                expect('}');
                break;
            }
        }
        if (!seen[0] || !seen[1] || !seen[2])
            reader_.fail("the header lacks descr, fortran_order or shape");
    }

 private:
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
        if (!accept(c)) reader_.fail(std::string("malformed header: '") + c + "' expected");
    }
    void once(bool& seen, const std::string& key) {
        if (seen) reader_.fail("header key '" + key + "' stands twice");
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
        reader_.fail("malformed header: True or False expected");
    }
    std::vector<size_t> tuple() {
        std::vector<size_t> out;
        expect('(');
        while (!accept(')')) {
            skip();
            size_t value = 0, digits = 0;
            for (; at_ < end_ && *at_ >= '0' && *at_ <= '9'; ++at_, ++digits)
                value = value * 10 + size_t(*at_ - '0');
            if (digits == 0 || digits > 18) reader_.fail("malformed header: a size expected");
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
    Reader& reader_;
};

}  // namespace

Tensor load_npy(const std::string& path) {
    return parse_npy(read_file(path), path);
}

Tensor parse_npy(const std::vector<uint8_t>& file, const std::string& path) {
    Reader reader(file.data(), file.size(), path);
    if (std::memcmp(reader.take(magic_bytes), magic, magic_bytes) != 0)
        throw Error("[" + path + "] not a .npy file: wrong magic", ErrorKind::data);
    const int major = reader.u8();
    reader.u8();
    if (major < 1 || major > 3) reader.fail("unknown version " + std::to_string(major));
    const size_t length = major == 1 ? reader.u16le() : reader.u32le();
    const char* text = reinterpret_cast<const char*>(reader.take(length));
    std::string descr;
    bool fortran = false;
    std::vector<size_t> sizes;
    Dictionary(text, length, reader).parse(descr, fortran, sizes);
    if (fortran && sizes.size() > 1) reader.fail("Fortran order is not supported");
    if (sizes.size() > Shape::max_rank)
        reader.fail("more than " + std::to_string(Shape::max_rank) + " axes");

    const Code* code = nullptr;
    for (const auto& c : codes)
        if (descr.size() == 3 && descr.substr(1) == c.name) code = &c;
    const bool one_byte = code && size_of(code->dtype) == 1;
    if (!code || !(descr[0] == '<' || (one_byte && descr[0] == '|')))
        reader.fail("type '" + descr + "' is not supported");

    const Shape shape(sizes);
    const size_t elements = shape.elements(), size = size_of(code->dtype);
    if (reader.left() % size != 0 || elements != reader.left() / size)
        reader.fail(std::to_string(reader.left()) + " bytes of values, but shape " + shape.str() +
                    " of " + descr);
    Tensor out(shape, code->dtype);
    if (elements == 0) return out;
    std::memcpy(out.raw(), reader.take(elements * size), elements * size);
    if (code->name[0] == 'b') {
        uint8_t* values = out.data<uint8_t>();
        for (size_t i = 0; i < elements; ++i) values[i] = values[i] != 0;
    }
    return out;
}

void save_npy(const std::string& path, const Tensor& tensor) {
    const Code* code = nullptr;
    for (const auto& c : codes)
        if (!code && c.dtype == tensor.dtype()) code = &c;
    std::string shape = "(";
    for (const size_t size : tensor.shape()) shape += std::to_string(size) + ", ";
    if (tensor.shape().rank() > 1) shape.resize(shape.size() - 2);
    if (tensor.shape().rank() == 1) shape.resize(shape.size() - 1);
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
    out += header;
    if (tensor.elements() > 0) out.append(static_cast<const char*>(tensor.raw()), tensor.bytes());
    write_file(path, out);
}

}  // namespace nc
