// Files as bytes over POSIX calls, whose errno says why something failed.
#include "io/bytes.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace nc {
namespace {

namespace fs = std::filesystem;

class File {
 public:
    File(const std::string& path, int flags) : fd_(open(path.c_str(), flags | O_CLOEXEC)) {}
    ~File() {
        if (fd_ >= 0) close(fd_);
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    int fd() const { return fd_; }
    bool ok() const { return fd_ >= 0; }

 private:
    int fd_;
};

[[noreturn]] void fail(const char* op, const std::string& path, int reason,
                       const std::string& hint = "") {
    throw Error("[" + std::string(op) + "] " + path + ": " + std::strerror(reason), ErrorKind::data,
                hint);
}

[[noreturn]] void too_large(const std::string& path, size_t max_bytes) {
    throw Error("[read] " + path + ": larger than " + std::to_string(max_bytes) + " bytes",
                ErrorKind::data);
}

// Everything through one descriptor; the reason for a failure is left in errno.
bool write_all(int fd, const char* data, size_t bytes) {
    while (bytes > 0) {
        const ssize_t n = write(fd, data, std::min(bytes, size_t(1) << 30));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        data += n;
        bytes -= size_t(n);
    }
    return true;
}

}  // namespace

void refuse_model(const std::string& path, const std::string& what, const std::string& hint) {
    throw Error("[" + path + "] " + what, ErrorKind::model, hint);
}

std::vector<uint8_t> read_file(const std::string& path, size_t max_bytes) {
    const File file(path, O_RDONLY);
    if (!file.ok()) fail("read", path, errno);
    struct stat info;
    if (fstat(file.fd(), &info) != 0) fail("read", path, errno);
    if (S_ISDIR(info.st_mode)) fail("read", path, EISDIR);
    if (S_ISREG(info.st_mode) && uint64_t(info.st_size) > max_bytes) too_large(path, max_bytes);

    // The size is only a first guess: pipes have none, and files may grow while they are read.
    std::vector<uint8_t> out(S_ISREG(info.st_mode) ? size_t(info.st_size) : 0);
    size_t have = 0;
    for (;;) {
        if (have == out.size()) {
            uint8_t probe[4096];
            const ssize_t n = read(file.fd(), probe, sizeof probe);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) fail("read", path, errno);
            if (n == 0) return out;
            out.insert(out.end(), probe, probe + n);
            have += size_t(n);
        } else {
            const size_t want = std::min(out.size() - have, size_t(1) << 30);
            const ssize_t n = read(file.fd(), out.data() + have, want);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) fail("read", path, errno);
            have += size_t(n);
            if (n == 0) out.resize(have);
        }
        if (have > max_bytes) too_large(path, max_bytes);
    }
}

std::vector<uint8_t> inflate_gzip(const std::vector<uint8_t>& packed, const std::string& path,
                                  size_t max_bytes) {
    struct Stream : z_stream {
        Stream() : z_stream{} {}
        ~Stream() { inflateEnd(this); }
    } stream;
    constexpr int gzip_only = 16 + MAX_WBITS;
    if (inflateInit2(&stream, gzip_only) != Z_OK) fail("gzip", path, ENOMEM);

    std::vector<uint8_t> out;
    std::vector<uint8_t> block(size_t(1) << 18);
    size_t consumed = 0;
    const auto bad = [&](const std::string& what) {
        return Error("[gzip] " + path + ": " + what + " at byte " + std::to_string(consumed),
                     ErrorKind::data);
    };
    for (;;) {
        stream.next_in = const_cast<Bytef*>(packed.data() + consumed);
        const size_t given = std::min(packed.size() - consumed, size_t(1) << 30);
        stream.avail_in = uInt(given);
        stream.next_out = block.data();
        stream.avail_out = uInt(block.size());
        const int status = inflate(&stream, Z_NO_FLUSH);
        consumed += given - stream.avail_in;
        const size_t made = block.size() - stream.avail_out;
        if (made > max_bytes - out.size()) too_large(path + " inflated", max_bytes);
        out.insert(out.end(), block.begin(), block.begin() + ptrdiff_t(made));
        if (status == Z_STREAM_END) {
            if (consumed == packed.size()) return out;
            if (inflateReset2(&stream, gzip_only) != Z_OK) fail("gzip", path, ENOMEM);
        } else if (status == Z_OK || status == Z_BUF_ERROR) {
            if (consumed == packed.size() && made < block.size()) throw bad("truncated");
        } else {
            throw bad(stream.msg ? stream.msg : "damaged");
        }
    }
}

std::vector<uint8_t> read_maybe_gzip(const std::string& path, size_t max_bytes) {
    std::vector<uint8_t> bytes = read_file(path, max_bytes);
    const bool packed = bytes.size() >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b;
    return packed ? inflate_gzip(bytes, path, max_bytes) : bytes;
}

FileWriter::FileWriter(const std::string& path) : path_(path) {
    std::error_code ignored;
    // What a link points to is replaced, not the link.
    target_ = fs::is_symlink(path, ignored) ? fs::weakly_canonical(path, ignored).string() : path;
    if (fs::is_directory(target_, ignored)) fail("write", path, EISDIR);
    // A device or a pipe: there is nothing to rename over.
    const bool rename = !fs::exists(target_, ignored) || fs::is_regular_file(target_, ignored);
    if (rename) temporary_ = target_ + "." + std::to_string(getpid()) + ".tmp";
    fd_ = rename ? open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)
                 : open(target_.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) fail("write", path, errno);
}

FileWriter::~FileWriter() {
    if (fd_ < 0) return;
    close(fd_);
    if (!temporary_.empty()) unlink(temporary_.c_str());
}

void FileWriter::give_up() {
    fail("write", path_, errno);
}

void FileWriter::write(const void* data, size_t bytes) {
    if (!write_all(fd_, static_cast<const char*>(data), bytes)) give_up();
}

void FileWriter::commit() {
    if (!temporary_.empty() &&
        (fsync(fd_) != 0 || rename(temporary_.c_str(), target_.c_str()) != 0))
        give_up();
    const int fd = fd_;
    fd_ = -1;
    if (close(fd) != 0) give_up();
    if (temporary_.empty()) return;
    // The rename itself survives a power cut once the folder is synced; not every file system can.
    const fs::path parent = fs::path(target_).parent_path();
    const File folder(parent.empty() ? "." : parent.string(), O_RDONLY | O_DIRECTORY);
    if (folder.ok()) fsync(folder.fd());
}

void write_file(const std::string& path, const void* data, size_t bytes) {
    FileWriter file(path);
    file.write(data, bytes);
    file.commit();
}

void make_folder(const std::string& path) {
    std::error_code error;
    std::filesystem::create_directories(path, error);
    if (error) throw Error("[folder] cannot make " + path + ": " + error.message());
}

void write_file(const std::string& path, const std::string& text) {
    write_file(path, text.data(), text.size());
}

Source::Source(const std::string& path) : path_(path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) nc::fail("read", path, errno);
    file_ = std::shared_ptr<const int>(new int(fd), [](const int* file) {
        close(*file);
        delete file;
    });
    struct stat info;
    if (fstat(fd, &info) != 0) nc::fail("read", path, errno);
    if (S_ISDIR(info.st_mode)) nc::fail("read", path, EISDIR);
    if (!S_ISREG(info.st_mode)) nc::fail("read", path, ESPIPE);
    size_ = uint64_t(info.st_size);
}

Source::Source(const uint8_t* data, size_t size, std::string path)
    : data_(data), size_(size), path_(std::move(path)) {}

void Source::check(uint64_t offset, size_t n) const {
    if (offset > size_ || n > size_ - offset)
        throw Error("[" + path_ + "] truncated: " + std::to_string(n) + " bytes wanted at byte " +
                        std::to_string(offset) + " of " + std::to_string(size_),
                    ErrorKind::data);
}

void Source::read(uint64_t offset, uint8_t* to, size_t n) const {
    check(offset, n);
    if (!file_) {
        std::copy_n(data_ + offset, n, to);
        return;
    }
    for (size_t have = 0; have < n;) {
        const size_t want = std::min(n - have, size_t(1) << 30);
        const ssize_t got = pread(*file_, to + have, want, off_t(offset + have));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) nc::fail("read", path_, errno);
        if (got == 0) throw Error("[read] " + path_ + " became shorter", ErrorKind::data);
        have += size_t(got);
    }
}

std::vector<uint8_t> Source::bytes(uint64_t offset, size_t n) const {
    check(offset, n);  // before the memory
    std::vector<uint8_t> out(n);
    read(offset, out.data(), n);
    return out;
}

ByteStream::ByteStream(Fill fill, std::string path)
    : fill_(std::move(fill)), path_(std::move(path)) {}

ByteStream::ByteStream(const Source& source)
    : ByteStream(
          [source, at = uint64_t(0)](uint8_t* to, size_t n) mutable {
              n = size_t(std::min<uint64_t>(n, source.size() - at));
              source.read(at, to, n);
              at += n;
              return n;
          },
          source.path()) {}

bool ByteStream::refill(size_t n) {
    constexpr size_t capacity = size_t(1) << 16, largest = size_t(1) << 20;
    if (n > largest) truncated(n);
    std::copy(buffer_.begin() + ptrdiff_t(at_), buffer_.begin() + ptrdiff_t(end_), buffer_.begin());
    end_ -= at_;
    at_ = 0;
    if (buffer_.size() < std::max(n, capacity)) buffer_.resize(std::max(n, capacity));
    while (end_ < n) {
        const size_t got = fill_(buffer_.data() + end_, buffer_.size() - end_);
        if (got == 0) return false;
        end_ += got;
        filled_ += got;
    }
    return true;
}

void ByteStream::truncated(size_t n) const {
    fail("truncated: " + std::to_string(n) + " bytes wanted, " + std::to_string(end_ - at_) +
         " left");
}

void ByteStream::fail(const std::string& what) const {
    throw Error("[" + path_ + "] " + what + " at byte " + std::to_string(offset()),
                ErrorKind::data);
}

std::string ByteStream::line() {
    constexpr size_t longest = size_t(1) << 16;
    std::string out;
    while (out.size() < longest) {
        out += char(*take(1));
        if (out.back() == '\n') return out;
    }
    fail("a header line without end");
}

Reader::Reader(const uint8_t* data, size_t size, std::string path, ErrorKind kind)
    : data_(data), size_(size), path_(std::move(path)), kind_(kind) {}

void Reader::fail(const std::string& what) const {
    throw Error("[" + path_ + "] " + what + " at byte " + std::to_string(offset_), kind_);
}

const uint8_t* Reader::take(size_t bytes) {
    if (bytes > left())
        fail("truncated: " + std::to_string(bytes) + " bytes wanted, " + std::to_string(left()) +
             " left");
    const uint8_t* at = data_ + offset_;
    offset_ += bytes;
    return at;
}

uint8_t Reader::u8() {
    return *take(1);
}

uint16_t Reader::u16le() {
    const uint8_t* b = take(2);
    return uint16_t(b[0] | b[1] << 8);
}

uint32_t Reader::u32le() {
    const uint8_t* b = take(4);
    return uint32_t(b[0]) | uint32_t(b[1]) << 8 | uint32_t(b[2]) << 16 | uint32_t(b[3]) << 24;
}

uint64_t Reader::u64le() {
    const uint64_t low = u32le();
    return low | uint64_t(u32le()) << 32;
}

uint32_t Reader::u32be() {
    const uint8_t* b = take(4);
    return uint32_t(b[3]) | uint32_t(b[2]) << 8 | uint32_t(b[1]) << 16 | uint32_t(b[0]) << 24;
}

}  // namespace nc
