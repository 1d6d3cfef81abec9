// "Did you mean": the nearest of the known names to a mistyped one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace nc {

// The candidate within a few edits of the word (a third of its length, at least one), the first of
// equals; empty when none is near.
std::string nearest_name(std::string_view word, const std::vector<std::string>& candidates);

// An Error's hint: "did you mean 'x'?" when one is near, else "known: a, b, c".
std::string suggestion(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace nc
