// Edit distance between names (Levenshtein, 1966).
#include "engine/suggest.h"

#include <algorithm>
#include <numeric>

namespace nc {
namespace {

size_t edits(std::string_view a, std::string_view b) {
    std::vector<size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), size_t(0));
    for (size_t i = 1; i <= a.size(); ++i) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.size(); ++j) {
            const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
        }
    }
    return row[b.size()];
}

}  // namespace

std::string nearest_name(std::string_view word, const std::vector<std::string>& candidates) {
    constexpr size_t longest = 100;  // the distance takes quadratic time; real names are shorter
    if (word.size() > longest) return "";
    std::string best;
    size_t least = std::max(size_t(1), word.size() / 3) + 1;
    for (const auto& candidate : candidates) {
        if (candidate.size() > longest) continue;
        const size_t distance = edits(word, candidate);
        if (distance < least) {
            least = distance;
            best = candidate;
        }
    }
    return best;
}

std::string suggestion(std::string_view word, const std::vector<std::string>& candidates) {
    const std::string near = nearest_name(word, candidates);
    if (!near.empty()) return "did you mean '" + near + "'?";
    std::string out;
    for (const auto& candidate : candidates) out += (out.empty() ? "known: " : ", ") + candidate;
    return out;
}

}  // namespace nc
