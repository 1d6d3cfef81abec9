// Trying work that may crash or never end on damaged files, in another process first.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace nc {

// Does `work` in a copy of this process, with the processor time and the memory that an honest file
// of so many bytes needs at most. What happens to the copy would have happened here: false when it
// crashed or ran out of either; an Error of the work's is thrown here, of kind model. path names
// the file in an Error when there is no other process to be had.
bool rehearse(size_t bytes, const std::string& path, const std::function<void()>& work);

}  // namespace nc
