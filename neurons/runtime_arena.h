// Where buffers lie in one arena: those that are never used at the same time share room.
#pragma once

#include <cstddef>
#include <vector>

namespace nc::plan {

// A place in the arena, by number; -1: none.
using Buffer = int;
constexpr Buffer none = -1;

// a * b bytes; Error (kind model) above what any machine has.
size_t bytes_of(size_t a, size_t b);

class Arena {
 public:
    // Room that stays written from one run of the stages to the next.
    Buffer keep(size_t bytes);
    // Room for a stage and those that use() it.
    Buffer make(size_t bytes, size_t stage);
    void use(Buffer, size_t stage);

    // By buffer, each a multiple of 64; bytes receives how large the arena is.
    std::vector<size_t> offsets(size_t* bytes) const;

 private:
    struct Wanted {
        size_t bytes, first, last;  // stages that use it
    };
    std::vector<Wanted> wanted_;
};

}  // namespace nc::plan
