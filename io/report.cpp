// HTML and SVG by hand: every text is escaped, every colour is a CSS variable with a light and a
// dark value.
#include "io/report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "engine/error.h"

namespace nc {
namespace {

std::string escape(const std::string& text) {
    std::string out;
    for (const char c : text) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '"':
                out += "&quot;";
                break;
            case '\'':
                out += "&#39;";
                break;
            default:
                out += c;
        }
    }
    return out;
}

// Four significant digits: 0.1234, 93.12, 1234, 1.234e+06.
std::string number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.4g", value);
    return text;
}

// A coordinate: a tenth of a unit is finer than a pixel.
std::string at(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f", value);
    return text;
}

struct Range {
    double low = std::numeric_limits<double>::infinity();
    double high = -std::numeric_limits<double>::infinity();
    void add(double value) {
        if (!std::isfinite(value)) return;
        low = std::min(low, value);
        high = std::max(high, value);
    }
    bool empty() const { return low > high; }
};

// About n round values in the range: steps of 1, 2 or 5 times a power of ten.
std::vector<double> round_ticks(double low, double high, int n) {
    const double raw = (high - low) / n;
    const double power = std::pow(10.0, std::floor(std::log10(raw)));
    double step = 10 * power;
    for (const double factor : {5.0, 2.0, 1.0})
        if (factor * power >= raw * 0.999) step = factor * power;
    std::vector<double> out;
    for (double k = std::ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; ++k)
        out.push_back(k * step + 0.0);  // never -0
    return out;
}

// One axis from values to coordinates, with its ticks.
struct Axis {
    double low, high;  // values, or their logarithms
    double from, to;   // coordinates
    bool log = false;
    std::vector<double> ticks;  // values

    double operator()(double value) const {
        const double v = log ? std::log(value) : value;
        return from + (v - low) / (high - low) * (to - from);
    }
};

Axis linear_axis(Range range, double from, double to, int ticks) {
    if (range.empty()) range = {0, 1};
    if (range.low == range.high) {
        const double margin = std::max(std::abs(range.low) * 0.1, 0.5);
        range = {range.low - margin, range.high + margin};
    }
    return {range.low, range.high, from, to, false, round_ticks(range.low, range.high, ticks)};
}

// For steps: ticks at powers of two.
Axis log2_axis(Range range, double from, double to) {
    if (range.empty()) range = {1, 2};
    if (range.low == range.high) range.high = range.low * 2;
    Axis out{std::log(range.low), std::log(range.high), from, to, true, {}};
    for (double v = std::exp2(std::ceil(std::log2(range.low) - 1e-9)); v <= range.high * 1.000001;
         v *= 2)
        out.ticks.push_back(v);
    return out;
}

constexpr double width = 720, height = 300, left = 64, right = 16, top = 12, bottom = 44;
constexpr size_t colours = 7;

std::string colour(size_t i) {
    return std::string("c") + char('0' + i % colours);
}

std::string text(double x, double y, const char* anchor, const std::string& what,
                 const char* extra = "") {
    return "<text x=\"" + at(x) + "\" y=\"" + at(y) + "\" text-anchor=\"" + anchor + "\"" + extra +
           ">" + escape(what) + "</text>\n";
}

std::string line(double x0, double y0, double x1, double y1, const char* css) {
    return "<line x1=\"" + at(x0) + "\" y1=\"" + at(y0) + "\" x2=\"" + at(x1) + "\" y2=\"" +
           at(y1) + "\" class=\"" + css + "\"/>\n";
}

// The frame, its grid and its labels; y runs upwards.
std::string axes(const Axis& x, const Axis& y, const std::string& x_label,
                 const std::string& y_label) {
    std::string out;
    for (const double v : y.ticks) {
        out += line(x.from, y(v), x.to, y(v), "grid");
        out += text(x.from - 6, y(v) + 4, "end", number(v));
    }
    for (const double v : x.ticks) {
        out += line(x(v), y.from, x(v), y.from + 4, "axis");
        out += text(x(v), y.from + 18, "middle", number(v));
    }
    out += line(x.from, y.from, x.to, y.from, "axis");
    out += text((x.from + x.to) / 2, y.from + 36, "middle", x_label);
    const std::string turn = " transform=\"rotate(-90 14 " + at((y.from + y.to) / 2) + ")\"";
    out += text(14, (y.from + y.to) / 2, "middle", y_label, turn.c_str());
    return out;
}

// caption stands under the picture and is its name for a reader that cannot see it; summary tells
// what it shows.
std::string figure(const std::string& caption, const std::string& summary, double h,
                   const std::string& body, const std::string& after = "") {
    return "<figure>\n<svg viewBox=\"0 0 " + at(width) + " " + at(h) +
           "\" role=\"img\" aria-label=\"" + escape(caption + ". " + summary) + "\">\n" + body +
           "</svg>\n" + after + "<figcaption>" + escape(caption) + "</figcaption>\n</figure>\n";
}

std::string table_html(const std::vector<std::string>& header,
                       const std::vector<std::vector<std::string>>& rows) {
    // Numbers line up on the right, as do their heads.
    const auto is_number = [](const std::string& cell) {
        if (cell.empty()) return true;
        const bool digit = cell.find_first_of("0123456789") != std::string::npos;
        return digit && cell.find_first_not_of("0123456789.,+-eE%x \xc2\xb1") == std::string::npos;
    };
    std::vector<bool> numeric(header.size(), !rows.empty());
    for (const auto& row : rows)
        for (size_t c = 0; c < row.size() && c < header.size(); ++c)
            if (!is_number(row[c])) numeric[c] = false;
    const auto cell = [&](const char* tag, size_t c, const std::string& content, const char* more) {
        const bool number = c < numeric.size() && numeric[c];
        return std::string("<") + tag + more + (number ? " class=\"n\">" : ">") + escape(content) +
               "</" + tag + ">";
    };
    std::string out = "<div class=\"wide\"><table>\n<thead><tr>";
    for (size_t c = 0; c < header.size(); ++c) out += cell("th", c, header[c], " scope=\"col\"");
    out += "</tr></thead>\n<tbody>\n";
    for (const auto& row : rows) {
        out += "<tr>";
        for (size_t c = 0; c < row.size(); ++c) out += cell("td", c, row[c], "");
        out += "</tr>\n";
    }
    return out + "</tbody>\n</table></div>\n";
}

constexpr const char* style = R"(:root {
  color-scheme: light dark;
  --text: #1c1e21; --soft: #5b6167; --line: #d5d9dd; --back: #ffffff; --panel: #f5f6f8;
  --c0: #0b6bcb; --c1: #c2410c; --c2: #15803d; --c3: #9333ea; --c4: #b45309; --c5: #0e7490; --c6: #be185d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e6e8ea; --soft: #a3a9b0; --line: #3a4047; --back: #16181b; --panel: #1f2226;
    --c0: #66b2ff; --c1: #ff9e64; --c2: #6ee787; --c3: #d2a8ff; --c4: #f2cc60; --c5: #5fd7e6; --c6: #ff8fc2;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 860px; padding: 24px 16px 64px; background: var(--back);
  color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7em; line-height: 1.2; } h2 { margin-top: 2em; font-size: 1.25em; }
figure { margin: 1.2em 0; } figcaption, summary { color: var(--soft); font-size: 0.9em; }
svg { width: 100%; height: auto; display: block; background: var(--panel); border-radius: 6px; }
svg text { fill: var(--text); font: 12px system-ui, sans-serif; }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); }
.halo { paint-order: stroke; stroke: var(--panel); stroke-width: 4px; }
.mark { stroke: var(--c1); stroke-width: 2; stroke-dasharray: 5 3; }
.curve { fill: none; stroke-width: 2; } .dashed { stroke-dasharray: 6 4; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.8em 0; font-size: 0.95em; }
th, td { padding: 4px 12px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: var(--panel); padding: 12px; border-radius: 6px; overflow-x: auto; font-size: 0.85em; }
ul.key { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 6px 0; padding: 0; font-size: 0.9em; }
ul.key svg { display: inline; width: 28px; height: 10px; background: none; vertical-align: middle; margin-right: 6px; }
@media print { body { max-width: none; } svg, pre { background: none; } }
)";

}  // namespace

Report::Report(const std::string& title) : title_(title) {}

void Report::heading(const std::string& content) {
    body_ += "<h2>" + escape(content) + "</h2>\n";
}

void Report::paragraph(const std::string& content) {
    body_ += "<p>" + escape(content) + "</p>\n";
}

void Report::preformatted(const std::string& content) {
    body_ += "<pre>" + escape(content) + "</pre>\n";
}

void Report::table(const std::vector<std::string>& header,
                   const std::vector<std::vector<std::string>>& rows) {
    body_ += table_html(header, rows);
}

void Report::curves(const std::string& caption, const std::string& x_label,
                    const std::string& y_label, const std::vector<Curve>& curves, bool log_x) {
    Range xs, ys;
    bool whole = true;  // x counts something: no ticks between
    const auto shown = [&](const Curve& curve, size_t i) {
        return std::isfinite(curve.x[i]) && std::isfinite(curve.y[i]) && (!log_x || curve.x[i] > 0);
    };
    for (const auto& curve : curves) {
        if (curve.x.size() != curve.y.size())
            throw Error("[report] curve '" + curve.name + "': " + std::to_string(curve.x.size()) +
                        " x for " + std::to_string(curve.y.size()) + " y");
        for (size_t i = 0; i < curve.x.size(); ++i)
            if (shown(curve, i)) {
                xs.add(curve.x[i]);
                whole = whole && curve.x[i] == std::floor(curve.x[i]);
                ys.add(curve.y[i]);
            }
    }
    if (!ys.empty()) {
        const double margin = (ys.high - ys.low) * 0.06;
        ys = {ys.low - margin, ys.high + margin};
    }
    constexpr double x0 = left, x1 = width - right, y0 = height - bottom, y1 = top;
    Axis x = log_x ? log2_axis(xs, x0, x1) : linear_axis(xs, x0, x1, 8);
    if (whole) std::erase_if(x.ticks, [](double v) { return v != std::floor(v); });
    const Axis y = linear_axis(ys, y0, y1, 5);

    std::string body = axes(x, y, x_label, y_label), key, summary;
    std::vector<std::vector<std::string>> rows;
    for (size_t c = 0; c < curves.size(); ++c) {
        const Curve& curve = curves[c];
        const std::string css = std::string("curve") + (curve.dashed ? " dashed" : "");
        const std::string stroke = "style=\"stroke:var(--" + colour(c) + ")\"";
        std::string path, points;
        Range range;
        bool pen_down = false;
        for (size_t i = 0; i < curve.x.size(); ++i) {
            if (!shown(curve, i)) {
                pen_down = false;  // a gap, not a line across what is unknown
                continue;
            }
            const std::string px = at(x(curve.x[i])), py = at(y(curve.y[i]));
            path += (pen_down ? "L" : "M") + px + " " + py;
            pen_down = true;
            range.add(curve.y[i]);
            rows.push_back({curve.name, number(curve.x[i]), number(curve.y[i])});
            if (!curve.dashed)
                points += "<circle cx=\"" + px + "\" cy=\"" + py +
                          "\" r=\"3\" style=\"fill:var(--" + colour(c) + ")\"><title>" +
                          escape(curve.name) + ": " + escape(x_label) + " " + number(curve.x[i]) +
                          ", " + escape(y_label) + " " + number(curve.y[i]) + "</title></circle>\n";
        }
        body += "<path class=\"" + css + "\" " + stroke + " d=\"" + path + "\"/>\n" + points;
        key += "<li><svg viewBox=\"0 0 28 10\" aria-hidden=\"true\"><path class=\"" + css + "\" " +
               stroke + " d=\"M0 5H28\"/></svg>" + escape(curve.name) + "</li>\n";
        if (!range.empty())
            summary += (summary.empty() ? "" : "; ") + curve.name + ": " + number(range.low) +
                       " to " + number(range.high);
    }
    body_ += figure(caption, summary, height, body, "<ul class=\"key\">\n" + key + "</ul>\n");
    body_ += "<details><summary>Values of this picture</summary>\n" +
             table_html({"curve", x_label, y_label}, rows) + "</details>\n";
}

void Report::histogram(const std::string& caption, double low, double high,
                       const std::vector<double>& counts,
                       const std::vector<std::pair<double, std::string>>& marks) {
    if (!(low < high))
        throw Error("[report] a histogram from " + number(low) + " to " + number(high));
    // Activations pile up at zero: counts are drawn as log10(1 + count) so that the tail shows.
    double most = 1, total = 0;
    for (const double count : counts) {
        most = std::max(most, count);
        total += count;
    }
    Range xs{low, high};
    for (const auto& mark : marks) xs.add(mark.first);
    constexpr double h = 220;
    const Axis x = linear_axis(xs, left, width - right, 8);
    Axis y{0, std::log10(1 + most) * 1.1, h - bottom, top + 8, false, {}};
    std::string body;
    std::string names;
    for (double v = 1; v <= most; v *= 10) {
        const double py = y(std::log10(1 + v));
        body += line(x.from, py, x.to, py, "grid") + text(x.from - 6, py + 4, "end", number(v));
    }
    body += axes(x, y, "value", "count (log)");
    std::string path;
    const double bin = (high - low) / double(std::max<size_t>(counts.size(), 1));
    for (size_t i = 0; i < counts.size(); ++i) {
        if (!(counts[i] > 0)) continue;
        const double x0 = x(low + bin * double(i)), x1 = x(low + bin * double(i + 1));
        path += 'M';
        path += at(x0) + " " + at(y.from) + "V" + at(y(std::log10(1 + counts[i]))) + "H" + at(x1) +
                "V" + at(y.from) + "Z";
    }
    body += "<path style=\"fill:var(--c0)\" d=\"" + path + "\"/>\n";
    for (size_t i = 0; i < marks.size(); ++i) {
        const double px = x(marks[i].first);
        const bool flip = px > (x.from + x.to) / 2;  // keep the label inside
        body += line(px, y.from, px, top, "mark");
        body += text(px + (flip ? -5 : 5), top + 12 + 15 * double(i % 4), flip ? "end" : "start",
                     marks[i].second + " " + number(marks[i].first));
        names += ", " + marks[i].second + " at " + number(marks[i].first);
    }
    body_ += figure(caption,
                    number(total) + " values from " + number(low) + " to " + number(high) + names,
                    h, body);
}

void Report::bars(const std::string& caption, const std::string& unit,
                  const std::vector<std::pair<std::string, double>>& values) {
    constexpr double row = 24, label = 190, space = 110;
    Range range{0, 0};
    for (const auto& value : values) range.add(value.second);
    if (range.low == range.high) range.high = 1;
    const Axis x = linear_axis(range, label, width - space, 5);
    std::string body, summary;
    for (size_t i = 0; i < values.size(); ++i) {
        const auto& [name, value] = values[i];
        const double y = 8 + row * double(i);
        const bool known = std::isfinite(value);
        const std::string shown = known ? number(value) + " " + unit : "unknown";
        body += text(label - 8, y + 16, "end", name);
        if (known) {
            const double x0 = std::min(x(0), x(value)), x1 = std::max(x(0), x(value));
            body += "<rect x=\"" + at(x0) + "\" y=\"" + at(y + 3) + "\" width=\"" + at(x1 - x0) +
                    "\" height=\"" + at(row - 6) + "\" style=\"fill:var(--c0)\"/>\n";
        }
        body += text((known ? std::max(x(0), x(value)) : x(0)) + 6, y + 16, "start", shown);
        summary += (i ? "; " : "") + name + ": " + shown;
    }
    body_ += figure(caption, summary, 16 + row * double(values.size()), body);
}

void Report::raster(const std::string& caption, const std::vector<std::vector<bool>>& neurons) {
    size_t steps = 0, spikes = 0;
    for (const auto& neuron : neurons) steps = std::max(steps, neuron.size());
    const double rows = double(std::max<size_t>(neurons.size(), 1));
    const double pitch = std::clamp(280 / rows, 1.0, 12.0), h = top + pitch * rows + bottom;
    const double columns = double(std::max<size_t>(steps, 1));
    Axis x{0.5, columns + 0.5, left, width - right, false, {}};
    for (const double v : round_ticks(1, std::max(columns, 2.0), 10))
        if (v >= 1 && v <= columns && v == std::floor(v)) x.ticks.push_back(v);
    Axis y{rows, 0, h - bottom, top, false, {}};
    for (const double v : round_ticks(0, rows, 5))
        if (v < rows && v == std::floor(v)) y.ticks.push_back(v);
    const double mark = (x.to - x.from) / columns * 0.8;
    std::string path;
    for (size_t n = 0; n < neurons.size(); ++n)
        for (size_t t = 0; t < neurons[n].size(); ++t) {
            if (!neurons[n][t]) continue;
            ++spikes;
            path += 'M';
            path += at(x(double(t + 1)) - mark / 2) + " " + at(y(double(n) + 0.5)) + "h" + at(mark);
        }
    std::string body = axes(x, y, "step", "neuron");
    body += "<path style=\"stroke:var(--c0);stroke-width:" + at(std::max(pitch * 0.7, 0.8)) +
            "\" d=\"" + path + "\"/>\n";
    body_ += figure(caption,
                    std::to_string(spikes) + " spikes of " + std::to_string(neurons.size()) +
                        " neurons in " + std::to_string(steps) + " steps",
                    h, body);
}

std::string Report::html() const {
    return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
           "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
           escape(title_) + "</title>\n<style>\n" + style + "</style>\n</head>\n<body>\n<h1>" +
           escape(title_) + "</h1>\n" + body_ + "</body>\n</html>\n";
}

}  // namespace nc
