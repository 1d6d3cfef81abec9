// Hints that go with errors.
#include "engine/error.h"

#include <algorithm>
#include <numeric>

namespace nc {

// Levenshtein distance, one row at a time.
static size_t edit_distance(const std::string& a, const std::string& b) {
    std::vector<size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), size_t(0));
    for (size_t i = 0; i < a.size(); ++i) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < b.size(); ++j) {
            const size_t above = row[j + 1];
            row[j + 1] = std::min({above + 1, row[j] + 1, diagonal + (a[i] != b[j])});
            diagonal = above;
        }
    }
    return row.back();
}

std::string suggestion(const std::string& wrong, const std::vector<std::string>& known) {
    size_t best = std::max<size_t>(1, wrong.size() / 3) + 1;
    std::string closest, all;
    for (const auto& name : known) {
        const size_t distance = edit_distance(wrong, name);
        if (distance < best) {
            best = distance;
            closest = name;
        }
        all += (all.empty() ? "" : ", ") + name;
    }
    return closest.empty() ? "known: " + all : "did you mean '" + closest + "'?";
}

}  // namespace nc
