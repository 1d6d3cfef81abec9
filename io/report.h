// Draws what it is given into one self-contained HTML file: tables, curves, histograms, rasters as
// inline SVG. Knows no pass.
#pragma once

#include <string>
#include <vector>

namespace nc {

struct Curve {
    std::string name;
    std::vector<double> x, y;
    bool dashed = false;  // reference lines
};

class Report {
 public:
    explicit Report(const std::string& title);
    void heading(const std::string& text);
    void paragraph(const std::string& text);  // escaped
    void table(const std::vector<std::string>& header,
               const std::vector<std::vector<std::string>>& rows);
    void curves(const std::string& caption, const std::string& x_label, const std::string& y_label,
                const std::vector<Curve>&, bool log_x = false);
    // counts per equal bin over [low, high]; marks are vertical lines (a threshold) with labels.
    void histogram(const std::string& caption, double low, double high,
                   const std::vector<double>& counts,
                   const std::vector<std::pair<double, std::string>>& marks);
    void bars(const std::string& caption, const std::string& unit,
              const std::vector<std::pair<std::string, double>>&);
    // One row a neuron, one column a step; true where it spiked.
    void raster(const std::string& caption, const std::vector<std::vector<bool>>& neurons);
    void preformatted(const std::string& text);
    std::string html() const;

 private:
    std::string title_, body_;
};

}  // namespace nc
