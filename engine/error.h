// The one exception type, thrown where a user's input meets the library.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace nc {

// What went wrong decides the programs' exit code: usage, configuration or data 2,
// unreadable or unsupported model 3.
enum class ErrorKind { usage, data, model };

class Error : public std::runtime_error {
 public:
    // what() reads "[op] what is wrong: values". hint, when not empty, tells what to do about it.
    explicit Error(const std::string& what, ErrorKind kind = ErrorKind::usage,
                   const std::string& hint = "")
        : std::runtime_error(what), kind(kind), hint(hint) {}
    ErrorKind kind;
    std::string hint;
};

// A hint for a name that is not among `known`: "did you mean 'lenet'?" when one is close (edit
// distance at most a third of the length), else "known: a, b, c".
std::string suggestion(const std::string& wrong, const std::vector<std::string>& known);

}  // namespace nc
