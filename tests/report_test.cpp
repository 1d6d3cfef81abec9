// The report: one self-contained, well-formed page that says what its pictures show.
#include <cmath>
#include <vector>

#include "io/report.h"
#include "tests/check.h"

using namespace nc;
using namespace nc::test;

namespace {

size_t count(const std::string& text, const std::string& part) {
    size_t n = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
    return n;
}

// Every opened element is closed in order; "" or what is wrong.
std::string unbalanced(const std::string& html) {
    std::vector<std::string> open;
    for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
        const size_t end = html.find('>', at);
        if (end == std::string::npos) return "no end of a tag";
        const std::string tag = html.substr(at + 1, end - at - 1);
        if (tag.find('<') != std::string::npos) return "'<' inside " + tag;
        const std::string name = tag.substr(0, tag.find_first_of(" \n/", tag[0] == '/'));
        if (tag[0] == '!' || tag.back() == '/' || name == "meta") continue;
        if (tag[0] != '/') {
            open.push_back(name);
        } else if (open.empty() || "/" + open.back() != name) {
            return tag + " closes " + (open.empty() ? "nothing" : open.back());
        } else {
            open.pop_back();
        }
    }
    return open.empty() ? "" : open.back() + " stays open";
}

}  // namespace

TEST_CASE("a report is one well-formed page without anything from outside") {
    const double nan = std::nan("");
    Report report("<title> & \"quotes\"");
    report.heading("Accuracy & more");
    report.paragraph("a < b > c 'd'");
    report.table({"stage", "accuracy %"}, {{"ANN <1>", "91.2"}, {"SNN", "90.8"}});
    report.curves("Accuracy against T", "T", "accuracy (%)",
                  {{"SNN", {1, 2, 4, 8}, {72, 85, nan, 90.5}}, {"ANN", {1, 8}, {91, 91}, true}},
                  true);
    report.histogram("Layer 'a'", -1, 3, {0, 10, 1000, 3}, {{1.5, "theta"}, {9, "max"}});
    report.bars("Sparsity", "%", {{"act1", 83.25}, {"act<2>", nan}, {"negative", -3}});
    report.raster("Spikes", {{true, false, true}, {false, false, true}});
    report.preformatted("nc_convert --T 8 <file>");
    const std::string html = report.html();
    CHECK(unbalanced(html) == "");
    CHECK(html.rfind("<!DOCTYPE html>", 0) == 0);
    for (const char* outside : {"<script", "http", "src=", "href=", "@import", "url("})
        CHECK(!contains(html, outside));
    CHECK(!contains(html, "nan"));
    CHECK(!contains(html, "inf"));
    CHECK(contains(html, "prefers-color-scheme: dark"));
    CHECK(contains(html, "<title>&lt;title&gt; &amp; &quot;quotes&quot;</title>"));
    CHECK(contains(html, "a &lt; b &gt; c &#39;d&#39;"));
    CHECK(contains(html, "nc_convert --T 8 &lt;file&gt;"));
    // Each picture has a name that tells its values.
    CHECK(count(html, "role=\"img\"") == 4);
    CHECK(contains(html, "Accuracy against T. SNN: 72 to 90.5; ANN: 91 to 91"));
    CHECK(contains(html, "1013 values from -1 to 3, theta at 1.5, max at 9"));
    CHECK(contains(html, "act1: 83.25 %; act&lt;2&gt;: unknown; negative: -3 %"));
    CHECK(contains(html, "3 spikes of 2 neurons in 3 steps"));
    // Reference lines are dashed and have no points; what is unknown is a gap.
    CHECK(count(html, "<circle") == 3);
    CHECK(contains(html, "class=\"curve dashed\""));
    CHECK(contains(html, "class=\"n\">91.2</td>"));
}

TEST_CASE("a report of nothing is still a page") {
    Report report("empty");
    report.curves("none", "x", "y", {});
    report.curves("one", "x", "y", {{"a", {3}, {7}}});
    report.curves("one, logarithmic", "x", "y", {{"a", {3}, {7}}}, true);
    report.curves("unknown", "x", "y", {{"a", {1, 2}, {std::nan(""), INFINITY}}});
    report.curves("not positive", "x", "y", {{"a", {0, -1}, {1, 2}}}, true);
    report.histogram("none", 0, 1, {}, {});
    report.histogram("zero", 0, 1, {0, 0}, {});
    report.bars("none", "", {});
    report.bars("zero", "", {{"a", 0}});
    report.raster("none", {});
    report.raster("silent", {{false}});
    report.table({}, {});
    const std::string html = report.html();
    CHECK(unbalanced(html) == "");
    CHECK(!contains(html, "nan"));
    CHECK(!contains(html, "inf\""));
    CHECK(error_of([&] { report.curves("", "", "", {{"a", {1}, {}}}); }) != "");
    CHECK(error_of([&] { report.histogram("", 1, 1, {1}, {}); }) != "");
}
