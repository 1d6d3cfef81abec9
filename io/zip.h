// Zip archives (.npz, PyTorch's .pt) read entry by entry, stored or deflated, zip64 too.
//
//   Zip zip(Source("weights.pt"));                        // or Source(data, size, "name") in
//   memory for (const ZipEntry& e : zip.entries()) ...           // names, sizes; nothing is read
//   yet if (const ZipEntry* e = zip.find("archive/data.pkl"))
//       std::vector<uint8_t> bytes = zip.read(*e);        // all of it, checksum checked
//   ZipStream stream = zip.open(*e);                      // or piece by piece, in bounded memory
//
// Nothing is written to disk, so what a name says about folders does not matter here.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/bytes.h"

namespace nc {

struct ZipEntry {
    std::string name;
    uint64_t size;    // inflated, bytes
    uint64_t packed;  // in the file
    uint64_t header;  // where its local header starts
    uint32_t crc;
    uint16_t method;  // 0 stored, 8 deflated
};

// An entry's bytes in order, in constant memory.
class ZipStream {
 public:
    ~ZipStream();
    ZipStream(ZipStream&&) noexcept;
    ZipStream& operator=(ZipStream&&) noexcept;
    // Up to n bytes; fewer only at the end of the entry, whose size (and checksum, when asked for)
    // has then been checked. Error on damage.
    size_t read(uint8_t* to, size_t n);

 private:
    friend class Zip;
    struct State;
    explicit ZipStream(std::unique_ptr<State>);
    std::unique_ptr<State> state_;
};

class Zip {
 public:
    // Reads the central directory. Error (of this kind) that names path and byte offset: not a zip
    // archive, in several parts, truncated, a size or an offset outside the file, two entries of
    // one name or in the same place, more than deflate's 1032 bytes from one.
    explicit Zip(Source source, ErrorKind kind = ErrorKind::data);
    const std::vector<ZipEntry>& entries() const { return entries_; }  // in the directory's order
    const ZipEntry* find(const std::string& name) const;               // null when not there

    // Error: larger than max_bytes, encrypted, another method, damaged, wrong checksum. Memory
    // grows with what is really there, not with what the directory promises. check_crc false is for
    // PyTorch, which can be told to write none.
    std::vector<uint8_t> read(const ZipEntry&, size_t max_bytes = size_t(1) << 34,
                              bool check_crc = true) const;
    // Throws as read; the Zip need not outlive it.
    ZipStream open(const ZipEntry&, bool check_crc = true) const;
    // Where a stored entry's bytes start in the file. Error when it is deflated.
    uint64_t stored_at(const ZipEntry&) const;

 private:
    uint64_t data_of(const ZipEntry&) const;
    [[noreturn]] void fail(uint64_t offset, const std::string& what) const;

    Source source_;
    ErrorKind kind_;
    std::vector<ZipEntry> entries_;
};

}  // namespace nc
