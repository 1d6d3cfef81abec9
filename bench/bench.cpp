// Measuring: times of repeated runs, what this machine can do at best, and the rows of a result.
#include "bench/bench.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <numeric>
#include <thread>

#include "engine/error.h"

namespace nc::bench {
namespace {

double processor_now() {
    timespec t = {};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// Streams go through memory far beyond any cache, timed a segment (about a millisecond) at a time:
// the best segment is one that nothing interrupted.
constexpr size_t stream_bytes = size_t(256) << 20, segments = 16, segment = stream_bytes / segments;
constexpr int rounds_through = 6;

// Bytes a second when body(begin, end), in bytes, is shared between the threads.
template <class Body>
double bandwidth_of(int threads, const Body& body) {
    double best = 0;
    for (size_t i = 0; i < rounds_through * segments; ++i) {
        const size_t from = i % segments * segment, share = segment / size_t(threads) / 64 * 64;
        const double start = now();
#pragma omp parallel for schedule(static, 1) num_threads(threads)
        for (int thread = 0; thread < threads; ++thread)
            body(from + size_t(thread) * share, from + size_t(thread + 1) * share);
        best = std::max(best, double(share * size_t(threads)) / (now() - start));
    }
    return best;
}

// Threads work at the same time, but each keeps its own best fraction of a millisecond: no moment
// needs to be free of interruption for all of them.
double measure_peak(kernels::Probe probe, int threads) {
    double best = 0, sink = 0;
#pragma omp parallel for schedule(static, 1) num_threads(threads) reduction(+ : best, sink)
    for (int thread = 0; thread < threads; ++thread) {
        double own = 0;
        for (const double begin = now(); now() - begin < 0.3;) {
            float value = 0.5f;
            const double start = now();
            const double operations = probe(20000, &value);
            own = std::max(own, operations / (now() - start));
            sink += double(value);
        }
        best += own;
    }
    return sink < 0 ? 0 : best;  // never negative: the compiler must not drop the loop
}

double measure_read(int threads) {
    std::vector<uint64_t> data(stream_bytes / sizeof(uint64_t), 1);
    uint64_t seen = 0;
    const double best = bandwidth_of(threads, [&](size_t begin, size_t end) {
        uint64_t sum[16] = {};
        for (size_t i = begin / 8; i + 16 <= end / 8; i += 16)
            for (size_t k = 0; k < 16; ++k) sum[k] += data[i + k];
        const uint64_t total = std::accumulate(sum, sum + 16, uint64_t(0));
#pragma omp atomic
        seen += total;
    });
    return seen == 0 ? 0 : best;  // never 0: the compiler must not drop the loop
}

double measure_copy(int threads) {
    std::vector<char> from(stream_bytes / 2, 1), to(stream_bytes / 2, 2);
    return bandwidth_of(threads, [&](size_t begin, size_t end) {
        std::memcpy(to.data() + begin / 2, from.data() + begin / 2, (end - begin) / 2);
    });
}

double unit_seconds(const std::string& unit, const std::string& path) {
    if (unit == "ns") return 1e-9;
    if (unit == "us") return 1e-6;
    if (unit == "ms") return 1e-3;
    if (unit == "s") return 1;
    throw Error("[compare] " + path + ": unknown time_unit '" + unit + "'");
}

struct Measured {
    std::string name;
    double seconds;
};

std::vector<Measured> read_rows(const Json& json, const std::string& path) {
    if (!json.is_object() || !json.contains("benchmarks") || !json["benchmarks"].is_array())
        throw Error("[compare] " + path + ": no \"benchmarks\" array");
    std::vector<Measured> rows;
    for (const Json& row : json["benchmarks"]) {
        const bool complete = row.is_object() && row.contains("name") && row["name"].is_string() &&
                              row.contains("real_time") && row["real_time"].is_number();
        if (!complete)
            throw Error("[compare] " + path +
                        ": a benchmark without name or real_time: " + row.dump().substr(0, 80));
        const auto unit = row.contains("time_unit") ? row["time_unit"] : Json("ns");
        if (!unit.is_string()) throw Error("[compare] " + path + ": time_unit is not a string");
        double seconds =
            row["real_time"].get<double>() * unit_seconds(unit.get<std::string>(), path);
        if (row.contains("minimum_ms") && row["minimum_ms"].is_number())
            seconds = row["minimum_ms"].get<double>() * 1e-3;
        if (!(seconds > 0))
            throw Error("[compare] " + path + ": a time that is not positive in " +
                        row["name"].get<std::string>());
        rows.push_back({row["name"].get<std::string>(), seconds});
    }
    return rows;
}

}  // namespace

double now() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

double quantile(const std::vector<double>& sorted, double q) {
    const double at = q * double(sorted.size() - 1);
    const size_t low = size_t(at), high = std::min(low + 1, sorted.size() - 1);
    return sorted[low] + (sorted[high] - sorted[low]) * (at - double(low));
}

Timing timing_of(std::vector<double> times) {
    std::sort(times.begin(), times.end());
    const double median = quantile(times, 0.5);
    return {.median = median,
            .minimum = times.front(),
            .spread_percent = 100 * (quantile(times, 0.75) - quantile(times, 0.25)) / median,
            .processor = 0,
            .runs = times.size()};
}

Timing time_runs(double seconds, Compute& compute, const std::function<void()>& body) {
    body();
    compute.wait();
    double start = now();
    body();
    compute.wait();
    const double once = now() - start;
    // A device is given enough at once that neither the launch nor the wait is what is timed.
    const double least = compute.on_host() ? 1e-4 : 1e-2;
    const size_t batch = once > least ? 1 : size_t(least / std::max(once, 1e-8)) + 1;
    std::vector<double> times;
    const double begin = now(), processor = processor_now();
    do {
        start = now();
        for (size_t i = 0; i < batch; ++i) body();
        compute.wait();
        times.push_back((now() - start) / double(batch));
    } while (times.size() < 3 || now() - begin < seconds);
    const size_t runs = times.size() * batch;
    const double used = (processor_now() - processor) / double(runs);
    Timing out = timing_of(std::move(times));
    out.processor = used;
    out.runs = runs;
    return out;
}

double Machine::measured(const std::string& key, const std::function<double()>& measure) {
    for (const auto& [known, value] : values_)
        if (known == key) return value;
    values_.emplace_back(key, measure());
    return values_.back().second;
}

double Machine::peak(const std::string& table, int threads) {
    const std::string set = table == "reference" ? "sse2" : table;
    const kernels::Probe probe = kernels::probe(set.c_str());
    if (probe == nullptr) return 0;
    return measured(fmt::format("{}_peak_flop_per_s/threads:{}", set, threads),
                    [&] { return measure_peak(probe, threads); });
}

double Machine::peak(const Compute& compute) {
    return compute.on_host() ? peak(compute.table->name, compute.queue.threads) : peak("cuda", 1);
}

double Machine::bandwidth(Compute& compute) {
    if (compute.on_host()) return bandwidth(compute.queue.threads);
    return measured("device_copy_bytes_per_s", [&] {
        const Tensor from = compute.zeros(Shape{stream_bytes}, DType::u8);
        Tensor to = compute.empty(Shape{stream_bytes}, DType::u8);
        const Timing t = time_runs(0.3, compute, [&] { to.assign(from); });
        return 2 * double(stream_bytes) / t.minimum;
    });
}

double Machine::read_bandwidth(int threads) {
    return measured(fmt::format("read_bytes_per_s/threads:{}", threads),
                    [&] { return measure_read(threads); });
}

double Machine::copy_bandwidth(int threads) {
    return measured(fmt::format("copy_bytes_per_s/threads:{}", threads),
                    [&] { return measure_copy(threads); });
}

double Machine::bandwidth(int threads) {
    return std::max(read_bandwidth(threads), copy_bandwidth(threads));
}

double Row::floor_percent() const {
    return 100 * floor_seconds / timing.minimum;
}

std::string Row::full_name() const {
    return fmt::format("{}/{}/threads:{}", name, table, threads);
}

std::string table_name(const Compute& compute) {
    constexpr const char* suffix[] = {"", "-tf32", "-bf16"};
    return std::string(compute.table->name) + suffix[int(compute.queue.precision)];
}

Row make_row(Machine& machine, const std::string& name, Compute& compute, double operations,
             double bytes, const Timing& timing) {
    Row row = {.name = name,
               .table = table_name(compute),
               .threads = compute.on_host() ? compute.queue.threads : 1,
               .timing = timing,
               .operations = operations,
               .bytes = bytes,
               .floor_seconds = 0};
    const double peak = operations > 0 ? machine.peak(compute) : 0;
    if (peak > 0) row.floor_seconds = operations / peak;
    if (bytes > 0)
        row.floor_seconds = std::max(row.floor_seconds, bytes / machine.bandwidth(compute));
    return row;
}

std::string row_header() {
    return fmt::format("{:<48} {:<16} {:>3} {:>10} {:>10} {:>8} {:>9} {:>8} {:>7}", "kernel",
                       "table", "thr", "median ms", "min ms", "spread %", "GFLOP/s", "GB/s",
                       "floor %");
}

std::string row_text(const Row& row) {
    const double minimum = row.timing.minimum;
    return fmt::format(
        "{:<48} {:<16} {:>3} {:>10.4f} {:>10.4f} {:>8.1f} {:>9.2f} {:>8.2f} {:>7.1f}", row.name,
        row.table, row.threads, row.timing.median * 1e3, minimum * 1e3, row.timing.spread_percent,
        row.operations / minimum * 1e-9, row.bytes / minimum * 1e-9, row.floor_percent());
}

Json to_json(const std::vector<Row>& rows, const Machine& machine, const std::string& command) {
    Json out;
    Json best = Json::object();
    for (const auto& [key, value] : machine.values()) best[key] = value;
    char date[32] = "";
    const std::time_t time = std::time(nullptr);
    std::tm parts = {};
    if (gmtime_r(&time, &parts) != nullptr)
        std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &parts);
    double load[3] = {};
    if (getloadavg(load, 3) != 3) load[0] = -1;
    out["context"] = {{"date", date},
                      {"executable", command},
                      {"num_cpus", std::thread::hardware_concurrency()},
                      {"load_avg", load[0] < 0 ? Json::array() : Json{load[0], load[1], load[2]}},
                      {"machine", best}};
    out["benchmarks"] = Json::array();
    for (const Row& row : rows) {
        const Timing& t = row.timing;
        out["benchmarks"].push_back({{"name", row.full_name()},
                                     {"run_name", row.full_name()},
                                     {"run_type", "iteration"},
                                     {"iterations", t.runs},
                                     {"real_time", t.median * 1e3},
                                     {"cpu_time", t.processor * 1e3},
                                     {"time_unit", "ms"},
                                     {"table", row.table},
                                     {"threads", row.threads},
                                     {"minimum_ms", t.minimum * 1e3},
                                     {"spread_percent", t.spread_percent},
                                     {"operations_flop", row.operations},
                                     {"moved_bytes", row.bytes},
                                     {"floor_ms", row.floor_seconds * 1e3},
                                     {"floor_percent", row.floor_percent()}});
    }
    return out;
}

Comparison compare(const Json& a, const std::string& path_a, const Json& b,
                   const std::string& path_b, double max_ratio) {
    const auto rows_a = read_rows(a, path_a), rows_b = read_rows(b, path_b);
    Comparison result;
    for (const Measured& row : rows_a) {
        const auto other = std::find_if(rows_b.begin(), rows_b.end(),
                                        [&](const Measured& r) { return r.name == row.name; });
        if (other == rows_b.end()) continue;
        const double ratio = other->seconds / row.seconds;
        result.pairs.push_back({row.name, row.seconds, other->seconds, ratio});
        if (ratio > max_ratio) ++result.slower;
    }
    if (result.pairs.empty())
        throw Error("[compare] " + path_a + " and " + path_b + " have no row in common");
    return result;
}

std::string idle_warning() {
    double load[1] = {};
    if (getloadavg(load, 1) != 1 || load[0] < 0.5) return "";
    return fmt::format(
        "load average {:.1f} on {} processors: others are running, so times and peaks are "
        "not those of an idle machine",
        load[0], std::thread::hardware_concurrency());
}

}  // namespace nc::bench
