// Measuring: times of repeated runs, what this machine can do at best, and the rows of a result.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/compute.h"
#include "io/json.h"

namespace nc::bench {

double now();  // seconds, on a clock that only goes forward
// Of values in order, between two neighbours where it falls there; 0 <= q <= 1.
double quantile(const std::vector<double>& sorted, double q);

// Seconds a run. Spread: half the runs lie within this many percent of the median (interquartile).
struct Timing {
    double median = 0, minimum = 0, spread_percent = 0;
    double processor = 0;  // of all threads together, the mean
    size_t runs = 0;
};

// Repeats body for about this long, at least three times, after one run that does not count; very
// short bodies are timed several at once, and a time includes waiting for what was given to a
// device.
Timing time_runs(double seconds, Compute&, const std::function<void()>& body);
// Of runs that something else repeated; at least one.
Timing timing_of(std::vector<double> seconds_of_runs);

// What this machine does at best; measured on first use, on this many threads.
class Machine {
 public:
    // Floating-point operations a second in registers alone with a table's instructions; the
    // reference is compiled for sse2.
    double peak(const std::string& table, int threads);
    // Where it works: the above, or a copy within a device's memory and its multiply-adds in
    // registers, in fp32 whichever precision it was made for.
    double peak(const Compute&);
    double bandwidth(Compute&);
    double read_bandwidth(int threads);  // bytes a second, from memory
    double copy_bandwidth(int threads);  // bytes read and written a second
    double bandwidth(int threads);       // the higher of the two
    // What was measured so far, by name.
    const std::vector<std::pair<std::string, double>>& values() const { return values_; }

 private:
    double measured(const std::string& key, const std::function<double()>& measure);
    std::vector<std::pair<std::string, double>> values_;
};

// One measured kernel. The floor is the time its operations or its bytes take at the machine's
// best, whichever is longer.
struct Row {
    std::string name, table;
    int threads = 1;
    Timing timing;
    double operations = 0, bytes = 0, floor_seconds = 0;
    double floor_percent() const;  // floor over minimum: 100 is as fast as possible
    std::string full_name() const;
};

Row make_row(Machine&, const std::string& name, Compute&, double operations, double bytes,
             const Timing&);

// "avx2", "cuda", "cuda-vendor-tf32": the table, and the precision where it is not fp32.
std::string table_name(const Compute&);

std::string row_header();
std::string row_text(const Row&);

// Google Benchmark's JSON shape: "context" and "benchmarks"; real_time is the median.
Json to_json(const std::vector<Row>&, const Machine&, const std::string& command);

// Rows that both have, by their minimum times.
struct Comparison {
    struct Pair {
        std::string name;
        double a_seconds, b_seconds, ratio;
    };
    std::vector<Pair> pairs;
    size_t slower = 0;  // ratio above max_ratio
};
Comparison compare(const Json& a, const std::string& path_a, const Json& b,
                   const std::string& path_b, double max_ratio);

// Not empty when others are using the machine.
std::string idle_warning();

}  // namespace nc::bench
