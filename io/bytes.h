// Whole files as bytes, gzip or not; writing that never leaves half a file.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/error.h"

namespace nc {

// The file's bytes. Error names the path and the reason (missing, a folder, no permission, larger
// than max_bytes).
std::vector<uint8_t> read_file(const std::string& path, size_t max_bytes = size_t(1) << 34);
// The same, inflated when it starts with gzip's magic; the inflated size is bounded by max_bytes
// too. Error on truncation or a wrong checksum.
std::vector<uint8_t> read_maybe_gzip(const std::string& path, size_t max_bytes = size_t(1) << 34);
// One or more gzip members; path only names the bytes in an Error.
std::vector<uint8_t> inflate_gzip(const std::vector<uint8_t>& packed, const std::string& path,
                                  size_t max_bytes = size_t(1) << 34);

// "[path] what": a file that is not the model it should be.
[[noreturn]] void refuse_model(const std::string& path, const std::string& what,
                               const std::string& hint = "");

// Writes to a temporary name in the same folder, syncs, renames; an existing device or pipe is
// written to as it is. Error names the path and the reason (full disk, permission).
void write_file(const std::string& path, const void* data, size_t bytes);
void write_file(const std::string& path, const std::string& text);

// The folder and those it stands in, where they are missing. Error names the path and the reason.
void make_folder(const std::string& path);

// Bytes at any offset: of a file that stays open, or of memory that outlives it. A copy shares
// them.
class Source {
 public:
    // Error names the path and the reason; a pipe is one, since it cannot be read twice.
    explicit Source(const std::string& path);
    Source(const uint8_t* data, size_t size, std::string path);
    uint64_t size() const { return size_; }
    const std::string& path() const { return path_; }
    // All n bytes or an Error that names path and offset.
    void read(uint64_t offset, uint8_t* to, size_t n) const;
    std::vector<uint8_t> bytes(uint64_t offset, size_t n) const;

 private:
    void check(uint64_t offset, size_t n) const;

    std::shared_ptr<const int> file_;  // closes it
    const uint8_t* data_ = nullptr;
    uint64_t size_ = 0;
    std::string path_;
};

// Bytes in order through a buffer, so that a file of any size takes constant memory.
class ByteStream {
 public:
    // Gives up to n bytes, 0 only at the end.
    using Fill = std::function<size_t(uint8_t* to, size_t n)>;
    ByteStream(Fill fill, std::string path);
    explicit ByteStream(const Source&);
    uint64_t offset() const { return filled_ - (end_ - at_); }
    const std::string& path() const { return path_; }
    bool at_end() { return at_ == end_ && !refill(1); }
    // n <= 2^20. Valid until the next call; take moves on. take's Error on fewer names the place;
    // peek is null then.
    const uint8_t* peek(size_t n) {
        return end_ - at_ >= n || refill(n) ? buffer_.data() + at_ : nullptr;
    }
    const uint8_t* take(size_t n) {
        if (end_ - at_ < n && !refill(n)) truncated(n);
        at_ += n;
        return buffer_.data() + at_ - n;
    }
    // Up to and with '\n'. Error when it is longer than 64 KiB or the file ends before.
    std::string line();
    [[noreturn]] void fail(const std::string& what) const;  // "[path] what at byte N"

 private:
    bool refill(size_t n);
    [[noreturn]] void truncated(size_t n) const;

    Fill fill_;
    std::string path_;
    std::vector<uint8_t> buffer_;
    size_t at_ = 0, end_ = 0;
    uint64_t filled_ = 0;
};

// A file written piece by piece under a temporary name, which becomes `path` in commit(); without
// it nothing is left. Error names the path and the reason.
class FileWriter {
 public:
    explicit FileWriter(const std::string& path);
    ~FileWriter();
    FileWriter(const FileWriter&) = delete;
    FileWriter& operator=(const FileWriter&) = delete;
    void write(const void* data, size_t bytes);
    void commit();

 private:
    [[noreturn]] void give_up();

    std::string path_, target_, temporary_;  // no temporary: a device or a pipe
    int fd_ = -1;
};

// Bounds-checked little-endian cursor over bytes; every read past the end is an Error that names
// path and offset.
class Reader {
 public:
    Reader(const uint8_t* data, size_t size, std::string path, ErrorKind kind = ErrorKind::data);
    size_t offset() const { return offset_; }
    size_t left() const { return size_ - offset_; }
    const uint8_t* take(size_t bytes);
    uint8_t u8();
    uint16_t u16le();
    uint32_t u32le();
    uint64_t u64le();
    uint32_t u32be();
    [[noreturn]] void fail(const std::string& what) const;  // "[path] what at byte N"

 private:
    const uint8_t* data_;
    size_t size_, offset_ = 0;
    std::string path_;
    ErrorKind kind_;
};

}  // namespace nc
